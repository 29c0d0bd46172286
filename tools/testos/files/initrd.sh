#!/bin/sh
# The initrd of the test OS: /usr from the slot through dm-verity, the writable root beneath it, and over to systemd.

export PATH=/bin:/usr/sbin
export DM_DISABLE_UDEV=1
NAME=INITRD

mkdir -p /proc /sys /dev /run /sysroot
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs -o mode=0755 tmpfs /run
exec < /dev/console > /dev/console 2>&1
. /lib/common.sh
. /lib/reset.sh

say "started"
load_modules
# A watchdog for machines without one, when the command line has softdog.soft_margin=SECONDS.
[ -z "$(word_of softdog.soft_margin)" ] || load_module softdog.ko

slot=$(word_of careen.slot)
hash=$(word_of careen.usrhash)
case "$slot" in A | B) ;; *) give_up "careen.slot is '$slot'; allowed: A and B" ;; esac
[ ${#hash} = 64 ] || give_up "careen.usrhash is '$hash'; allowed: 64 hex digits"

usr=$(find_partition "USR-$slot") || give_up "there is no partition USR-$slot"
root=$(find_partition ROOT) || give_up "there is no partition ROOT"
read_boot_block "$usr" /run/boot-block || give_up "slot $slot has no boot block"
blocks=$(number_of /run/boot-block dataBlocks)
[ "$(text_of /run/boot-block verityRoot)" = "$hash" ] || give_up "slot $slot does not hold the system that was chosen"

# A block that is not what was signed must end this boot: with an I/O error only, half a system would go on running.
veritysetup open "$usr" usr "$usr" "$hash" --hash-offset=$((blocks * 4096)) --panic-on-corruption \
    || give_up "dm-verity can't be set up on $usr"
mount -t ext4 "$root" /sysroot || give_up "$root can't be mounted"
# A marker that can't be obeyed stays, and the agent tells so: a machine that does not boot could tell nothing.
[ ! -e /sysroot/careen-reset ] || say "reset: all but the machine's identity is deleted"
obey_reset /sysroot || say "the reset was not done"

# The writable root may be empty, after a reset above all: everything in it can be made again from /usr.
cd /sysroot || give_up "no root"
mkdir -p usr proc sys dev run tmp etc var root home mnt srv opt .etc-work
chmod 1777 tmp
chmod 0700 root
for name in bin sbin lib lib64; do [ -L $name ] || ln -s usr/$name $name; done
mount -t ext4 -o ro,noload /dev/mapper/usr usr 2> /dev/null || mount -t erofs -o ro /dev/mapper/usr usr \
    || give_up "/usr can't be mounted"
# Where all of /etc was deleted, the overlay must not go on hiding the files of /usr/share/careen/etc.
[ ! -c etc/passwd ] || find etc -type c -exec rm -f {} \;
if [ ! -e var/.careen ]; then
    cp -a usr/share/factory/var/. var/
    sync
    touch var/.careen
fi

# Who this machine is comes from the OEM partition, which no reset touches.
if oem=$(find_partition OEM) && mount -t ext4 -o ro "$oem" /sysroot/mnt; then
    [ -s etc/machine-id ] || cp /sysroot/mnt/machine-id etc/machine-id
    [ -e etc/careen ] || { cp -a /sysroot/mnt/careen etc/.careen.new && sync && mv etc/.careen.new etc/careen; }
    umount /sysroot/mnt
fi
mount -t overlay overlay -o lowerdir=usr/share/careen/etc,upperdir=etc,workdir=.etc-work etc \
    || give_up "/etc can't be mounted"

sync
for name in proc sys dev run; do mount --move /$name /sysroot/$name; done
cd /
NAME=INITRD
echo "INITRD switching to slot $slot at $(cut -d' ' -f1 /sysroot/proc/uptime)" > /sysroot/dev/console
exec switch_root /sysroot /usr/lib/systemd/systemd
