"""A limit on bytes per second, shared by everything that fetches."""

from __future__ import annotations

import asyncio
import time


class Pace:
    """Lets bytes through at a steady rate. bytes_per_second: None is no limit."""

    def __init__(self, bytes_per_second: int | None) -> None:
        if bytes_per_second is not None and bytes_per_second < 1:
            raise ValueError(f"bytesPerSecond is {bytes_per_second}; allowed: 1 and more")
        self._rate = bytes_per_second
        self._free_at = 0.0

    async def take(self, count: int) -> None:
        """Wait until `count` bytes that came are paid for; the next ones wait behind them.

        Time in which nothing came is not saved up: after a pause there is no burst.
        """
        if self._rate is None:
            return
        now = time.monotonic()
        self._free_at = max(self._free_at, now) + count / self._rate
        await asyncio.sleep(self._free_at - now)
