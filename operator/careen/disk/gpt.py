"""Reading a GUID partition table: both copies, every check, and which copy wins. Pure: bytes in, values out."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from uuid import UUID

from careen.disk.types import DiskIoError, Entry, GptInvalidError

SIGNATURE = b"EFI PART"
REVISION = 0x00010000
HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
ENTRY = struct.Struct("<16s16sQQQ72s")
PRIMARY_LBA = 1
WORD_OFFSET = 48
SECTOR_SIZES = (512, 4096)
ENTRY_SIZES = (128, 256, 512, 1024, 2048, 4096)
MAX_TABLE_BYTES = 1 << 20

Read = Callable[[int, int], bytes]
"""Read(offset, length) gives the disk's bytes; fewer than asked only at the end of the disk."""


class _Unreadable(str):
    """Why a copy is not valid, when the reason is that the disk gave an I/O error."""

    __slots__ = ()


@dataclass(frozen=True)
class Geometry:
    """How a disk is divided: bytes in a logical sector, and how many sectors there are."""

    sector_size: int
    sectors: int

    @property
    def last_lba(self) -> int:
        """Where the backup header belongs."""
        return self.sectors - 1

    def sectors_for(self, length: int) -> int:
        """Sectors needed to hold `length` bytes."""
        return -(-length // self.sector_size)


@dataclass(frozen=True)
class Header:
    """A decoded GPT header. `raw` is its whole sector, kept so that bytes we do not know survive a rewrite."""

    my_lba: int
    alternate_lba: int
    first_usable: int
    last_usable: int
    disk_guid: UUID
    entries_lba: int
    number: int
    entry_size: int
    entries_crc: int
    raw: bytes

    @property
    def table_bytes(self) -> int:
        """Length of the entry table without padding; what its checksum covers."""
        return self.number * self.entry_size

    def same_disk(self, other: Header) -> bool:
        """True if both headers describe the same table, though they lie in different places."""
        mine = (self.first_usable, self.last_usable, self.disk_guid, self.number, self.entry_size)
        theirs = (other.first_usable, other.last_usable, other.disk_guid, other.number, other.entry_size)
        return mine == theirs and self.entries_crc == other.entries_crc


@dataclass(frozen=True)
class Copy:
    """One valid copy of the table: its header, and its entries padded to whole sectors."""

    header: Header
    entries: bytes


@dataclass(frozen=True)
class Table:
    """What a disk says about its partitions.

    primary, backup: the copies that are valid (at least one). faults: a sentence for each thing that a repair
    would put right; empty for a sound table. hint: where the primary entries belong if the primary is lost.
    """

    geometry: Geometry
    primary: Copy | None
    backup: Copy | None
    faults: tuple[str, ...]
    primary_entries_hint: int = 2

    @property
    def winner(self) -> Copy:
        """The copy that counts: the primary if it is valid, else the backup. Boot loaders pick the same way."""
        copy = self.primary or self.backup
        if copy is None:
            raise GptInvalidError("no valid copy of the partition table")
        return copy

    @property
    def source(self) -> str:
        """Name of the copy that counts: primary or backup."""
        return "primary" if self.primary else "backup"

    @property
    def disk_guid(self) -> UUID:
        """Unique GUID of the whole disk."""
        return self.winner.header.disk_guid

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Used entries, in the order of the table."""
        return tuple(decode_entries(self.winner, self.geometry.sector_size))


def parse(read: Read, size: int, sector_size: int) -> Table:
    """Read and check both copies on a disk of `size` bytes.

    A copy that gives an I/O error is as good as an invalid one: the other counts. Raises GptInvalidError, with the
    reason for each copy, when neither can be trusted, and DiskIoError in its place if one could not even be read.
    """
    if sector_size not in SECTOR_SIZES:
        raise GptInvalidError(f"logical sectors of {sector_size} bytes; allowed: 512 and 4096")
    geometry = Geometry(sector_size, size // sector_size)
    primary = _read_copy(read, geometry, PRIMARY_LBA)
    located = _locate_backup(read, geometry)
    backup: Copy | str = f"there is no room for it on {geometry.sectors} sectors"
    for lba in located:
        backup = _read_copy(read, geometry, lba)
        if isinstance(backup, Copy):
            break
    if isinstance(primary, str) and isinstance(backup, str):
        unreadable = isinstance(primary, _Unreadable) or isinstance(backup, _Unreadable)
        raise (DiskIoError if unreadable else GptInvalidError)(
            f"neither copy of the partition table is valid: primary: {primary}; backup: {backup}. "
            "Allowed: a disk with at least one valid copy; restore the table from a saved one"
        )
    hint = _read_header(read, geometry, PRIMARY_LBA)
    return Table(
        geometry=geometry,
        primary=primary if isinstance(primary, Copy) else None,
        backup=backup if isinstance(backup, Copy) else None,
        faults=tuple(_faults(primary, backup, geometry)),
        primary_entries_hint=hint.entries_lba if isinstance(hint, Header) else 2,
    )


def check_mbr(sector: bytes) -> str | None:
    """Say what is wrong with sector 0, or None. Kernels ignore a GPT that has no protective MBR before it."""
    if sector[510:512] != b"\x55\xaa":
        return "sector 0 has no MBR signature; allowed: a protective MBR"
    kinds = [sector[446 + 16 * i + 4] for i in range(4)]
    if 0xEE not in kinds:
        return f"the MBR has partitions of types {[hex(kind) for kind in kinds]}; allowed: one of type 0xee"
    return None


def decode_entries(copy: Copy, sector_size: int) -> Iterator[Entry]:
    """Used entries of one copy, in the order of the table."""
    header = copy.header
    for index in range(header.number):
        at = index * header.entry_size
        type_guid, guid, first, last, word, label = ENTRY.unpack_from(copy.entries, at)
        if type_guid == bytes(16):
            continue
        yield Entry(
            partition=index + 1,
            type_guid=UUID(bytes_le=type_guid),
            guid=UUID(bytes_le=guid),
            label=label.decode("utf-16-le", "replace").split("\0", 1)[0],
            first_lba=first,
            last_lba=last,
            word=word,
            sector_size=sector_size,
        )


def header_crc(raw: bytes, length: int) -> int:
    """Checksum of a header of `length` bytes, its own checksum field taken as zero."""
    return zlib.crc32(raw[:16] + bytes(4) + raw[20:length])


def _locate_backup(read: Read, geometry: Geometry) -> list[int]:
    """Where the backup may be: where a sound primary header points, then the end of the disk."""
    header = _read_header(read, geometry, PRIMARY_LBA)
    places = [geometry.last_lba] if geometry.last_lba > PRIMARY_LBA else []
    if isinstance(header, Header) and PRIMARY_LBA < header.alternate_lba < geometry.last_lba:
        places.insert(0, header.alternate_lba)
    return places


def _read_copy(read: Read, geometry: Geometry, lba: int) -> Copy | str:
    """A copy that passed every check, or the reason why it did not."""
    header = _read_header(read, geometry, lba)
    if isinstance(header, str):
        return header
    wrong = _check_places(header, geometry)
    if wrong:
        return wrong
    length = geometry.sectors_for(header.table_bytes) * geometry.sector_size
    try:
        entries = read(header.entries_lba * geometry.sector_size, length)
    except DiskIoError as error:
        return _Unreadable(error)
    if len(entries) != length:
        return f"its entries at LBA {header.entries_lba} reach past the end of the disk"
    if zlib.crc32(entries[: header.table_bytes]) != header.entries_crc:
        return "the checksum of its entries is wrong"
    copy = Copy(header, entries)
    return _check_entries(copy, geometry) or copy


def _read_header(read: Read, geometry: Geometry, lba: int) -> Header | str:
    """A header whose own bytes are sound; whether its places make sense is checked later."""
    try:
        raw = read(lba * geometry.sector_size, geometry.sector_size)
    except DiskIoError as error:
        return _Unreadable(error)
    if len(raw) < geometry.sector_size:
        return f"LBA {lba} lies past the end of the disk"
    signature, revision, length, crc, _, my, alternate, first, last, guid, at, number, size, entries_crc = (
        HEADER.unpack_from(raw)
    )
    if signature != SIGNATURE:
        return f"no GPT signature at LBA {lba}"
    if revision != REVISION:
        return f"revision is {revision:#010x}; allowed: {REVISION:#010x}"
    if not HEADER.size <= length <= geometry.sector_size:
        return f"header size is {length}; allowed: {HEADER.size} to {geometry.sector_size}"
    if header_crc(raw, length) != crc:
        return "the checksum of its header is wrong"
    if my != lba:
        return f"the header at LBA {lba} says that it is at LBA {my}"
    if size not in ENTRY_SIZES or not 1 <= number * size <= MAX_TABLE_BYTES:
        return f"{number} entries of {size} bytes; allowed: at least 1, of {ENTRY_SIZES}, {MAX_TABLE_BYTES} in all"
    return Header(my, alternate, first, last, UUID(bytes_le=guid), at, number, size, entries_crc, raw)


def _check_places(header: Header, geometry: Geometry) -> str | None:
    """Say which of the header's LBAs cannot be, or None."""
    primary = header.my_lba == PRIMARY_LBA
    end = header.entries_lba + geometry.sectors_for(header.table_bytes) - 1
    if not header.first_usable <= header.last_usable < geometry.sectors:
        return (
            f"usable LBAs are {header.first_usable} to {header.last_usable}; "
            f"allowed: a range inside the disk's {geometry.sectors} sectors"
        )
    low, high = (2, header.first_usable - 1) if primary else (header.last_usable + 1, header.my_lba - 1)
    if not low <= header.entries_lba <= end <= high:
        return f"its entries are at LBA {header.entries_lba} to {end}; allowed: {low} to {high}"
    if primary and not header.last_usable < header.alternate_lba < geometry.sectors:
        return (
            f"the backup is said to be at LBA {header.alternate_lba}; "
            f"allowed: {header.last_usable + 1} to {geometry.last_lba}"
        )
    return None


def _check_entries(copy: Copy, geometry: Geometry) -> str | None:
    """Say which partition lies outside the usable space or over another one, or None."""
    header = copy.header
    used = sorted(decode_entries(copy, geometry.sector_size), key=lambda entry: entry.first_lba)
    for entry in used:
        if not header.first_usable <= entry.first_lba <= entry.last_lba <= header.last_usable:
            return (
                f"partition {entry.partition} covers LBA {entry.first_lba} to {entry.last_lba}; "
                f"allowed: {header.first_usable} to {header.last_usable}"
            )
    for left, right in pairwise(used):
        if right.first_lba <= left.last_lba:
            return f"partitions {left.partition} and {right.partition} overlap at LBA {right.first_lba}"
    return None


def _faults(primary: Copy | str, backup: Copy | str, geometry: Geometry) -> Iterator[str]:
    """A sentence for each thing that a repair would put right."""
    if isinstance(primary, str):
        yield f"the primary copy is not valid: {primary}"
    if isinstance(backup, str):
        yield f"the backup copy is not valid: {backup}"
    elif backup.header.my_lba != geometry.last_lba:
        yield (
            f"the backup copy is at LBA {backup.header.my_lba}, not at the end of the disk "
            f"(LBA {geometry.last_lba}): the disk has grown"
        )
    if isinstance(primary, str) or isinstance(backup, str):
        return
    if not primary.header.same_disk(backup.header):
        yield "the copies differ; the primary counts"
    elif backup.header.my_lba != primary.header.alternate_lba or backup.header.alternate_lba != PRIMARY_LBA:
        yield "the copies do not point at each other"
