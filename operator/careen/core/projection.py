"""What one machine is to hold of units: Node.spec.units, as it follows from the decisions.

A decision is stored in its Unit first; only then is it told to machines. So whatever a leader had not done when it died
follows from what is stored, and is done by the next one. An entry goes only when the agent has said that the unit is
gone; until then it counts as running there, and nothing that conflicts with it is told to come.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from careen.units.globs import match_glob

from .holdings import REMOVED, Holding, MachineUnits, Unit
from .places import Role

MOST_NAME = 253
"""Characters of an object's name. A unit's may be longer, and one entry that can't be holds up all others."""


@dataclass(frozen=True, slots=True)
class Seats:
    """What is decided about one machine."""

    stored: Callable[[str], Role | None]
    """What a unit is on this machine for, by what is stored; None for nothing."""
    decided: Mapping[str, Role]
    """The same by unit, as it has just been decided."""


def project(there: MachineUnits, seats: Seats, units: Mapping[str, Unit]) -> dict[str, Holding]:
    """What the machine is to hold, by the units' full names. units: those that count, by their full names."""
    made = {}
    for name in there.list_held():
        kept = _keep(name, there, seats, units.get(name))
        if kept is not None:
            made[name] = kept
    for name, role in seats.decided.items():
        unit = units.get(name)
        if role is not Role.RUN or unit is None or there.holds(name) or not _may_come(unit, there, seats, units):
            continue
        made[name] = _order(unit)
    return dict(sorted(made.items()))


def _keep(name: str, there: MachineUnits, seats: Seats, unit: Unit | None) -> Holding | None:
    """The entry of a unit that is ordered here, or is here; None when it is gone, as it was to be."""
    holding, report = there.holdings.get(name), there.reports.get(name)
    role = seats.stored(name)
    if role is Role.LEAVE or role is None:
        if holding is not None and not holding.kept and report is not None and report.gone:
            return None
        return replace(holding or _guess(name, there, unit), desired=REMOVED)
    if role is Role.RUN and seats.decided.get(name) is Role.RUN and unit is not None and not unit.errors:
        return _order(unit)
    # It runs until it is up elsewhere, or nobody knows what it is to be now: it is left alone.
    return holding or _guess(name, there, unit)


def _may_come(unit: Unit, there: MachineUnits, seats: Seats, units: Mapping[str, Unit]) -> bool:
    name = unit.full_name
    if unit.errors or unit.hash is None:
        return False
    if not unit.spec.requirements.global_ and seats.stored(name) is not Role.RUN:
        return False  # It is stored first.
    if name in there.reports:
        return False  # What the agent says is of an earlier order: it would be taken for an answer to this one.
    return not any(_conflict(unit, other, units.get(other)) for other in there.list_held())


def _conflict(unit: Unit, name: str, other: Unit | None) -> bool:
    """The same as when the place was chosen; but what is here may have been unknown then."""
    if any(match_glob(pattern, name) for pattern in unit.spec.requirements.conflicts):
        return True
    return other is not None and any(
        match_glob(pattern, unit.full_name) for pattern in other.spec.requirements.conflicts
    )


def _order(unit: Unit) -> Holding:
    assert unit.hash is not None, "a unit without errors has a hash"
    return Holding(unit.full_name, unit.name, unit.hash, unit.spec.desired)


def _guess(name: str, there: MachineUnits, unit: Unit | None) -> Holding:
    """An entry for what is here without one: the Node was made again, and the machine has kept its units."""
    found = there.reports[name].hash or (unit.hash if unit is not None else None) or "0" * 40
    known = unit.name if unit is not None else re.sub(r"[^a-z0-9.]+", "-", name.lower())[:MOST_NAME].strip("-.")
    desired = unit.spec.desired if unit is not None and unit.spec.placeable else REMOVED
    return Holding(name, known or "unknown", found, desired)
