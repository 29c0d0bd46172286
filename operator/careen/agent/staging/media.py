"""What a staging reads and writes: the bytes of the two slots."""

from __future__ import annotations

from typing import Protocol


class Source(Protocol):
    """The bytes of one partition, for reading. Offsets and lengths are in bytes; all calls raise DiskError."""

    @property
    def size(self) -> int:
        """Length of the partition in bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Read through the page cache."""
        ...

    def read_back(self, offset: int, length: int) -> bytes:
        """Read from the medium, past the page cache."""
        ...

    def drop_cached(self) -> None:
        """Let go of the page cache of what is written and flushed, which nobody will read again."""


class Target(Source, Protocol):
    """The bytes of the passive slot."""

    def write(self, offset: int, data: bytes) -> None:
        """Write at a byte offset."""

    def sync(self) -> None:
        """Make all writes durable."""
