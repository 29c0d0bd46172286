# A reset: what the marker at the top of the writable root does not keep is deleted. For busybox sh; sourced, never run.
# The marker's lines are those of operator/careen/agent/reset.py: `careen-reset 1`, then `keep PATTERN` for each path.

# Obeys a marker, if there is one: obey_reset /sysroot. Fails, and deletes nothing, when the marker can't be read.
obey_reset() {
    [ -e "$1/careen-reset" ] || return 0
    kept=$(read_marker "$1/careen-reset") || return 1
    empty_folder "$1" "" || return 1
    # The marker last: after a power cut at any point before, the next boot begins again.
    sync
    rm "$1/careen-reset" && sync
}

# The patterns of a marker, one a line.
read_marker() {
    {
        read -r line && [ "$line" = "careen-reset 1" ] || return 1
        while read -r word pattern; do
            [ "$word" = keep ] || return 1
            case "/$pattern/" in // | *//* | */./* | */../*) return 1 ;; esac
            case "${pattern%/*}" in "$pattern") ;; *[*?[]*) return 1 ;; esac
            echo "$pattern"
        done
    } < "$1"
}

# Deletes in a folder what is not kept: empty_folder ROOT FOLDER/
empty_folder() {
    ls -A "$1/$2" | while IFS= read -r name; do
        case $(judge "$2$name") in
            keep) ;;
            enter)
                if [ -d "$1/$2$name" ] && [ ! -L "$1/$2$name" ]; then
                    (empty_folder "$1" "$2$name/") || exit 1
                else
                    rm -f "$1/$2$name" || exit 1
                fi
                ;;
            *) rm -rf "$1/$2$name" || exit 1 ;;
        esac
    done
}

# What becomes of a path: keep, enter (something below it is kept), or delete.
judge() {
    [ "$1" = careen-reset ] && echo keep && return
    echo "$kept" | while IFS= read -r pattern; do
        # shellcheck disable=SC2254 # It is a pattern.
        case "$1" in $pattern) echo keep && return ;; esac
        case "$pattern" in "$1"/*) echo enter && return ;; esac
    done | head -n 1
}
