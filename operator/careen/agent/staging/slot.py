"""What a slot holds as a whole: its boot block, its hash tree, and whether it reads back as signed."""

from __future__ import annotations

import hashlib

from careen.disk.types import DiskError, DiskIoError
from careen.release.bootblock import BOOT_BLOCK_BYTES, BootBlock, decode_boot_block
from careen.release.errors import ReleaseInvalidError, VerityError
from careen.release.manifest import MAX_IMAGE_BYTES, Image
from careen.release.verity import check_tree, count_tree_bytes

from .fault import StageError
from .leaves import BLOCK_BYTES, LEAF_BYTES, hash_blocks, hash_part, parts_of
from .media import Source, Target
from .survey import read_ahead


def read_boot_block(slot: Source) -> BootBlock | None:
    """The slot's boot block; None if there is none that can be used. Raises DiskError."""
    try:
        return decode_boot_block(slot.read_back(slot.size - BOOT_BLOCK_BYTES, BOOT_BLOCK_BYTES))
    except ReleaseInvalidError:
        return None


def write_boot_block(slot: Target, block: BootBlock | None) -> None:
    """Say durably what the slot holds, or nothing; not written if it says so already. Raises DiskError."""
    data = block.encode() if block else bytes(BOOT_BLOCK_BYTES)
    place = slot.size - BOOT_BLOCK_BYTES
    if slot.read_back(place, BOOT_BLOCK_BYTES) == data:
        return
    slot.write(place, data)
    slot.sync()
    if slot.read_back(place, BOOT_BLOCK_BYTES) != data:
        raise DiskError(f"the boot block at byte {place} of the slot read back other than written")


def hash_slot(slot: Source, size: int) -> str:
    """sha256 of the first `size` bytes as they are on the medium, hex. Raises DiskError."""
    hasher = hashlib.sha256()
    for _, data in read_ahead(slot, 0, size):
        if isinstance(data, DiskIoError):
            raise data
        hasher.update(data)
    return hasher.hexdigest()


def check_slot(slot: Source, image: Image, known: str | None = None) -> str | None:
    """Why the slot does not hold the image, or None if it does: read from the medium. Raises DiskError.

    known: sha256 of the image, for a caller who has read all of it from the medium and written nothing since.
    """
    if image.size + BOOT_BLOCK_BYTES > slot.size:
        return f"the slot has {slot.size} bytes; the image needs {image.size + BOOT_BLOCK_BYTES}"
    if (found := known or hash_slot(slot, image.size)) != image.sha256:
        return f"the slot reads back with the sha256 {found}; signed: {image.sha256}"
    tree = slot.read_back(image.data_blocks * BLOCK_BYTES, image.tree_bytes)
    try:
        check_tree(tree, image.data_blocks, bytes.fromhex(image.verity_root))
    except VerityError as error:
        return f"the hash tree in the slot does not fit: {error}"
    return None


def read_leaves(slot: Source) -> bytes:
    """Leaves of what the slot holds: from its own hash tree if its boot block fits, else by hashing all of it.

    They only say where a block may be found; whoever copies one hashes it again. Raises DiskError if the boot block
    can't be read at all.
    """
    block = read_boot_block(slot)
    if block is not None and (leaves := _read_tree(slot, block)) is not None:
        return leaves
    parts, bad = [], 0
    # What lies behind is left alone: no image reaches that far.
    for first, count in parts_of(min(slot.size, MAX_IMAGE_BYTES) // BLOCK_BYTES):
        leaves, bad = hash_part(slot, first, count, bad=bad)
        parts.append(leaves)
    return b"".join(parts)


def _read_tree(slot: Source, block: BootBlock) -> bytes | None:
    """The leaves in the slot's hash tree, if they belong to its root hash."""
    length = block.data_blocks * LEAF_BYTES
    end = block.data_blocks * BLOCK_BYTES + count_tree_bytes(block.data_blocks)
    padded = length + -length % BLOCK_BYTES
    if block.data_blocks == 1 or end > min(slot.size, MAX_IMAGE_BYTES):
        return None
    try:
        # The leaves are the last level, and all that is read of the tree: memory is dear while all indexes are held.
        level = slot.read(end - padded, padded)
    except DiskError:
        return None
    leaves, root = level[:length], bytes.fromhex(block.verity_root)
    while len(level) > LEAF_BYTES:
        level = hash_blocks(level)
        level += bytes(-len(level) % BLOCK_BYTES) if len(level) > LEAF_BYTES else b""
    return leaves if level == root else None


def require_room(slot: Source, image: Image) -> None:
    """Raises StageError Size if the image and the boot block do not fit the slot."""
    needed = image.size + BOOT_BLOCK_BYTES
    if needed > slot.size:
        raise StageError(
            "Size", f"the image has {image.size} bytes, and the boot block 4096; the slot has room for {slot.size}"
        )
