"""A disk that takes writes and keeps them to itself: what a change would do, found out by doing it in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from careen.disk.writes import Plan


class Medium(Protocol):
    """What a partition table lives on: an open disk, or a rehearsal of one."""

    @property
    def path(self) -> Path:
        """The disk's path."""
        ...

    @property
    def size(self) -> int:
        """Length in bytes."""
        ...

    @property
    def sector_size(self) -> int:
        """Bytes of a logical sector."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Read bytes; fewer only at the end of the disk."""
        ...

    def execute(self, plan: Plan) -> None:
        """Carry out a plan, durably."""
        ...


class Rehearsal:
    """A medium over another one, which is only read: writes stay in memory and are seen by later reads."""

    def __init__(self, medium: Medium) -> None:
        self.path = medium.path
        self.size = medium.size
        self.sector_size = medium.sector_size
        self._medium = medium
        self._written: list[tuple[int, bytes]] = []

    def read(self, offset: int, length: int) -> bytes:
        """The disk's bytes with everything written here laid over them. Raises DiskIoError."""
        data = bytearray(self._medium.read(offset, length))
        end = offset + len(data)
        for start, written in self._written:
            low, high = max(start, offset), min(start + len(written), end)
            if low < high:
                data[low - offset : high - offset] = written[low - start : high - start]
        return bytes(data)

    def execute(self, plan: Plan) -> None:
        """Keep the plan's writes."""
        self._written += [(write.offset, write.data) for window in plan for write in window]
