# What the loader and the slots' initrd share. For busybox sh; sourced, never run.

say() { echo "$NAME $(cut -d' ' -f1 /proc/uptime) $*"; }

# Nobody sits at the console of a machine in a fleet: whatever fails, the firmware is asked again.
give_up() {
    say "giving up: $*"
    sync
    sleep 1
    reboot -f
    sleep 10
    echo b > /proc/sysrq-trigger
}

# The value of a word of the kernel command line: word_of careen.slot
word_of() { sed -n "s/^\(.* \)\{0,1\}$1=\([^ ]*\).*$/\2/p" /proc/cmdline; }

# With its parameters from the command line, which only modprobe would look for: load_module watchdog.ko
load_module() {
    parameters=$(tr ' ' '\n' < /proc/cmdline | sed -n "s/^${1%.ko}\.//p")
    # Unquoted: each of them is a word.
    insmod "/lib/modules/$1" $parameters || say "module $1 was refused"
}

load_modules() {
    while read -r module; do load_module "$module"; done < /lib/modules/order
}

# The device of the partition with a label: find_partition USR-A
find_partition() {
    for attempt in $(seq 200); do
        for event in /sys/class/block/*/uevent; do
            if grep -q "^PARTNAME=$1\$" "$event"; then
                sed -n 's|^DEVNAME=|/dev/|p' "$event"
                return 0
            fi
        done
        sleep 0.05
    done
    return 1
}

# Copies the JSON of a slot's boot block to a file: read_boot_block /dev/vda3 FILE
read_boot_block() {
    sectors=$(cat "/sys/class/block/${1##*/}/size")
    dd if="$1" of="$2.raw" bs=512 skip=$((sectors - 8)) count=8 2> /dev/null || return 1
    [ "$(head -c 8 "$2.raw")" = CAREENBB ] || return 1
    length=$(od -An -tu4 -j 8 -N 4 "$2.raw" | tr -d ' ')
    [ "$length" -le 4084 ] || return 1
    tail -c +13 "$2.raw" | head -c "$length" > "$2"
}

# A member of the boot block: text_of FILE verityRoot; number_of FILE dataBlocks; member_of FILE kernel path
text_of() { sed -n "s/.*\"$2\": *\"\([^\"]*\)\".*/\1/p" "$1"; }
number_of() { sed -n "s/.*\"$2\": *\([0-9]*\).*/\1/p" "$1"; }
member_of() { sed -n "s/.*\"$2\": *{\([^}]*\)}.*/{\1}/p" "$1" | sed -n "s/.*\"$3\": *\"\([^\"]*\)\".*/\1/p"; }
