"""dm-verity hash trees: format 1, SHA-256, blocks of 4 KiB, no salt, as `veritysetup format --salt=-` makes them.

No salt, so that a leaf is the plain SHA-256 of its block: the trees of two releases can be compared, and a leaf finds a
block wherever it lies.
"""

from __future__ import annotations

import hashlib
import struct
import uuid
from dataclasses import dataclass

from .errors import VerityError

BLOCK_BYTES = 4096
"""Size of data and hash blocks."""
HASH_BYTES = 32
ZERO_LEAF = hashlib.sha256(bytes(BLOCK_BYTES)).digest()
"""Hash of a block of zeros."""

_HASHES = BLOCK_BYTES // HASH_BYTES
_SUPERBLOCK = struct.Struct("<8sII16s32sIIQH6x256s168x")
_NAMESPACE = uuid.UUID("6f6c4f9f-3d0b-5a3e-8a6e-0c2a4c7d9b15")


@dataclass(frozen=True)
class HashTree:
    """A file system's hash tree."""

    root: bytes
    """The root hash: with it alone every block can be checked."""
    data: bytes
    """What follows the file system on disk: a block with the superblock, then the levels, the topmost first."""


def hash_block(data: bytes | bytearray | memoryview) -> bytes:
    """Hash of one block of BLOCK_BYTES: its leaf in the tree."""
    if len(data) != BLOCK_BYTES:
        raise VerityError(f"a block has {len(data)} bytes; allowed: {BLOCK_BYTES}")
    return hashlib.sha256(data).digest()


def count_tree_bytes(data_blocks: int) -> int:
    """Size in bytes of HashTree.data over so many blocks: the tree's place in the image follows from this alone."""
    blocks, level = 1, data_blocks
    while level > 1:
        level = -(-level // _HASHES)
        blocks += level
    return blocks * BLOCK_BYTES


def build_tree(leaves: bytes) -> HashTree:
    """The tree over blocks whose hashes are `leaves`, 32 bytes each, in order. The same leaves give the same bytes.

    The superblock's UUID is derived from the root hash. Raises VerityError for no leaves or a broken one.
    """
    if not leaves or len(leaves) % HASH_BYTES:
        raise VerityError(f"the leaves have {len(leaves)} bytes; allowed: a multiple of {HASH_BYTES}, and at least one")
    levels: list[bytes] = []
    hashes = leaves
    # A single block has no level of its own: its hash is the root.
    while len(hashes) > HASH_BYTES:
        padded = hashes + bytes(-len(hashes) % BLOCK_BYTES)
        levels.append(padded)
        blocks = (padded[place : place + BLOCK_BYTES] for place in range(0, len(padded), BLOCK_BYTES))
        hashes = b"".join(hashlib.sha256(block).digest() for block in blocks)
    superblock = _make_superblock(hashes, len(leaves) // HASH_BYTES)
    return HashTree(hashes, b"".join((superblock, *reversed(levels))))


def check_tree(data: bytes, data_blocks: int, root: bytes) -> bytes:
    """The leaves, 32 bytes for each block, of the tree in `data`, once all of it is proved by the root hash.

    data: superblock and levels as on disk. Raises VerityError when the size is wrong or any byte is not what the root
    hash says.
    """
    if data_blocks < 1:
        raise VerityError(f"the tree covers {data_blocks} blocks; allowed: 1 and more")
    if len(data) != (expected := count_tree_bytes(data_blocks)):
        raise VerityError(f"the hash tree has {len(data)} bytes; {data_blocks} blocks need {expected}")
    end = data_blocks * HASH_BYTES
    first_level = len(data) - (end + -end % BLOCK_BYTES)
    leaves = root if data_blocks == 1 else data[first_level : first_level + end]
    rebuilt = build_tree(leaves)
    if rebuilt.root != root:
        raise VerityError(f"the hash tree has the root hash {rebuilt.root.hex()}; expected: {root.hex()}")
    if rebuilt.data != data:
        place = next(place for place, pair in enumerate(zip(data, rebuilt.data, strict=True)) if pair[0] != pair[1])
        raise VerityError(f"the hash tree is not what its root hash says at byte {place}")
    return leaves


def _make_superblock(root: bytes, data_blocks: int) -> bytes:
    # Derived, not random, so that the same file system gives the same image.
    name = uuid.uuid5(_NAMESPACE, f"{root.hex()}/{data_blocks}")
    packed = _SUPERBLOCK.pack(b"verity\0\0", 1, 1, name.bytes, b"sha256", BLOCK_BYTES, BLOCK_BYTES, data_blocks, 0, b"")
    return packed + bytes(BLOCK_BYTES - len(packed))
