"""`careen disk`: look at a machine's slots, and set, repair or verify its partition table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from careen.disk.boot import choose_entry
from careen.disk.gpt import Table, check_mbr
from careen.disk.slots import find_slots, require_bootable
from careen.disk.table import OpenTable, open_table
from careen.disk.types import USR_TYPE, Attributes, DiskError, Entry, UnsafeChangeError

app = typer.Typer(
    no_args_is_help=True,
    help="Look at a machine's slots, and set, repair or verify its partition table (a device or an image file).",
)

Disk = Annotated[
    Path, typer.Argument(metavar="DEVICE_OR_FILE", help="The whole disk: a block device or an image file.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
WaitSeconds = Annotated[
    float, typer.Option("--wait-seconds", min=0, help="How long to wait for the disk's lock, in seconds.")
]


@app.command()
def show(disk: Disk, as_json: AsJson = False, wait_seconds: WaitSeconds = 5.0) -> None:
    """Show the partitions, the slots' attributes, and what would boot next. Exit code 1 if there is no valid table."""
    with _errors(), open_table(disk, wait_seconds=wait_seconds) as opened:
        table = opened.table
        if as_json:
            typer.echo(json.dumps(_document(disk, table), indent=2))
        else:
            _print_table(disk, table)


@app.command("set")
def set_attributes(
    *,
    disk: Disk,
    partition: Annotated[int, typer.Option("--partition", "-i", min=1, help="Number of a slot's partition.")],
    priority: Annotated[
        int | None, typer.Option("--priority", "-P", min=0, max=15, help="0 to 15; the highest boots, 0 never boots.")
    ] = None,
    tries: Annotated[int | None, typer.Option("--tries", "-T", min=0, max=15, help="0 to 15 boots left.")] = None,
    successful: Annotated[
        int | None, typer.Option("--successful", "-S", min=0, max=1, help="1: marked good; 0: not.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Allow a change after which no slot can boot.")] = False,
    wait_seconds: WaitSeconds = 5.0,
) -> None:
    """Set attributes of one slot in one crash-safe table write. What is not given stays.

    Exit code 1 if refused: not a slot, or no slot could boot afterwards (--force allows that).
    """
    if priority is None and tries is None and successful is None:
        raise typer.BadParameter("give at least one of --priority, --tries and --successful")
    with _errors(), open_table(disk, writable=True, wait_seconds=wait_seconds) as opened:
        old = _slot_entry(opened.table, partition)
        attributes = Attributes(
            priority=old.attributes.priority if priority is None else priority,
            tries=old.attributes.tries if tries is None else tries,
            successful=old.attributes.successful if successful is None else bool(successful),
        )
        new = old.with_attributes(attributes)
        if not force:
            after = [new if entry.partition == partition else entry for entry in opened.table.entries]
            _require_bootable(after)
        _print_repairs(opened.set_words({partition: new.word}))
        typer.echo(f"partition {partition} ({old.label}): {old.attributes} -> {attributes}")


@app.command()
def repair(disk: Disk, wait_seconds: WaitSeconds = 5.0) -> None:
    """Bring both copies of the table in step (the valid primary counts), and move the backup to a grown disk's end."""
    with _errors(), open_table(disk, writable=True, wait_seconds=wait_seconds) as opened:
        repaired = opened.repair()
        _print_repairs(repaired)
        if not repaired:
            typer.echo("nothing to repair")


@app.command()
def verify(disk: Disk, wait_seconds: WaitSeconds = 5.0) -> None:
    """Check both copies, the MBR and the slots. Exit code 0 if all is sane, else 1 with a sentence for each fault."""
    with _errors(), open_table(disk, wait_seconds=wait_seconds) as opened:
        faults = list(_verify(opened))
    for fault in faults:
        typer.echo(fault, err=True)
    if faults:
        raise typer.Exit(1)
    typer.echo("no problems found")


@contextmanager
def _errors() -> Iterator[None]:
    """Turn refusals and I/O errors into one sentence and exit code 1."""
    try:
        yield
    except DiskError as error:
        typer.echo(f"careen disk: {error}", err=True)
        raise typer.Exit(1) from error
    except OSError as error:
        typer.echo(f"careen disk: {error.filename}: {error.strerror}", err=True)
        raise typer.Exit(1) from error


def _slot_entry(table: Table, partition: int) -> Entry:
    slots = [entry for entry in table.entries if entry.type_guid == USR_TYPE]
    for entry in slots:
        if entry.partition == partition:
            return entry
    allowed = ", ".join(f"{entry.partition} ({entry.label})" for entry in slots) or "none on this disk"
    raise UnsafeChangeError(f"partition {partition} is not an OS slot; allowed: {allowed}")


def _require_bootable(after: list[Entry]) -> None:
    try:
        require_bootable(after)
    except UnsafeChangeError as error:
        raise UnsafeChangeError(f"{error}. --force does it all the same") from error


def _verify(opened: OpenTable) -> Iterator[str]:
    yield from opened.table.faults
    wrong = check_mbr(opened.block.read(0, 512))
    if wrong:
        yield wrong
    try:
        find_slots(opened.table)
    except DiskError as error:
        yield str(error)
    if choose_entry(opened.table) is None:
        yield "no slot can boot: none has priority 1 or more and tries left or the mark of success"


def _print_repairs(repaired: tuple[str, ...]) -> None:
    for fault in repaired:
        typer.echo(f"repaired: {fault}")


def _document(disk: Path, table: Table) -> dict[str, Any]:
    chosen = choose_entry(table)
    return {
        "disk": str(disk),
        "diskGUID": str(table.disk_guid),
        "sectorSize": table.geometry.sector_size,
        "source": table.source,
        "faults": list(table.faults),
        "nextBoot": chosen.partition if chosen else None,
        "partitions": [_describe(entry) for entry in table.entries],
    }


def _describe(entry: Entry) -> dict[str, Any]:
    described: dict[str, Any] = {
        "partition": entry.partition,
        "label": entry.label,
        "type": str(entry.type_guid),
        "guid": str(entry.guid),
        "firstLBA": entry.first_lba,
        "lastLBA": entry.last_lba,
        "sizeBytes": entry.size,
    }
    if entry.type_guid == USR_TYPE:
        attributes = entry.attributes
        described |= {
            "priority": attributes.priority,
            "tries": attributes.tries,
            "successful": attributes.successful,
        }
    return described


def _print_table(disk: Path, table: Table) -> None:
    console = Console()
    grid = Grid("#", "label", "size", "priority", "tries", "successful", "next boot", title=escape(str(disk)))
    chosen = choose_entry(table)
    for entry in table.entries:
        size = f"{entry.size / (1 << 20):.1f} MiB"
        cells = ["", "", "", ""]
        if entry.type_guid == USR_TYPE:
            attributes = entry.attributes
            marks = "yes" if attributes.successful else "no", "<-" if entry == chosen else ""
            cells = [str(attributes.priority), str(attributes.tries), *marks]
        grid.add_row(str(entry.partition), escape(entry.label), size, *cells)
    console.print(grid)
    if chosen is None:
        console.print("no slot can boot")
    for fault in table.faults:
        console.print(f"fault: {fault}", markup=False, highlight=False)
