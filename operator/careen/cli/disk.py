"""`careen disk`: what administrators used cgpt for, on a disk or an image file, in crash-safe table writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from careen.cli import diskviews
from careen.disk.boot import choose_entry, consume
from careen.disk.edits import Wish, check_edit, describe_edit, describe_repair, edit_attributes, edit_priorities
from careen.disk.finder import find_disk
from careen.disk.gpt import Table, check_mbr
from careen.disk.order import explain_boots, name_entry, order_boots
from careen.disk.slots import find_slots
from careen.disk.table import OpenTable, open_table
from careen.disk.types import DiskError, Entry, UnsafeChangeError

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Look at a machine's slots, and set, renumber, repair or verify its partition table (a device or image file).",
)


class Output(StrEnum):
    """How a table is printed."""

    TEXT = "text"
    JSON = "json"


Disk = Annotated[
    Path | None,
    typer.Argument(
        metavar="DISK",
        help="The whole disk: a block device or an image file. Default: the one disk of this machine with slots.",
    ),
]
OutputFormat = Annotated[Output, typer.Option("--output", "-o", help="text, or one JSON document.")]
AsJson = Annotated[bool, typer.Option("--json", help="The same as --output json.")]
WaitSeconds = Annotated[
    float, typer.Option("--wait-seconds", min=0, help="How long to wait for the disk's lock, in seconds.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the table before and after and each write, and change nothing.")
]
Force = Annotated[bool, typer.Option("--force", help="Allow a change after which no slot can boot.")]


def _field(name: str, letter: str, words: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(f"--{name}", f"-{letter}", help=f"Only {words} (with -i).")
    return option


@app.command()
def show(
    disk: Disk = None,
    *,
    partition: Annotated[int | None, typer.Option("--partition", "-i", min=1, help="Only this partition.")] = None,
    priority: Annotated[bool, _field("priority", "P", "the priority")] = False,
    tries: Annotated[bool, _field("tries", "T", "the tries left")] = False,
    successful: Annotated[bool, _field("successful", "S", "the mark of success, 0 or 1")] = False,
    label: Annotated[bool, _field("label", "l", "the label")] = False,
    guid: Annotated[bool, _field("guid", "u", "the unique GUID")] = False,
    type_guid: Annotated[bool, _field("type", "t", "the type's GUID")] = False,
    begin: Annotated[bool, _field("begin", "b", "the first sector")] = False,
    size: Annotated[bool, _field("size", "s", "the size in sectors")] = False,
    attributes: Annotated[bool, _field("attributes", "A", "the top 16 bits of the attribute word, in hex")] = False,
    required: Annotated[bool, _field("required", "R", "the required bit, 0 or 1")] = False,
    legacy_boot: Annotated[bool, _field("legacy-boot", "B", "the legacy BIOS bootable bit, 0 or 1")] = False,
    output: OutputFormat = Output.TEXT,
    as_json: AsJson = False,
    wait_seconds: WaitSeconds = 5.0,
) -> None:
    """Show the partitions, all their fields, and what would boot next; with -i and a field's flag, that value alone.

    Exit code 1 if there is no valid table or no such partition.
    """
    flags = {"priority": priority, "tries": tries, "successful": successful, "label": label, "guid": guid}
    flags |= {"type": type_guid, "begin": begin, "size": size, "attributes": attributes}
    flags |= {"required": required, "legacy_boot": legacy_boot}
    field = _pick_field(flags, partition)
    with _errors(), _open(disk, wait_seconds) as opened:
        _show(opened, partition, field, as_json or output is Output.JSON)


@app.command("set", help="The same as `add`.")
@app.command()
def add(
    disk: Disk = None,
    *,
    partition: Annotated[int, typer.Option("--partition", "-i", min=1, help="Number of a slot's partition.")],
    priority: Annotated[
        int | None, typer.Option("--priority", "-P", min=0, max=15, help="0 to 15; the highest boots, 0 never boots.")
    ] = None,
    tries: Annotated[int | None, typer.Option("--tries", "-T", min=0, max=15, help="0 to 15 boots left.")] = None,
    successful: Annotated[
        int | None, typer.Option("--successful", "-S", min=0, max=1, help="1: marked good; 0: not.")
    ] = None,
    attributes: Annotated[
        str | None,
        typer.Option("--attributes", "-A", help="All top 16 bits of the attribute word at once, as 258 or 0x102."),
    ] = None,
    dry_run: DryRun = False,
    force: Force = False,
    wait_seconds: WaitSeconds = 5.0,
) -> None:
    """Set attributes of one slot in one crash-safe table write. What is not given stays.

    Exit code 1 if refused: not a slot, or no slot could boot afterwards (--force allows that).
    """
    wish = Wish(priority, tries, None if successful is None else bool(successful), _parse_raw(attributes))
    if wish.empty:
        raise typer.BadParameter("give at least one of --priority, --tries, --successful and --attributes")
    if wish.mixed:
        raise typer.BadParameter("--attributes holds priority, tries and successful; give either it or those")
    with _errors():
        _change(disk, lambda table: edit_attributes(table, partition, wish), dry_run, force, wait_seconds)


@app.command()
def prioritize(
    disk: Disk = None,
    *,
    partition: Annotated[
        int | None, typer.Option("--partition", "-i", min=1, help="The slot to put first. Default: only close gaps.")
    ] = None,
    top: Annotated[
        int | None, typer.Option("--priority", "-P", min=1, max=15, help="The highest priority to give, 1 to 15.")
    ] = None,
    friends: Annotated[
        bool, typer.Option("--friends", "-f", help="Slots with the same priority as -i's come along.")
    ] = False,
    dry_run: DryRun = False,
    force: Force = False,
    wait_seconds: WaitSeconds = 5.0,
) -> None:
    """Renumber the slots' priorities as `cgpt prioritize` does: order is kept, and nothing is lowered to 0.

    Priority 0 stays 0, but for -i's slot. Tries and success stay. Exit code 1 if refused: not a slot, or no slot could
    boot (--force allows that).
    """
    if friends and partition is None:
        raise typer.BadParameter("--friends is only of use with --partition")
    with _errors():
        _change(
            disk,
            lambda table: edit_priorities(table, partition, top=top, friends=friends),
            dry_run,
            force,
            wait_seconds,
        )


@app.command()
def repair(disk: Disk = None, dry_run: DryRun = False, wait_seconds: WaitSeconds = 5.0) -> None:
    """Bring both copies of the table in step (the valid primary counts), and move the backup to a grown disk's end."""
    with _errors(), _open(disk, wait_seconds, writable=True, rehearsed=dry_run) as opened:
        before = opened.table
        repaired = opened.repair()
        if dry_run:
            typer.echo(diskviews.DRY_RUN)
        _print_repairs(before, opened.table, repaired)
        if not repaired:
            typer.echo("nothing to repair")
        if dry_run:
            _print(diskviews.describe_rehearsal(before, opened.table, opened.done))


