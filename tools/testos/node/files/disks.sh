# Sourced, never run.

# The device of the disk with a serial number: find_disk identity
find_disk() {
    for attempt in $(seq 200); do
        for serial in /sys/block/vd*/serial; do
            if [ "$(cat "$serial" 2> /dev/null)" = "$1" ]; then
                serial=${serial%/serial}
                echo "/dev/${serial##*/}"
                return 0
            fi
        done
        sleep 0.05
    done
    return 1
}
