# The partition table as GRUB's gptprio module sees and changes it. For busybox sh; sourced, never run.
#
# DISK is the whole disk, WORK a folder for the copies of the table. 512-byte sectors, tables of 128 entries.

USR_TYPE=f4f5fb5d4828ac4baa5e0d9a20b745a6

_number() { od -An -t"u$3" -j "$2" -N "$3" "$1" | tr -d ' '; }
_crc() { crc32 "$1" | cut -c1-8; }

# Bytes of a 32-bit number given as 8 hex digits, least significant first.
_reversed() { echo "${1:6:2}${1:4:2}${1:2:2}${1:0:2}"; }

# patch FILE OFFSET HEX: overwrite bytes in place
_patch() { echo "$3" | xxd -r -p | dd of="$1" bs=1 seek="$2" conv=notrunc 2> /dev/null; }

# The CRC of a header is made with its own field empty.
_header_crc() {
    head -c "$(_number "$1" 12 4)" "$1" > "$WORK/header"
    _patch "$WORK/header" 16 00000000
    _crc "$WORK/header"
}

# read_copy NAME LBA: header and entries to $WORK/NAME.h and .e; fails unless all of it is right
_read_copy() {
    dd if="$DISK" of="$WORK/$1.h" bs=512 skip="$2" count=1 2> /dev/null || return 1
    [ "$(head -c 8 "$WORK/$1.h")" = "EFI PART" ] || return 1
    size=$(_number "$WORK/$1.h" 12 4)
    [ "$size" -ge 92 ] && [ "$size" -le 512 ] || return 1
    [ "$(_header_crc "$WORK/$1.h")" = "$(printf %08x "$(_number "$WORK/$1.h" 16 4)")" ] || return 1
    [ "$(_number "$WORK/$1.h" 24 8)" = "$2" ] || return 1
    [ "$(_number "$WORK/$1.h" 80 4)" = 128 ] && [ "$(_number "$WORK/$1.h" 84 4)" = 128 ] || return 1
    dd if="$DISK" of="$WORK/$1.e" bs=512 skip="$(_number "$WORK/$1.h" 72 8)" count=32 2> /dev/null || return 1
    [ "$(_crc "$WORK/$1.e")" = "$(printf %08x "$(_number "$WORK/$1.h" 88 4)")" ]
}

# Reads both copies, and makes $WORK/table from the one that counts: the primary if it is right, else the backup.
read_table() {
    last=$(($(disk_sectors) - 1))
    PRIMARY=bad BACKUP=bad
    _read_copy primary 1 && PRIMARY=good
    _read_copy backup "$last" && BACKUP=good
    if [ $PRIMARY = good ]; then
        cp "$WORK/primary.e" "$WORK/table"
    elif [ $BACKUP = good ]; then
        cp "$WORK/backup.e" "$WORK/table"
    else
        return 1
    fi
}

disk_sectors() {
    if [ -f "$DISK" ]; then
        echo $(($(stat -c %s "$DISK") / 512))
    else
        cat "/sys/class/block/${DISK##*/}/size"
    fi
}

# One line for each OS slot: PARTITION PRIORITY TRIES SUCCESSFUL GUID
list_slots() {
    hexdump -v -e '128/1 "%02x" "\n"' "$WORK/table" | grep -n "^$USR_TYPE" | while IFS=: read -r partition entry; do
        low=$((0x${entry:108:2})) high=$((0x${entry:110:2}))
        echo "$partition $((low & 15)) $((low >> 4)) $((high & 1)) ${entry:32:32}"
    done
}

# The partition that GRUB would boot, leaving out those in $1 (" 3 4 "); nothing if there is none.
choose_slot() {
    list_slots | {
        best=0 chosen=
        while read -r partition priority tries successful _; do
            case "$1" in *" $partition "*) continue ;; esac
            # Eligible: priority of at least 1, and a try left or successful. The first of equals wins.
            if [ "$priority" -gt "$best" ] && { [ "$tries" -gt 0 ] || [ "$successful" = 1 ]; }; then
                best=$priority chosen=$partition
            fi
        done
        echo "$chosen"
    }
}

# use_try PARTITION: one try less, also when the slot is successful; durable when it returns. Repairs the table too.
use_try() {
    place=$((($1 - 1) * 128 + 54))
    low=$(_number "$WORK/table" $place 1)
    [ "$low" -lt 16 ] && [ $PRIMARY$BACKUP = goodgood ] && cmp -s "$WORK/primary.e" "$WORK/backup.e" && return 0
    [ "$low" -lt 16 ] || _patch "$WORK/table" $place "$(printf %02x $((low - 16)))"
    write_table
}

# The backup is whole on the medium before the primary is touched, so that a power cut leaves the old or the new table.
write_table() {
    last=$(($(disk_sectors) - 1))
    entries=$(_crc "$WORK/table")
    source=primary
    [ $PRIMARY = good ] || source=backup
    cp "$WORK/$source.h" "$WORK/new"
    _write_copy "$last" 1 $((last - 32)) && _write_copy 1 "$last" 2 && PRIMARY=good BACKUP=good \
        && cp "$WORK/table" "$WORK/primary.e" && cp "$WORK/table" "$WORK/backup.e" && cp "$WORK/new" "$WORK/primary.h"
}

# write_copy LBA OTHER ENTRIES: entries, then the header of $WORK/new made to fit
_write_copy() {
    for field in "24 $1" "32 $2" "72 $3"; do
        place=${field% *} value=$(printf %08x "${field#* }")
        _patch "$WORK/new" "$place" "$(_reversed "$value")00000000"
    done
    _patch "$WORK/new" 88 "$(_reversed "$entries")"
    _patch "$WORK/new" 16 "$(_reversed "$(_header_crc "$WORK/new")")"
    dd if="$WORK/table" of="$DISK" bs=512 seek="$3" conv=notrunc,fsync 2> /dev/null \
        && dd if="$WORK/new" of="$DISK" bs=512 seek="$1" conv=notrunc,fsync 2> /dev/null
}
