"""`careen unit list-units`, `list-unit-files`, `list-machines` and `cat`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from careen.cli.completion import complete_machines, complete_units
from careen.cli.target import AsJson, CommandError, ContextName, Kubeconfig, call
from careen.cli.units.options import Fields, Full, NoLegend, UnitNames, check_names

if TYPE_CHECKING:
    from careen.cli.units.columns import Row
    from careen.cli.units.views import UnitView
    from careen.kube.session import Session

SomeUnits = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[UNIT...]", help="Only these: names or patterns. Default: all.", autocompletion=complete_units
    ),
]
SomeMachines = Annotated[
    list[str] | None,
    typer.Argument(metavar="[MACHINE...]", help="Only these: names. Default: all.", autocompletion=complete_machines),
]


def list_units(
    ctx: typer.Context,
    names: SomeUnits = None,
    *,
    fields: Fields = None,
    full: Full = False,
    no_legend: NoLegend = False,
    as_json: AsJson = False,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """List what runs: a line for each unit on each machine, as that machine's systemd reports it.

    Fields: unit, machine, active, sub, load, hash, message.
    """
    from careen.cli.units.columns import UNIT_FIELDS, list_reports
    from careen.cli.units.registry import read_machines

    columns = _pick(UNIT_FIELDS, fields)
    machines = call(ctx, kubeconfig, context, read_machines)
    rows = [row for row in list_reports(machines.values(), full=full or as_json) if _is_asked(row["unit"], names)]
    _print(rows, columns if fields or not as_json else UNIT_FIELDS, legend=not no_legend, as_json=as_json)


def list_unit_files(
    ctx: typer.Context,
    names: SomeUnits = None,
    *,
    fields: Fields = None,
    full: Full = False,
    no_legend: NoLegend = False,
    as_json: AsJson = False,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """List units: what is wanted of each, what has come of it, and where it was put.

    Fields: unit, hash, dstate, state, target, global, desc, reason.
    """
    from careen.cli.units.columns import FILE_FIELDS, list_files
    from careen.cli.units.registry import read_machines, read_units

    async def read(session: Session) -> list[Row]:
        units, machines = await read_units(session), await read_machines(session)
        asked = (unit for unit in units.values() if _is_asked(unit.name, names))
        return list(list_files(asked, machines, full=full or as_json))

    columns = _pick(FILE_FIELDS, fields)
    rows = call(ctx, kubeconfig, context, read)
    _print(rows, columns if fields or not as_json else FILE_FIELDS, legend=not no_legend, as_json=as_json)


def list_machines(
    ctx: typer.Context,
    names: SomeMachines = None,
    *,
    fields: Fields = None,
    full: Full = False,
    no_legend: NoLegend = False,
    as_json: AsJson = False,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """List machines, and the metadata that units choose them by.

    Fields: machine, id, ip, metadata, units.
    """
    from careen.cli.units import columns as tables
    from careen.cli.units.registry import read_machines

    columns = _pick(tables.MACHINE_FIELDS, fields)
    machines = call(ctx, kubeconfig, context, read_machines)
    if missing := sorted(set(names or ()) - machines.keys()):
        raise CommandError(f"there is no machine {missing[0]}")
    asked = [machine for machine in machines.values() if not names or machine.name in names]
    rows = list(tables.list_machines(asked, full=full or as_json))
    _print(rows, columns if fields or not as_json else tables.MACHINE_FIELDS, legend=not no_legend, as_json=as_json)


def cat(ctx: typer.Context, *, names: UnitNames, kubeconfig: Kubeconfig = None, context: ContextName = None) -> None:
    """Print the canonical text of units: what is hashed and what machines get. Of several, each under its name."""
    from careen.cli.units.changes import find_units

    check_names(names)
    units, missing = call(ctx, kubeconfig, context, lambda session: find_units(session, names))
    if missing:
        raise CommandError(f"there is no unit {missing[0]}")
    typer.echo("\n".join(_list_texts(units)), nl=False)


def _list_texts(units: Sequence[UnitView]) -> Iterator[str]:
    for unit in units:
        file = unit.verdict.file
        # What is no unit file has no canonical text; people still want to see it.
        text = file.canonical if file is not None else unit.content
        yield text if len(units) == 1 else f"# {unit.name}\n{text}"


def _pick(known: Sequence[str], asked: str | None) -> list[str]:
    from careen.cli.units.columns import pick_fields

    try:
        return pick_fields(known, asked)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _is_asked(name: str, patterns: Iterable[str] | None) -> bool:
    from careen.units.globs import match_glob
    from careen.units.names import complete_name

    asked = list(patterns or ())
    return not asked or any(match_glob(each, name) or complete_name(each) == name for each in asked)


def _print(rows: Sequence[Row], fields: Sequence[str], *, legend: bool, as_json: bool) -> None:
    from careen.cli.units.columns import draw_rows

    if as_json:
        typer.echo(json.dumps([{each: row[each] for each in fields} for row in rows], indent=2))
        return
    for line in draw_rows(rows, fields, legend=legend):
        typer.echo(line)