@app.command("next")
def show_next(
    disk: Disk = None,
    *,
    number: Annotated[bool, typer.Option("--number", "-n", help="Only the partition's number.")] = False,
    label: Annotated[bool, typer.Option("--label", "-l", help="Only the label.")] = False,
    guid: Annotated[bool, typer.Option("--guid", "-u", help="Only the unique GUID.")] = False,
    output: OutputFormat = Output.TEXT,
    as_json: AsJson = False,
    wait_seconds: WaitSeconds = 5.0,
) -> None:
    """Tell which slot a reset would boot now, and use up no try. Exit code 1 if none can boot."""
    if number + label + guid > 1:
        raise typer.BadParameter("give at most one of --number, --label and --guid")
    with _errors(), _open(disk, wait_seconds) as opened:
        entry = choose_entry(opened.table)
    if entry is None:
        _fail("no slot can boot: none has priority 1 or more and tries left or the mark of success")
    after = consume(entry.attributes)
    if number or label or guid:
        typer.echo(entry.partition if number else diskviews.FIELDS["label" if label else "guid"](entry))
    elif as_json or output is Output.JSON:
        document = diskviews.make_entry_document(entry) | {"triesAfterBoot": after.tries}
        typer.echo(json.dumps(document, indent=2))
    else:
        change = "" if after == entry.attributes else f", and would leave it {after}"
        typer.echo(f"a reset would boot {name_entry(entry)}{change}")


