"""What `careen disk` prints: a table as text and as JSON, single values for scripts, and rehearsed changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from careen.disk.boot import choose_entry
from careen.disk.gpt import Table
from careen.disk.kinds import LEGACY_BOOT_BIT, REQUIRED_BIT, name_bits, name_type
from careen.disk.types import USR_TYPE, Entry
from careen.disk.writes import Plan

FIELDS: dict[str, Callable[[Entry], str]] = {
    "begin": lambda entry: str(entry.first_lba),
    "size": lambda entry: str(entry.last_lba - entry.first_lba + 1),
    "type": lambda entry: str(entry.type_guid).upper(),
    "guid": lambda entry: str(entry.guid).upper(),
    "label": lambda entry: entry.label,
    "successful": lambda entry: str(int(entry.attributes.successful)),
    "tries": lambda entry: str(entry.attributes.tries),
    "priority": lambda entry: str(entry.attributes.priority),
    "required": lambda entry: str(entry.word >> REQUIRED_BIT & 1),
    "legacy_boot": lambda entry: str(entry.word >> LEGACY_BOOT_BIT & 1),
    "attributes": lambda entry: hex(entry.word >> 48),
}
"""Single values as `cgpt show -i N` writes them, so that scripts go on working."""

DRY_RUN = "dry run, nothing is written; without --dry-run:"


def make_document(disk: Path, table: Table) -> dict[str, Any]:
    """Everything about a table, for JSON. Attribute words are strings, since JSON's numbers are too short for them."""
    chosen = choose_entry(table)
    header = table.winner.header
    return {
        "disk": str(disk),
        "diskGUID": str(table.disk_guid),
        "sectorSize": table.geometry.sector_size,
        "sectors": table.geometry.sectors,
        "firstUsableLBA": header.first_usable,
        "lastUsableLBA": header.last_usable,
        "source": table.source,
        "faults": list(table.faults),
        "nextBoot": chosen.partition if chosen else None,
        "partitions": [make_entry_document(entry) for entry in table.entries],
    }


def make_entry_document(entry: Entry) -> dict[str, Any]:
    """One partition, for JSON. Boot attributes are there for slots only: other types use the bits otherwise."""
    document: dict[str, Any] = {
        "partition": entry.partition,
        "label": entry.label,
        "type": str(entry.type_guid),
        "typeName": name_type(entry.type_guid),
        "guid": str(entry.guid),
        "firstLBA": entry.first_lba,
        "lastLBA": entry.last_lba,
        "sizeBytes": entry.size,
        "attributes": f"{entry.word:#018x}",
    }
    if entry.type_guid == USR_TYPE:
        attributes = entry.attributes
        document |= {
            "priority": attributes.priority,
            "tries": attributes.tries,
            "successful": attributes.successful,
        }
    return document


def describe_table(disk: Path, table: Table) -> Iterator[str]:
    """A whole table as lines of text."""
    header = table.winner.header
    chosen = choose_entry(table)
    yield f"disk     {disk}"
    yield f"GUID     {table.disk_guid}"
    yield (
        f"sectors  {table.geometry.sectors} of {table.geometry.sector_size} bytes; "
        f"usable LBA {header.first_usable} to {header.last_usable}"
    )
    yield f"table    {header.number} entries, the {table.source} copy counts"
    for entry in table.entries:
        yield ""
        yield from describe_entry(entry, chosen=entry == chosen)
    yield ""
    for fault in table.faults:
        yield f"fault: {fault}"
    yield f"boots next: partition {chosen.partition} ({chosen.label})" if chosen else "boots next: no slot can boot"


def describe_entry(entry: Entry, *, chosen: bool) -> Iterator[str]:
    """One partition as lines of text. chosen: mark it as the one that boots next."""
    yield _summarize(entry) + ("  <- boots next" if chosen else "")
    yield f"     type  {entry.type_guid}  {name_type(entry.type_guid)}"
    yield f"     GUID  {entry.guid}"
    yield f"     LBA   {entry.first_lba} to {entry.last_lba} ({entry.last_lba - entry.first_lba + 1} sectors)"
    names = ", ".join(name_bits(entry.word))
    yield f"     word  {entry.word:#018x}" + (f"  {names}" if names else "")


def describe_rehearsal(before: Table, after: Table, plan: Plan) -> Iterator[str]:
    """A change that was only rehearsed: the table before, the writes in their order, and the table after."""
    yield "before:"
    yield from _summarize_table(before)
    yield "writes:" if plan else "writes: none"
    for window in plan:
        for write in window:
            yield f"  {write.what}, {len(write.data)} bytes at byte {write.offset}"
        yield "  flush, read back, compare"
    yield "after:"
    yield from _summarize_table(after)


def _summarize_table(table: Table) -> Iterator[str]:
    for entry in table.entries:
        yield f"{_summarize(entry)}  {entry.word:#018x}"
    header = table.winner.header
    alternate = table.geometry.last_lba if table.backup is None else table.backup.header.my_lba
    yield f"     primary at LBA 1, backup at LBA {alternate}, usable LBA {header.first_usable} to {header.last_usable}"
    for fault in table.faults:
        yield f"     fault: {fault}"


def _summarize(entry: Entry) -> str:
    attributes = str(entry.attributes) if entry.type_guid == USR_TYPE else "-"
    return f"{entry.partition:>3}  {entry.label or '-':<12} {entry.size / (1 << 20):>10.1f} MiB  {attributes}"
