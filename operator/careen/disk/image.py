"""Making a machine's disk image from nothing, and reading and writing inside one partition."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID, uuid4

from careen.disk.block import LOCK_WAIT_SECONDS, BlockFile
from careen.disk.gpt import ENTRY, HEADER, PRIMARY_LBA, REVISION, SIGNATURE, Geometry, Header
from careen.disk.slots import find_slots
from careen.disk.table import open_table
from careen.disk.types import (
    GIVEN_UP,
    ROOT_TYPE,
    USR_TYPE,
    Attributes,
    DiskError,
    Entry,
    OutOfRangeError,
    Slot,
    SlotName,
    UnsafeChangeError,
)
from careen.disk.writes import build_header

MIB = 1 << 20
FIRST_SLOT_ATTRIBUTES = Attributes(priority=1, tries=0, successful=True)
"""Slot A of a fresh machine: good, and the only one that boots."""

USR_A_PARTITION = 3
USR_B_PARTITION = 4
ROOT_PARTITION = 9

_NUMBER = 128
_ENTRY_SIZE = 128


@dataclass(frozen=True)
class NewPartition:
    """A partition to make. size: bytes, a multiple of 1 MiB; label: up to 36 characters."""

    partition: int
    type_guid: UUID
    guid: UUID
    label: str
    size: int
    attributes: Attributes = GIVEN_UP


def create_image(
    path: Path,
    *,
    usr_bytes: int,
    root_bytes: int,
    sector_size: int = 512,
    attributes_a: Attributes = FIRST_SLOT_ATTRIBUTES,
    attributes_b: Attributes = GIVEN_UP,
    disk_guid: UUID | None = None,
    root_guid: UUID | None = None,
) -> None:
    """Make a sparse disk image with USR-A (partition 3), USR-B (4) and ROOT (9), complete or not at all.

    usr_bytes, root_bytes: size of each slot and of ROOT, multiples of 1 MiB. sector_size: 512 or 4096 bytes.
    disk_guid, root_guid: random by default. Raises FileExistsError if `path` exists, DiskError for wrong sizes.
    """
    partitions = (
        NewPartition(USR_A_PARTITION, USR_TYPE, SlotName.A.guid, "USR-A", usr_bytes, attributes_a),
        NewPartition(USR_B_PARTITION, USR_TYPE, SlotName.B.guid, "USR-B", usr_bytes, attributes_b),
        NewPartition(ROOT_PARTITION, ROOT_TYPE, root_guid or uuid4(), "ROOT", root_bytes),
    )
    create_disk(path, partitions, sector_size=sector_size, disk_guid=disk_guid or uuid4())


def create_disk(path: Path, partitions: tuple[NewPartition, ...], *, sector_size: int, disk_guid: UUID) -> None:
    """Make a sparse disk image with these partitions, one behind the other from 1 MiB on.

    Raises FileExistsError if `path` exists, DiskError for sizes that do not fit.
    """
    for partition in partitions:
        if partition.size < MIB or partition.size % MIB:
            raise DiskError(f"{partition.label} is to have {partition.size} bytes; allowed: multiples of {MIB}")
    size = 2 * MIB + sum(partition.size for partition in partitions)
    geometry = Geometry(sector_size, size // sector_size)
    table = _build_entries(partitions, geometry)
    headers = _build_headers(table, geometry, disk_guid)
    fresh = path.with_name(f".{path.name}.new")
    try:
        with fresh.open("wb") as file:
            file.truncate(size)
            file.write(_protective_mbr(geometry))
            for header in headers:
                file.seek(header.entries_lba * sector_size)
                file.write(table)
                file.seek(header.my_lba * sector_size)
                file.write(build_header(header, geometry))
            file.flush()
            os.fsync(file.fileno())
        # A link, unlike a rename, fails if somebody else's disk is there by now.
        os.link(fresh, path)
    finally:
        with suppress(FileNotFoundError):
            fresh.unlink()
    _sync_directory(path.parent)


class PartitionFile:
    """The bytes of one partition. Offsets are in bytes from the partition's start; nothing outside is reachable.

    name: for messages. start and size: where it lies in `block`, in bytes.
    """

    def __init__(self, block: BlockFile, name: str, start: int, size: int) -> None:
        self.size = size
        self._block = block
        self._name = name
        self._start = start

    def read(self, offset: int, length: int) -> bytes:
        """Read through the page cache. Raises OutOfRangeError, DiskIoError."""
        return self._block.read(self._place(offset, length), length)

    def read_back(self, offset: int, length: int) -> bytes:
        """Read from the medium, past the page cache where possible. Raises OutOfRangeError, DiskIoError."""
        return self._block.read_back(self._place(offset, length), length)

    def write(self, offset: int, data: bytes) -> None:
        """Write all of `data`; not durable before `sync`. Raises OutOfRangeError, DiskIoError."""
        self._block.write(self._place(offset, len(data)), data)

    def sync(self) -> None:
        """Flush all writes to the medium. Raises DiskIoError."""
        self._block.sync()

    def drop_cached(self) -> None:
        """Let go of the page cache of this partition; what is not flushed yet stays in it."""
        self._block.drop_cached(self._start, self.size)

    def _place(self, offset: int, length: int) -> int:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise OutOfRangeError(
                f"bytes {offset} to {offset + length} of partition {self._name}; allowed: 0 to {self.size}"
            )
        return self._start + offset


def _partition_file(block: BlockFile, entry: Entry) -> PartitionFile:
    return PartitionFile(block, entry.label, entry.start, entry.size)


def partition_range(slot: Slot) -> tuple[int, int]:
    """First byte and length in bytes of the slot's partition on the disk."""
    return slot.start, slot.size


