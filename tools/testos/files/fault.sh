#!/bin/sh
# What a broken version does while it boots.
word=$(cat /usr/lib/testos/fault.word)
echo "OS fault: $word" > /dev/console
case "$word" in
    panic)
        echo c > /proc/sysrq-trigger
        ;;
    hang)
        # Two greedy tasks for each processor, above everything else: systemd gets no time to feed a watchdog.
        echo -1 > /proc/sys/kernel/sched_rt_runtime_us
        for _ in $(seq $(($(nproc) * 2))); do chrt -f 99 sh -c 'while :; do :; done' & done
        while :; do :; done
        ;;
esac
