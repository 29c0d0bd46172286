"""The API server's wall clock, seen from our own monotonic one."""

from __future__ import annotations

import time
from datetime import datetime

BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_seconds() -> float:
    """Seconds that never jump and go on through suspend and SIGSTOP (CLOCK_BOOTTIME; else CLOCK_MONOTONIC)."""
    return time.clock_gettime(BOOT_CLOCK)


class ServerClock:
    """What the Date header says the API server's time is, without trusting the wall clock of this machine.

    A Date is cut to whole seconds and is older than the moment we read it, so each one gives a lower bound of the
    server's time; the best bound is kept, and thrown away when a later answer contradicts it (the server's clock was
    set back, or another server answered).
    """

    def __init__(self) -> None:
        self._offset: float | None = None

    def observe(self, date: datetime | None, mono: float, sent: float | None = None) -> None:
        """Take the Date of an answer that was read at `mono`, to a request that was sent at `sent` (monotonic)."""
        if date is None:
            return
        stamp = date.timestamp()
        lowest = stamp - mono
        highest = stamp + 1.0 - (mono if sent is None else sent)
        if self._offset is None or lowest > self._offset or (sent is not None and highest < self._offset):
            self._offset = lowest

    def now(self, mono: float) -> float | None:
        """The server's time at `mono` as unix seconds, up to about a second low; None before the first answer."""
        return None if self._offset is None else mono + self._offset
