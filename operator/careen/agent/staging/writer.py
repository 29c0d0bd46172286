"""Writing to the passive slot: in large pieces, flushed regularly, and out of the page cache soon after."""

from __future__ import annotations

import threading

from careen.disk.types import DiskError

from .fault import StageError
from .leaves import BLOCK_BYTES
from .media import Target

PIECE_BYTES = 1 << 20
"""Bytes that follow each other are written in pieces of this size."""
SYNC_BYTES = 64 << 20
"""How much may be written before it is flushed: the kernel would else hold it in memory, and flush it all at once."""


class SlotWriter:
    """Writes blocks to the slot. `put` and `finish` may be called from many threads."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._unsynced = 0
        self.written = 0
        """Bytes written so far."""

    def put(self, block: int, data: bytes) -> None:
        """Write whole blocks that follow each other, from number `block` on. Raises StageError Disk."""
        view = memoryview(data)
        try:
            for at in range(0, len(view), PIECE_BYTES):
                piece = data if len(data) <= PIECE_BYTES else bytes(view[at : at + PIECE_BYTES])
                self._target.write(block * BLOCK_BYTES + at, piece)
            with self._lock:
                self.written += len(view)
                self._unsynced += len(view)
                if self._unsynced >= SYNC_BYTES:
                    self._flush()
        except DiskError as error:
            raise StageError("Disk", str(error)) from error

    def finish(self) -> None:
        """Make everything durable. Raises StageError Disk."""
        try:
            with self._lock:
                self._flush()
        except DiskError as error:
            raise StageError("Disk", str(error)) from error

    def _flush(self) -> None:
        self._unsynced = 0
        try:
            self._target.sync()
        finally:
            # Also after an error: what could not be written looks in the page cache as if it were in place.
            self._target.drop_cached()


class Gather:
    """Collects blocks that follow each other, and writes them when a piece is full or they end."""

    def __init__(self, writer: SlotWriter) -> None:
        self._writer = writer
        self._first = 0
        self._parts = bytearray()

    def add(self, block: int, data: bytes | memoryview) -> None:
        """Blocks from number `block` on."""
        if self._parts and block != self._first + len(self._parts) // BLOCK_BYTES:
            self.flush()
        if not self._parts:
            self._first = block
        self._parts += data
        if len(self._parts) >= PIECE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is left."""
        if self._parts:
            self._writer.put(self._first, bytes(self._parts))
            self._parts.clear()
