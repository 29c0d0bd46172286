"""Leaves of a slot: sha256 of each of its 4 KiB blocks, 32 bytes one behind the other, and where to find one again."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Iterator

from careen.disk.types import DiskIoError

from .media import Source

BLOCK_BYTES = 4096
LEAF_BYTES = 32
ZERO_BLOCK = bytes(BLOCK_BYTES)
ZERO_LEAF = hashlib.sha256(ZERO_BLOCK).digest()
UNKNOWN_LEAF = bytes(LEAF_BYTES)
"""Stands for a block that can't be read. No block has it."""

READ_BYTES = 1 << 20
"""How much is read at once."""
MAX_BAD_BLOCKS = 256
"""Blocks that may fail to be read, one by one, before the rest of the slot is left unread: each may take seconds."""

_PREFIX_BITS = 40
_NUMBER_BITS = 24
_MAX_BLOCKS = 1 << _NUMBER_BITS


def hash_blocks(data: bytes | memoryview) -> bytes:
    """Leaves of whole blocks; a shorter last one counts as filled with zeros."""
    sha256, view = hashlib.sha256, memoryview(data)
    whole = len(view) - len(view) % BLOCK_BYTES
    if view[:whole] == bytes(whole):
        leaves = ZERO_LEAF * (whole // BLOCK_BYTES)
    else:
        leaves = b"".join([sha256(view[at : at + BLOCK_BYTES]).digest() for at in range(0, whole, BLOCK_BYTES)])
    if whole < len(view):
        leaves += sha256(bytes(view[whole:]).ljust(BLOCK_BYTES, b"\0")).digest()
    return leaves


def hash_part(source: Source, first: int, count: int, *, bad: int = 0) -> tuple[bytes, int]:
    """Leaves of `count` blocks from block `first` on, as they are on the medium, and how many can't be read in all.

    bad: unreadable blocks met before. A block that can't be read has UNKNOWN_LEAF, and so has all that follows once
    there are MAX_BAD_BLOCKS of them.
    """
    offset, length = first * BLOCK_BYTES, count * BLOCK_BYTES
    if bad >= MAX_BAD_BLOCKS:
        return UNKNOWN_LEAF * count, bad
    try:
        return hash_blocks(source.read_back(offset, length)), bad
    except DiskIoError:
        if count == 1:
            return UNKNOWN_LEAF, bad + 1
    leaves = []
    for block in range(first, first + count):
        leaf, bad = hash_part(source, block, 1, bad=bad)
        leaves.append(leaf)
    return b"".join(leaves), bad


def parts_of(blocks: int) -> Iterator[tuple[int, int]]:
    """First block and number of blocks of each piece that is read at once."""
    step = READ_BYTES // BLOCK_BYTES
    for first in range(0, blocks, step):
        yield first, min(step, blocks - first)


class LeafIndex:
    """Finds blocks by their leaf. Holds 8 bytes a block: a dict of digests would need twenty times as much."""

    def __init__(self, leaves: bytes) -> None:
        blocks = len(leaves) // LEAF_BYTES
        if blocks > _MAX_BLOCKS:
            raise ValueError(f"{blocks} blocks; allowed: {_MAX_BLOCKS}")
        self._leaves = leaves
        # Zeros are never looked up, and an image is full of them.
        self._keys = array(
            "Q",
            sorted(
                _key(leaf) | block
                for block in range(blocks)
                if (leaf := leaves[block * LEAF_BYTES : (block + 1) * LEAF_BYTES]) not in (ZERO_LEAF, UNKNOWN_LEAF)
            ),
        )

    def find(self, leaf: bytes, at_least: int = 0) -> Iterator[int]:
        """Blocks with this leaf, in ascending order, from number `at_least` on."""
        key = _key(leaf)
        at = bisect_left(self._keys, key | at_least)
        while at < len(self._keys) and self._keys[at] >> _NUMBER_BITS == key >> _NUMBER_BITS:
            block = self._keys[at] & (_MAX_BLOCKS - 1)
            if self._leaves[block * LEAF_BYTES : (block + 1) * LEAF_BYTES] == leaf:
                yield block
            at += 1


def _key(leaf: bytes) -> int:
    return int.from_bytes(leaf[: _PREFIX_BITS // 8], "big") << _NUMBER_BITS
