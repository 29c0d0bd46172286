"""Reading a slot from end to end: the next piece is read from the medium while the last one is hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from careen.disk.types import DiskIoError

from .leaves import BLOCK_BYTES, LEAF_BYTES, READ_BYTES, hash_blocks, hash_part
from .media import Source

SLICE_BLOCKS = 8192
"""Blocks of one slice, after which a wish to stop is heard: 32 MiB."""


def read_ahead(slot: Source, offset: int, end: int) -> Iterator[tuple[int, bytes | DiskIoError]]:
    """The bytes from `offset` up to `end` in pieces, each with its offset; an error for what can't be read."""
    with ThreadPoolExecutor(1) as ahead:
        waiting: Future[bytes | DiskIoError] = ahead.submit(_read, slot, offset, min(READ_BYTES, end - offset))
        while offset < end:
            data, following = waiting.result(), offset + READ_BYTES
            if following < end:
                waiting = ahead.submit(_read, slot, following, min(READ_BYTES, end - following))
            yield offset, data
            offset = following


def _read(slot: Source, offset: int, length: int) -> bytes | DiskIoError:
    try:
        return slot.read_back(offset, length)
    except DiskIoError as error:
        return error


class Survey:
    """What a slot holds now, slice by slice, beside what it is to hold.

    wanted: leaves of the image. As long as all blocks are what they are to be, the hash of the whole is made on the
    way: a slot that holds everything already need not be read twice.
    """

    def __init__(self, slot: Source, wanted: bytes) -> None:
        self._slot = slot
        self._wanted = wanted
        self._parts: list[bytes] = []
        self._bad = 0
        self._whole: hashlib._Hash | None = hashlib.sha256()

    def take_leaves(self) -> bytes:
        """Leaves of all that was read, UNKNOWN_LEAF for what can't be read. They are not kept here any longer."""
        leaves = b"".join(self._parts)
        self._parts.clear()
        return leaves

    def read(self, first: int, count: int) -> None:
        """Read one slice. Call it for all of them, in order."""
        with ThreadPoolExecutor(1) as beside:
            for offset, data in read_ahead(self._slot, first * BLOCK_BYTES, (first + count) * BLOCK_BYTES):
                block = offset // BLOCK_BYTES
                if isinstance(data, DiskIoError):
                    # Even if all its blocks can be read one by one, they are not in the hash of the whole.
                    self._whole = None
                    blocks = min(READ_BYTES // BLOCK_BYTES, first + count - block)
                    leaves, self._bad = hash_part(self._slot, block, blocks, bad=self._bad)
                else:
                    # The hash of the whole takes as long as those of the blocks: a second core has time for it.
                    whole = beside.submit(self._whole.update, data) if self._whole is not None else None
                    leaves = hash_blocks(data)
                    if whole is not None:
                        whole.result()
                self._parts.append(leaves)
                if self._wanted[block * LEAF_BYTES : block * LEAF_BYTES + len(leaves)] != leaves:
                    self._whole = None

    def finish(self, tail: bytes) -> str | None:
        """sha256 of all blocks and of `tail` behind them, hex; None if some block is not what it is to be."""
        if self._whole is None:
            return None
        self._whole.update(tail)
        return self._whole.hexdigest()
