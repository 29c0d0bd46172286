"""The lists of units and machines: fleet's columns, and what Careen knows beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from careen.cli.tables import align
from careen.cli.units.views import MachineView, UnitView
from careen.units.file import SHORT_HASH

Row = Mapping[str, str]
SHORT_ID = 8
"""Characters of a machine id that people are shown; units may name machines by as many."""
NONE = "-"
"""What stands in an empty cell."""

UNIT_FIELDS = ("unit", "machine", "active", "sub", "load", "hash", "message")
FILE_FIELDS = ("unit", "hash", "dstate", "state", "target", "global", "desc", "reason")
MACHINE_FIELDS = ("machine", "id", "ip", "metadata", "units")
DEFAULTS = {
    UNIT_FIELDS: ("unit", "machine", "active", "sub"),
    FILE_FIELDS: ("unit", "hash", "dstate", "state", "target"),
    MACHINE_FIELDS: ("machine", "id", "ip", "metadata"),
}
"""The columns that are shown where none are named."""


def list_reports(machines: Iterable[MachineView], *, full: bool = False) -> Iterator[Row]:
    """A row for each unit on each machine that has anything of it, by unit and then machine."""
    found = [(each.unit, machine, each) for machine in machines for each in machine.reports]
    for name, machine, report in sorted(found, key=lambda each: (each[0], each[1].name)):
        if report.held or report.message:
            yield {
                "unit": name,
                "machine": machine.address,
                "active": report.active,
                "sub": report.sub,
                "load": report.load,
                "hash": report.hash if full else report.hash[:SHORT_HASH],
                "message": report.message,
            }


def list_files(units: Iterable[UnitView], machines: Mapping[str, MachineView], *, full: bool = False) -> Iterator[Row]:
    """A row for each unit that there is, on a machine or not."""
    for unit in units:
        place = machines[unit.place].address if unit.place in machines else unit.place
        yield {
            "unit": unit.name,
            "hash": unit.hash if full else unit.hash[:SHORT_HASH],
            "dstate": unit.desired,
            "state": _count(unit) if unit.is_global else unit.current,
            "target": "global" if unit.is_global else place,
            "global": str(unit.is_global).lower(),
            "desc": unit.verdict.file.description if unit.verdict.file is not None else "",
            "reason": unit.reason,
        }


def _count(unit: UnitView) -> str:
    """How many machines a global unit is active on, of those that are to have it."""
    return f"{unit.counts.get('active', 0)}/{unit.counts['placed']}" if "placed" in unit.counts else ""


def list_machines(machines: Iterable[MachineView], *, full: bool = False) -> Iterator[Row]:
    """A row for each machine, by name; labels of the core Node are metadata too, and shown where all is."""
    for machine in sorted(machines, key=lambda each: each.name):
        metadata = {**machine.labels, **machine.metadata} if full else machine.metadata
        yield {
            "machine": machine.name,
            "id": machine.id if full or len(machine.id) <= SHORT_ID else f"{machine.id[:SHORT_ID]}...",
            "ip": machine.ip,
            "metadata": ",".join(f"{key}={metadata[key]}" for key in sorted(metadata)),
            "units": str(sum(report.held for report in machine.reports)),
        }


def pick_fields(known: Sequence[str], asked: str | None) -> list[str]:
    """The columns that `--fields` asks for; ValueError for one that there is not."""
    if asked is None:
        return list(DEFAULTS[tuple(known)])
    fields = [each.strip() for each in asked.split(",")]
    for each in fields:
        if each not in known:
            raise ValueError(f"invalid field {each!r}; allowed: {', '.join(known)}")
    return fields


def draw_rows(rows: Iterable[Row], fields: Sequence[str], *, legend: bool = True) -> list[str]:
    """The rows as lines of aligned columns, under a line of their names in capitals."""
    cells = [[row[each] or NONE for each in fields] for row in rows]
    table = [[each.upper() for each in fields], *cells] if legend else cells
    return align(table) if table else []