@contextmanager
def open_slot(path: Path, name: SlotName, *, wait_seconds: float = LOCK_WAIT_SECONDS) -> Iterator[PartitionFile]:
    """A slot's bytes, for reading. The table's lock is held only while the slot is looked up.

    Raises what table.read_slots raises.
    """
    with open_table(path, wait_seconds=wait_seconds) as opened:
        entry = find_slots(opened.table)[name].entry
        block = BlockFile.open_unlocked(path, writable=False, sector_size=opened.block.sector_size)
    with block:
        yield _partition_file(block, entry)


@contextmanager
def open_passive(
    path: Path, name: SlotName, *, booted: SlotName, wait_seconds: float = LOCK_WAIT_SECONDS
) -> Iterator[PartitionFile]:
    """The passive slot's bytes, for writing. The table's lock is held only while the slot is looked up.

    Raises UnsafeChangeError for the booted slot, and unless the slot was given up (P0 T0 S0) first: a slot that could
    boot must never be half written. Raises what table.read_slots raises.
    """
    if name is booted:
        raise UnsafeChangeError(f"slot {name} is the booted one and is never written; allowed: slot {name.other}")
    with open_table(path, wait_seconds=wait_seconds) as opened:
        slot = find_slots(opened.table)[name]
        if slot.attributes != GIVEN_UP:
            raise UnsafeChangeError(
                f"slot {name} has {slot.attributes}; allowed: writing to a slot that has {GIVEN_UP}"
            )
        block = BlockFile.open_unlocked(path, writable=True, sector_size=opened.block.sector_size)
    with block:
        yield _partition_file(block, slot.entry)


def fill_slot(path: Path, name: SlotName, image: Path, tail: bytes = b"") -> int:
    """Copy an image file into a slot of a machine that does not run yet; returns the bytes copied.

    tail: what the slot is to end with, behind the image.

    For making new machines: it asks nothing about what is booted. Raises OutOfRangeError if the image is larger
    than the slot, and what table.read_slots raises.
    """
    with open_table(path) as opened:
        entry = find_slots(opened.table)[name].entry
        block = BlockFile.open_unlocked(path, writable=True, sector_size=opened.block.sector_size)
    done = 0
    with block, image.open("rb") as source:
        target = _partition_file(block, entry)
        length = image.stat().st_size
        if length + len(tail) > target.size:
            room = target.size - len(tail)
            raise OutOfRangeError(f"{image} has {length} bytes; allowed: {room}, what {entry.label} has room for")
        while part := source.read(MIB):
            # Equal bytes, holes above all, are left alone, so that the image stays sparse.
            if target.read(done, len(part)) != part:
                target.write(done, part)
            done += len(part)
        if tail:
            target.write(target.size - len(tail), tail)
        target.sync()
    return done


def _build_entries(partitions: tuple[NewPartition, ...], geometry: Geometry) -> bytes:
    table = bytearray(geometry.sectors_for(_NUMBER * _ENTRY_SIZE) * geometry.sector_size)
    start = MIB
    for partition in partitions:
        ENTRY.pack_into(
            table,
            (partition.partition - 1) * _ENTRY_SIZE,
            partition.type_guid.bytes_le,
            partition.guid.bytes_le,
            start // geometry.sector_size,
            (start + partition.size) // geometry.sector_size - 1,
            partition.attributes.encode(0),
            partition.label.encode("utf-16-le"),
        )
        start += partition.size
    return bytes(table)


def _build_headers(table: bytes, geometry: Geometry, disk_guid: UUID) -> tuple[Header, Header]:
    sectors = len(table) // geometry.sector_size
    raw = bytearray(geometry.sector_size)
    struct.pack_into("<8sII", raw, 0, SIGNATURE, REVISION, HEADER.size)
    backup_entries = geometry.last_lba - sectors
    primary = Header(
        my_lba=PRIMARY_LBA,
        alternate_lba=geometry.last_lba,
        first_usable=2 + sectors,
        last_usable=backup_entries - 1,
        disk_guid=disk_guid,
        entries_lba=2,
        number=_NUMBER,
        entry_size=_ENTRY_SIZE,
        entries_crc=zlib.crc32(table[: _NUMBER * _ENTRY_SIZE]),
        raw=bytes(raw),
    )
    backup = replace(primary, my_lba=geometry.last_lba, alternate_lba=PRIMARY_LBA, entries_lba=backup_entries)
    return primary, backup


def _protective_mbr(geometry: Geometry) -> bytes:
    """Sector 0: one partition of type 0xee over the whole disk, so that old tools leave it alone."""
    mbr = bytearray(512)
    covered = min(geometry.sectors - 1, 0xFFFFFFFF)
    struct.pack_into("<B3sB3sII", mbr, 446, 0, b"\x00\x02\x00", 0xEE, b"\xff\xff\xff", 1, covered)
    mbr[510:512] = b"\x55\xaa"
    return bytes(mbr)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
