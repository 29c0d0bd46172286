"""How much memory the C library keeps for itself."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
LARGE_BYTES = 2 << 20
"""Buffers from this size on go back to the kernel when they are freed. Those for reading and writing are smaller."""


def limit_arenas() -> None:
    """Let all threads share one heap, and keep large buffers out of it.

    glibc has a heap for each thread, and what was freed in one is of no use to another; and after the first large
    buffer it puts the next ones into the heap, where a small one behind them keeps them from going back. Call it before
    the first thread. Does nothing with another C library.
    """
    with suppress(AttributeError, OSError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_ARENA_MAX, 1)
        library.mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
