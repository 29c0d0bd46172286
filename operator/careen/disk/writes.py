"""Which bytes to write, and in which order, so that a crash at any moment leaves the old table or the new one.

A plan is a sequence of windows; the writes of a window may reach the disk in any order, and a flush ends it.
The backup goes first: while it is being written the primary still holds the old table, and while the primary is
being written the backup already holds the new one. Writing both headers before both tables, as other tools do,
has a moment at which neither copy is valid.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from careen.disk.gpt import HEADER, PRIMARY_LBA, WORD_OFFSET, Copy, Geometry, Header, Table, header_crc
from careen.disk.types import UnsafeChangeError


@dataclass(frozen=True)
class Write:
    """Bytes for one place. `offset` is in bytes from the start of the disk; `what` names it in messages."""

    offset: int
    data: bytes
    what: str


Window = tuple[Write, ...]
"""Writes that are followed by one flush."""

Plan = tuple[Window, ...]
"""Windows in their order."""


def plan_change(table: Table, words: Mapping[int, int]) -> Plan:
    """Set the attribute words of partitions (number → 64-bit word), touching only the sectors that hold them.

    Nothing to change gives an empty plan. Raises UnsafeChangeError if the table needs a repair first (a change on top
    of a broken copy could leave none) or if a partition does not exist.
    """
    if table.primary is None or table.backup is None or table.faults:
        raise UnsafeChangeError(f"the partition table must be repaired before it is changed: {'; '.join(table.faults)}")
    unknown = set(words) - {entry.partition for entry in table.entries}
    if unknown:
        numbers = [entry.partition for entry in table.entries]
        raise UnsafeChangeError(f"there is no partition {sorted(unknown)}; allowed: {numbers}")
    halves = [
        _change_copy(copy, words, table.geometry, name)
        for copy, name in ((table.backup, "backup"), (table.primary, "primary"))
    ]
    return tuple(half for half in halves if half)


def plan_repair(table: Table) -> Plan:
    """One durable step towards a sound table; empty when it is sound. Read again and ask again afterwards.

    A lost primary is restored from the backup first. Else the primary is copied to the backup, at the end of the
    disk if that has grown. Raises UnsafeChangeError if there is no room for the copy.
    """
    if not table.faults:
        return ()
    if table.primary is None:
        return _restore_primary(table)
    return _renew_backup(table, table.primary)


def build_header(header: Header, geometry: Geometry) -> bytes:
    """The sector that holds `header`: its fields over its raw bytes, with a fresh checksum."""
    length = struct.unpack_from("<I", header.raw, 12)[0]
    raw = bytearray(header.raw)
    fixed = HEADER.unpack_from(header.raw)[:5]
    HEADER.pack_into(
        raw,
        0,
        *fixed,
        header.my_lba,
        header.alternate_lba,
        header.first_usable,
        header.last_usable,
        header.disk_guid.bytes_le,
        header.entries_lba,
        header.number,
        header.entry_size,
        header.entries_crc,
    )
    struct.pack_into("<I", raw, 16, header_crc(bytes(raw), length))
    return bytes(raw[: geometry.sector_size])


def _change_copy(copy: Copy, words: Mapping[int, int], geometry: Geometry, name: str) -> Window:
    entries = bytearray(copy.entries)
    for partition, word in words.items():
        struct.pack_into("<Q", entries, (partition - 1) * copy.header.entry_size + WORD_OFFSET, word)
    changed = list(_changed_sectors(copy, bytes(entries), geometry, name))
    if not changed:
        return ()
    crc = zlib.crc32(entries[: copy.header.table_bytes])
    return (*changed, _header_write(replace(copy.header, entries_crc=crc), geometry, name))


def _changed_sectors(copy: Copy, entries: bytes, geometry: Geometry, name: str) -> Iterator[Write]:
    size = geometry.sector_size
    for at in range(0, len(entries), size):
        if entries[at : at + size] != copy.entries[at : at + size]:
            offset = copy.header.entries_lba * size + at
            yield Write(offset, entries[at : at + size], f"{name} entries")


def _header_write(header: Header, geometry: Geometry, name: str) -> Write:
    data = build_header(header, geometry)
    return Write(header.my_lba * geometry.sector_size, data, f"{name} header")


def _restore_primary(table: Table) -> Plan:
    backup = table.winner
    size = table.geometry.sector_size
    length = len(backup.entries) // size
    at = table.primary_entries_hint
    if not 2 <= at <= backup.header.first_usable - length:
        at = 2
    if at + length > backup.header.first_usable:
        raise UnsafeChangeError(
            f"the primary table needs LBA {at} to {at + length - 1}, but partitions may begin at LBA "
            f"{backup.header.first_usable}"
        )
    header = replace(backup.header, my_lba=PRIMARY_LBA, alternate_lba=backup.header.my_lba, entries_lba=at)
    entries = Write(at * size, backup.entries, "primary entries")
    return ((entries, _header_write(header, table.geometry, "primary")),)


def _renew_backup(table: Table, primary: Copy) -> Plan:
    geometry = table.geometry
    old = table.backup
    at = geometry.last_lba - len(primary.entries) // geometry.sector_size
    if old and old.header.my_lba == geometry.last_lba and len(old.entries) == len(primary.entries):
        at = old.header.entries_lba
    if at <= primary.header.last_usable:
        raise UnsafeChangeError(
            f"the backup table needs LBA {at} to {geometry.last_lba}, but partitions may reach LBA "
            f"{primary.header.last_usable}"
        )
    grown = primary.header.alternate_lba != geometry.last_lba
    last_usable = at - 1 if grown else primary.header.last_usable
    new_primary = replace(primary.header, alternate_lba=geometry.last_lba, last_usable=last_usable)
    header = replace(new_primary, my_lba=geometry.last_lba, alternate_lba=PRIMARY_LBA, entries_lba=at)
    entries = Write(at * geometry.sector_size, primary.entries, "backup entries")
    plan: Plan = ((entries, _header_write(header, geometry, "backup")),)
    if grown:
        plan = (*plan, (_header_write(new_primary, geometry, "primary"),))
    return plan
