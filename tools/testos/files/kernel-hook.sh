#!/bin/sh
# Runs in mmdebstrap with the new root as its argument. Unpacks the kernel without installing it: its package would
# pull in a maker of initramfs images that nobody needs here.
set -eu
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
meta=$KERNEL_PACKAGE
package=$(apt-cache depends --no-recommends --no-suggests $meta | sed -n 's/^ *Depends: *\(linux-image-[0-9].*\)$/\1/p')
version=$(apt-cache policy $meta | sed -n 's/^ *Candidate: *//p')
folder=$(mktemp -d)
cd "$folder"
apt-get download "$package=$version"
dpkg-deb -x ./*.deb unpacked
mkdir -p "$1/usr/boot" "$1/usr/lib/modules"
cp unpacked/boot/vmlinuz-* "$1/usr/boot/vmlinuz"
cp -a unpacked/lib/modules/. "$1/usr/lib/modules/"
chroot "$1" depmod "$(ls unpacked/lib/modules)"
echo "$meta $version" > "$1/usr/boot/package"
cd /
rm -rf "$folder"

# Python's compiled files name the time of their source, and the image gives all files one time: without this every
# start would compile every module anew, on a read-only disk.
chroot "$1" python3 -m compileall -q -f --invalidation-mode unchecked-hash /usr/lib/python3 /usr/lib/python3.11 || true