@app.command()
def explain(
    disk: Disk = None, output: OutputFormat = Output.TEXT, as_json: AsJson = False, wait_seconds: WaitSeconds = 5.0
) -> None:
    """Explain the boot order in words: what boots next and why, what a crash would do, which slots can't boot."""
    with _errors(), _open(disk, wait_seconds) as opened:
        table = opened.table
    sentences = explain_boots(table)
    if not (as_json or output is Output.JSON):
        _print(sentences)
        return
    order = order_boots(table.entries)
    turns = [
        {"partition": turn.entry.partition, "label": turn.entry.label, "boots": turn.boots} for turn in order.turns
    ]
    never = [{"partition": entry.partition, "label": entry.label} for entry in order.never]
    document = {"turns": turns, "never": never, "ends": order.ends, "explanation": list(sentences)}
    typer.echo(json.dumps(document, indent=2))


@app.command()
def verify(disk: Disk = None, wait_seconds: WaitSeconds = 5.0) -> None:
    """Check both copies, the MBR and the slots. Exit code 0 if all is sane, else 1 with a sentence for each fault."""
    with _errors(), _open(disk, wait_seconds) as opened:
        faults = list(_verify(opened))
    for fault in faults:
        typer.echo(fault, err=True)
    if faults:
        raise typer.Exit(1)
    typer.echo("no problems found")


def _pick_field(flags: dict[str, bool], partition: int | None) -> str | None:
    """The one single value that was asked for, or None."""
    fields = [name for name, given in flags.items() if given]
    if fields and partition is None:
        raise typer.BadParameter("a single value needs --partition (-i)")
    if len(fields) > 1:
        raise typer.BadParameter(f"only one value at a time, given: {', '.join(fields)}")
    return fields[0] if fields else None


def _show(opened: OpenTable, partition: int | None, field: str | None, as_json: bool) -> None:
    table, path = opened.table, opened.block.path
    entry = None if partition is None else _find_entry(table, partition)
    if entry is not None and field:
        typer.echo(diskviews.FIELDS[field](entry))
    elif as_json:
        document = diskviews.make_entry_document(entry) if entry else diskviews.make_document(path, table)
        typer.echo(json.dumps(document, indent=2))
    elif entry is not None:
        _print(diskviews.describe_entry(entry, chosen=entry == choose_entry(table)))
    else:
        _print(diskviews.describe_table(path, table))


def _change(
    disk: Path | None, edit: Callable[[Table], dict[int, int]], dry_run: bool, force: bool, wait_seconds: float
) -> None:
    """Do, or rehearse, one edit and print what it did."""
    with _open(disk, wait_seconds, writable=True, rehearsed=dry_run) as opened:
        before = opened.table
        words = edit(before)
        if not force:
            _check(before, words)
        repaired = opened.set_words(words)
        if dry_run:
            typer.echo(diskviews.DRY_RUN)
        _print_repairs(before, opened.table, repaired)
        _print(describe_edit(before, opened.table) or ("nothing to change",))
        if dry_run:
            _print(diskviews.describe_rehearsal(before, opened.table, opened.done))


@contextmanager
def _open(
    disk: Path | None, wait_seconds: float, *, writable: bool = False, rehearsed: bool = False
) -> Iterator[OpenTable]:
    """The table of the disk that was named, or of the one that holds this machine's slots."""
    path = find_disk(wait_seconds=wait_seconds) if disk is None else disk
    with open_table(path, writable=writable, rehearsed=rehearsed, wait_seconds=wait_seconds) as opened:
        yield opened


@contextmanager
def _errors() -> Iterator[None]:
    """Turn refusals and I/O errors into one sentence and exit code 1."""
    try:
        yield
    except DiskError as error:
        _fail(str(error), error)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), error)


def _fail(sentence: str, error: Exception | None = None) -> NoReturn:
    typer.echo(f"careen disk: {sentence}", err=True)
    raise typer.Exit(1) from error


def _parse_raw(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value <= 0xFFFF:
        raise typer.BadParameter(f"--attributes is {text}; allowed: 0 to 0xffff")
    return value


def _find_entry(table: Table, partition: int) -> Entry:
    for entry in table.entries:
        if entry.partition == partition:
            return entry
    allowed = ", ".join(f"{entry.partition} ({entry.label})" for entry in table.entries) or "the table is empty"
    raise UnsafeChangeError(f"there is no partition {partition}; allowed: {allowed}")


def _check(table: Table, words: dict[int, int]) -> None:
    try:
        check_edit(table, words)
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


def _print_repairs(before: Table, after: Table, repaired: tuple[str, ...]) -> None:
    for fault in repaired:
        typer.echo(f"repaired: {fault}")
    if repaired:
        _print(describe_repair(before, after))


def _print(lines: Iterator[str] | tuple[str, ...]) -> None:
    for line in lines:
        typer.echo(line)
