"""What `status`, `journal`, `ssh` and a restart of a global unit do on the machines themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from careen.cli.target import CommandError
from careen.cli.units.changes import Teller, find_units
from careen.cli.units.commands import JournalOptions, SshOptions, restart_unit, show_journal, show_unit
from careen.cli.units.registry import read_machine_named, read_machines
from careen.cli.units.routes import Closed, Errand, Via, run_on_machine, run_ssh
from careen.cli.units.views import MachineView, UnitView
from careen.kube.errors import ApiError

if TYPE_CHECKING:
    from careen.kube.session import Session

NOT_RUNNING = 3
"""systemctl's exit code for a unit that is not active."""


async def find_one(session: Session, word: str) -> UnitView:
    """The one unit that a word means. CommandError for none, and for several."""
    units, _ = await find_units(session, [word])
    if len(units) == 1:
        return units[0]
    if not units:
        raise CommandError(f"there is no unit {word}; `careen unit list-unit-files` lists those that there are")
    raise CommandError(f"{word} must mean one unit, not {len(units)}: {', '.join(unit.name for unit in units[:5])}")


async def find_holders(session: Session, unit: UnitView, only: str | None) -> list[MachineView]:
    """Machines that have something of the unit, or only this one. CommandError for a unit that is on none."""
    if only is not None:
        return [await read_machine_named(session, only)]
    if not unit.is_global:
        names = [name for name in (unit.place, *unit.leaving) if name]
        if names:
            return [await read_machine_named(session, names[0])]
    machines = await read_machines(session)
    found = [machine for machine in machines.values() if machine.report(unit.name) is not None]
    if not found:
        raise CommandError(f"unit {unit.name} is on no machine{f' ({unit.reason})' if unit.reason else ''}")
    return found


async def show_statuses(
    session: Session, words: Sequence[str], errand: Errand, teller: Teller, *, machine: str | None = None
) -> int:
    """What the cluster knows of units, and what systemctl says of each on its machines; the worst exit code."""
    units, missing = await find_units(session, words)
    worst = 0
    for name in missing:
        teller.error(f"there is no unit {name}")
        worst = 1
    for at, unit in enumerate(units):
        if at:
            teller.out("")
        for line in describe_unit(unit):
            teller.out(line)
        if errand.via is Via.NONE:
            worst = max(worst, 0 if any(r.active == "active" for r in unit.reports.values()) else NOT_RUNNING)
            continue
        try:
            holders = await find_holders(session, unit, machine)
        except CommandError as error:
            teller.error(str(error))
            worst = max(worst, 1)
            continue
        for holder in holders:
            teller.out(f"\n{holder.address}:")
            asked = replace(errand, command=show_unit(unit.name), unit=unit.name)
            worst = max(worst, await _try(session, holder, asked, teller))
    return worst


async def _try(session: Session, machine: MachineView, errand: Errand, teller: Teller) -> int:
    try:
        return await run_on_machine(session, machine, errand)
    except (CommandError, ApiError) as error:
        # The other machines are of interest all the same.
        teller.error(str(error))
        return 1


def describe_unit(unit: UnitView) -> Iterator[str]:
    """What the cluster knows of a unit, as lines of text."""
    description = unit.verdict.file.description if unit.verdict.file is not None else ""
    yield f"{unit.name}{f' - {description}' if description else ''}"
    rows = [
        ("Object", unit.object),
        ("Hash", unit.hash or "-"),
        ("Wanted", unit.desired),
        ("State", "global" if unit.is_global else unit.current or "-"),
        ("Machine", unit.place or "-"),
    ]
    if unit.leaving:
        rows.append(("Leaving", ", ".join(unit.leaving)))
    if unit.is_global:
        counts = ", ".join(f"{unit.counts.get(key, 0)} {key}" for key in ("placed", "loaded", "active", "failed"))
        rows[-1] = ("Machines", counts)
    for node, report in unit.reports.items():
        rows.append(("Reported", f"{report.load}, {report.active} ({report.sub}) on {node}"))
    rows.append(("Reason", unit.reason or "-"))
    yield from (f"{f'{name}:':>10} {value}" for name, value in rows)


async def follow_journal(
    session: Session, word: str, errand: Errand, options: JournalOptions, *, machine: str | None = None
) -> int:
    """The unit's journal from its machine; journalctl's exit code. CommandError for a unit on several machines."""
    unit = await find_one(session, word)
    holders = await find_holders(session, unit, machine)
    if len(holders) > 1:
        names = ", ".join(each.name for each in holders[:5]) + (", …" if len(holders) > 5 else "")
        raise CommandError(f"unit {unit.name} is on {len(holders)} machines: name one by --machine ({names})")
    asked = replace(
        errand,
        command=show_journal(unit.name, options),
        unit=unit.name,
        journal=options,
        follows=options.follow,
    )
    return await run_on_machine(session, holders[0], asked)


async def restart_everywhere(session: Session, unit: UnitView, errand: Errand, teller: Teller) -> bool:
    """Restart a global unit on one machine after the other; the first that fails ends it. Whether all succeeded."""
    for machine in await find_holders(session, unit, None):
        code = await run_on_machine(session, machine, replace(errand, command=restart_unit(unit.name), unit=unit.name))
        if code:
            teller.error(f"Unit {unit.name} could not be restarted on {machine.name} (exit code {code}); here it ends")
            return False
        teller.out(f"Restarted global unit {unit.name} on {machine.name}")
    return True


async def open_shell(
    session: Session, target: str, command: Sequence[str], options: SshOptions, *, is_unit: bool | None = None
) -> int:
    """ssh to a machine, or to the machine of a unit: its exit code. CommandError for a unit that is on none.

    is_unit: whether `target` is a unit; None: whichever there is, machines first.
    """
    machine: MachineView | None = None
    if not is_unit:
        try:
            machine = await read_machine_named(session, target)
        except CommandError:
            if is_unit is False:
                raise
    if machine is None:
        unit = await find_one(session, target)
        holders = await find_holders(session, unit, None)
        if len(holders) > 1:
            raise CommandError(f"unit {unit.name} is on {len(holders)} machines: name one of them")
        machine = holders[0]
    outcome = await run_ssh(machine, options, command)
    if isinstance(outcome, Closed):
        raise CommandError(f"there is no way to machine {machine.name} (ssh: {outcome.reason})")
    return outcome
