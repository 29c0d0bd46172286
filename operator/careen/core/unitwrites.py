"""When a unit's status is worth a write, and how soon."""

from careen.api.reasons import Reason

from .actions import Turn, WriteUnit
from .holdings import StoredPlace, Unit, UnitState
from .unitstatus import Whereabouts, judge_unit

FOLLOWING = 1.0
"""Least seconds between two writes of one unit's status that only tell what machines report."""
WORDING = 30.0
"""The same where only sentences differ: the reasons of machines that refuse it change with all that changes around."""
TOLD = frozenset({Reason.INVALID, Reason.NAME_TAKEN, Reason.NO_PLACE, Reason.UNIT_FAILED})
"""Reasons of condition Stalled that an Event tells too."""


def write_unit(unit: Unit, where: Whereabouts, now: float) -> WriteUnit | None:
    """The status as it should be; None when it is so already."""
    state = judge_unit(unit, where, now)
    if state == unit.state:
        return None
    pace = _find_pace(unit.state, state)
    return WriteUnit(unit.name, unit.uid, unit.resource_version, state, pace, _tell(unit, state))


def _find_pace(before: UnitState | None, after: UnitState) -> float:
    if before is None or before.generation != after.generation or before.current != after.current:
        return 0.0
    if _name_nodes(before.placements) != _name_nodes(after.placements):
        return 0.0
    # Sentences may differ; what holds, and the word for it, do not.
    same = [row[:3] for row in before.conditions] == [row[:3] for row in after.conditions]
    return WORDING if same and (before.counts, before.machines) == (after.counts, after.machines) else FOLLOWING


def _name_nodes(places: tuple[StoredPlace, ...] | None) -> list[tuple[str, bool]] | None:
    return None if places is None else [(place.node, place.leaving) for place in places]


def _tell(unit: Unit, state: UnitState) -> tuple[Turn, ...]:
    """An Event when the unit has come to a stop that somebody must see to, and when it moves."""
    known = unit.conditions.get("Stalled")
    for name, status, reason, message in state.conditions:
        if name == "Stalled" and status == "True" and reason in TOLD and (known is None or known.reason != reason):
            return (Turn("Unit", unit.name, unit.uid, reason, message, warning=True),)
    before, after = _find_place(unit.placements), _find_place(state.placements)
    if before is not None and after is not None and before != after:
        return (Turn("Unit", unit.name, unit.uid, "Moved", f"from {before} to {after}"),)
    return ()


def _find_place(places: tuple[StoredPlace, ...] | None) -> str | None:
    return next((place.node for place in places or () if not place.leaving), None)
