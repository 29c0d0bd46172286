#!/bin/sh
# The loader of the test machines: kernel and initramfs that QEMU starts at every reset, as a firmware starts GRUB.
# It boots by kexec the slot that GRUB's gptprio would choose, and uses up a try before that.

export PATH=/bin
NAME=LOADER
WORK=/run/gpt

mkdir -p /proc /sys /dev /run
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
exec < /dev/console > /dev/console 2>&1
. /lib/common.sh
. /lib/gpt.sh

say "started"
mkdir -p $WORK /slot
load_modules

# The disk that holds the slots: the first one with a table. Disks may need a moment to appear.
find_disk() {
    for attempt in $(seq 100); do
        for device in /sys/block/vd* /sys/block/sd* /sys/block/nvme*; do
            [ -e "$device" ] || continue
            DISK=/dev/${device##*/}
            read_table && return 0
        done
        # A disk without a right table stays without it: wait only for the disk.
        [ -n "$DISK" ] && [ "$attempt" -gt 20 ] && return 1
        sleep 0.05
    done
    return 1
}

# The name of a slot follows from its unique GUID, as in GRUB's configuration.
slot_name() {
    case "$1" in
        4ac930713a215a4e8e266cce9662f132) echo A ;;
        5cd33de02d7c474ab3fe27f15780a57c) echo B ;;
        *) echo unknown ;;
    esac
}

device_of() {
    case "$DISK" in *[0-9]) echo "${DISK}p$1" ;; *) echo "$DISK$1" ;; esac
}

# load_file FOLDER MEMBER: copies kernel or initrd from the slot to memory and compares its hash
load_file() {
    path=$(member_of $WORK/block "$1" path)
    [ -n "$path" ] && cp "/slot/$path" "$WORK/$1" || return 1
    [ "$(sha256sum "$WORK/$1" | cut -c1-64)" = "$(member_of $WORK/block "$1" sha256)" ]
}

# Whether the slot's system is loaded. Everything that can be wrong with a slot is a reason to take the next one.
load_slot() {
    device=$(device_of "$1")
    read_boot_block "$device" $WORK/block || { say "slot $2 has no boot block"; return 1; }
    mount -t ext4 -o ro,noload "$device" /slot 2> /dev/null || mount -t erofs -o ro "$device" /slot 2> /dev/null || {
        say "slot $2 can't be mounted"
        return 1
    }
    loaded=no
    if load_file kernel && load_file initrd; then
        # What is for the system alone is hidden from the loader's own kernel: a kernel in lockdown boots no other.
        words=$(sed 's/\(^\| \)os:/\1/g; s/\(^\| \)careen\.[a-z]*=[^ ]*//g; s/\(^\| \)BOOT_IMAGE=[^ ]*//g; s/^ *//' /proc/cmdline)
        words="$words careen.slot=$2 careen.usrhash=$(text_of $WORK/block verityRoot) careen.boot=firmware"
        kexec -s -l $WORK/kernel --initrd=$WORK/initrd --command-line="$words" && loaded=yes
    else
        say "slot $2 has a bad kernel or initrd"
    fi
    umount /slot
    rm -f $WORK/kernel $WORK/initrd
    [ $loaded = yes ]
}

find_disk || give_up "no disk with a partition table that is right"
say "table of $DISK: primary $PRIMARY, backup $BACKUP"
list_slots > $WORK/slots
while read -r partition priority tries successful guid; do
    say "slot $(slot_name "$guid"): partition $partition priority $priority tries $tries successful $successful"
done < $WORK/slots

passed=" "
while chosen=$(choose_slot "$passed") && [ -n "$chosen" ]; do
    passed="$passed$chosen "
    name=$(slot_name "$(sed -n "s/^$chosen .* //p" $WORK/slots)")
    # Before anything of the slot runs: a slot whose try can't be taken away must not be tried.
    use_try "$chosen" || { say "slot $name: the table can't be written"; continue; }
    say "slot $name chosen"
    if load_slot "$chosen" "$name"; then
        say "booting slot $name"
        sync
        kexec -e
        say "kexec of slot $name came back"
    fi
done
give_up "no slot can be booted"
