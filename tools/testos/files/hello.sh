#!/bin/sh
# One line on the console, for whoever waits for this machine.
. /usr/lib/os-release
word() { sed -n "s/^\(.* \)\{0,1\}$1=\([^ ]*\).*$/\2/p" /proc/cmdline; }
echo "OS up: version=$IMAGE_VERSION slot=$(word careen.slot) boot=$(word careen.boot)" \
    "loader=$(cat /proc/sys/kernel/bootloader_type) id=$(cat /proc/sys/kernel/random/boot_id)" \
    "state=$(systemctl is-system-running) uptime=$(cut -d' ' -f1 /proc/uptime)" > /dev/console
