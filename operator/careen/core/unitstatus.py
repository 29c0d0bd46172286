"""The status of a unit: where it was put and why, or why nowhere, and what its machines report of it."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace

from careen.api.meta import MAX_MESSAGE
from careen.api.reasons import Reason
from careen.api.unit import SHOWN_MACHINES

from .budgets import name_some
from .holdings import RUNNING, Counts, Report, StoredPlace, Unit, UnitState
from .places import STANDING, NoPlace, Role

Row = tuple[bool, str, str]
"""Whether the condition holds, the reason, and the sentence."""


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """All that is known of one unit in the cluster."""

    rival: str | None = None
    """The older Unit object of the same name, if there is one: that one counts."""
    roles: Mapping[str, Role] = field(default_factory=dict)
    """What it has to do with which machine, as it has just been decided."""
    refusal: NoPlace | None = None
    """Why it has no place, or can't leave the one that it should leave; of a global unit, where it is not."""
    reports: Mapping[str, Report] = field(default_factory=dict)
    """What machines say of it, by machine, in the order of their names."""
    uids: Mapping[str, str] = field(default_factory=dict)
    """UIDs of the Nodes in `roles`; none for one that is being made again."""
    lost: Set[str] = frozenset()
    """Machines that have been silent for longer than the grace period: what they said last means nothing any more."""


def is_as_wanted(unit: Unit, report: Report | None) -> bool:
    """Whether a machine has done what is wanted of the unit there: loaded it, or started it, with this content."""
    if report is None or report.hash is None or report.hash != unit.hash:
        return False
    return report.launched if unit.spec.desired == "launched" else report.load == "loaded"


def judge_unit(unit: Unit, where: Whereabouts, now: float) -> UnitState:
    """The status as it should be."""
    if where.rival is not None:
        where = Whereabouts(rival=where.rival)  # All that runs under the name is the other one's.
    standing = [machine for machine, role in sorted(where.roles.items()) if role in STANDING]
    rows = _judge(unit, where, standing)
    return UnitState(
        generation=unit.generation,
        hash=unit.hash,
        current=_find_current(unit, where, standing),
        placements=_list_places(unit, where, standing, now),
        counts=_count(unit, where, standing),
        machines=tuple((machine, _show(report)) for machine, report in list(where.reports.items())[:SHOWN_MACHINES]),
        conditions=tuple(
            (name, "True" if holds else "False", str(reason), message[:MAX_MESSAGE])
            for name, (holds, reason, message) in rows.items()
        ),
    )


def _show(report: Report) -> Report:
    return replace(report, name="", launched=False, message="")


def _is_global(unit: Unit) -> bool:
    return unit.spec.requirements.global_ or (unit.spec.pinned and unit.placements is None)


def _list_places(unit: Unit, where: Whereabouts, standing: list[str], now: float) -> tuple[StoredPlace, ...] | None:
    if where.rival is not None or _is_global(unit):
        return None
    stored = {place.node: place for place in unit.placements or ()}
    yielding = [machine for machine, role in sorted(where.roles.items()) if role is Role.YIELD]
    places = []
    for machine in [*standing, *yielding]:
        known = stored.get(machine)
        uid = where.uids.get(machine) or (known.node_uid if known is not None else None)
        since = known.since if known is not None else now
        places.append(StoredPlace(machine, uid, since, machine in yielding))
    return tuple(places)


def _find_current(unit: Unit, where: Whereabouts, standing: list[str]) -> str | None:
    """What fleet called the current state: of the machine that it was put on, and of this content."""
    if _is_global(unit):
        return None
    report = where.reports.get(standing[0]) if standing else None
    if report is None or report.hash is None or report.hash != unit.hash:
        return "inactive"
    return "launched" if report.launched else "loaded"


def _count(unit: Unit, where: Whereabouts, standing: list[str]) -> Counts:
    reports = where.reports.values()
    return Counts(
        placed=len(standing),
        loaded=sum(r.load == "loaded" and r.hash is not None and r.hash == unit.hash for r in reports),
        active=sum(r.active in RUNNING for r in reports),
        failed=sum(r.active == "failed" for r in reports),
    )


def _judge(unit: Unit, where: Whereabouts, standing: list[str]) -> dict[str, Row]:
    valid: Row = (True, Reason.VALID, "; ".join(unit.warnings))
    if unit.errors:
        valid = (False, Reason.INVALID, "; ".join(unit.errors))
    taken: Row = (False, Reason.NAME_FREE, "")
    if where.rival is not None:
        sentence = f"Unit {where.rival} is older and has the name {unit.full_name}; this one is not run"
        taken = (True, Reason.NAME_TAKEN, sentence)
    placed = _judge_place(unit, where, standing)
    stalled = _find_fault(unit, where, valid, taken, placed)
    ready = _judge_ready(unit, where, standing, placed)
    if stalled is not None:
        ready = (False, *stalled)
    return {
        "Valid": valid,
        "NameTaken": taken,
        "Placed": placed,
        "Ready": ready,
        "Reconciling": (not ready[0] and stalled is None, ready[1], ""),
        "Stalled": (True, *stalled) if stalled is not None else (False, ready[1], ""),
    }


def _judge_place(unit: Unit, where: Whereabouts, standing: list[str]) -> Row:
    left = [machine for machine, role in sorted(where.roles.items()) if role not in STANDING]
    if where.rival is not None:
        return False, Reason.NAME_TAKEN, ""
    if not standing:
        if not unit.spec.placeable:
            message = f"still being stopped on {name_some(left)}" if left else ""
            return False, Reason.INACTIVE, message
        if unit.errors:
            return False, Reason.INVALID, "what it asks for can't be understood"
        if where.refusal is not None:
            return False, Reason.NO_PLACE, where.refusal.message
        return False, Reason.NO_PLACE, "there is no machine with the metadata that it asks for"
    if _is_global(unit):
        message = f"on {_count_machines(len(standing))}"
        if where.refusal is not None:
            message += f"; not on {where.refusal.message}"
        return True, Reason.PLACED, message
    message = f"on {standing[0]}"
    if left:
        link = "as soon as it is" if where.roles[standing[0]] is Role.WAIT else "and not yet"
        return True, Reason.MOVING, f"{message} {link} stopped on {name_some(left)}"
    if where.refusal is not None:
        return True, Reason.UNIT_NOT_MOVABLE, f"{message}, and can't leave it: {where.refusal.message}"
    return True, Reason.PLACED, message


def _find_fault(unit: Unit, where: Whereabouts, valid: Row, taken: Row, placed: Row) -> tuple[str, str] | None:
    """What keeps it from being as wanted until somebody sees to it."""
    if taken[0]:
        return taken[1], taken[2]
    if not valid[0]:
        return valid[1], valid[2]
    if unit.spec.placeable and not placed[0]:
        return placed[1], placed[2]
    failed = [machine for machine, report in where.reports.items() if report.active == "failed"]
    if failed and unit.spec.desired == "launched":
        return Reason.UNIT_FAILED, f"failed on {name_some(failed)}"
    return None


def _judge_ready(unit: Unit, where: Whereabouts, standing: list[str], placed: Row) -> Row:
    left = [machine for machine, role in sorted(where.roles.items()) if role not in STANDING]
    # A dead machine that it has left may stay for days, and holds up nothing: where it belongs it may be up.
    waits = Role.WAIT in where.roles.values() or any(machine not in where.lost for machine in left)
    if left and (waits or not standing):
        return False, Reason.STOPPING if not standing else Reason.MOVING, placed[2]
    if not unit.spec.placeable:
        return True, Reason.INACTIVE, ""
    lost = [machine for machine in standing if machine in where.lost]
    if lost:
        return False, Reason.AGENT_SILENT, f"nobody knows how it is on silent {name_some(lost)}"
    late = [machine for machine in standing if not is_as_wanted(unit, where.reports.get(machine))]
    if not late:
        return True, Reason.PLACED, placed[2]
    report = where.reports.get(late[0])
    why = f": {report.message}" if report is not None and report.message else ""
    return False, Reason.STARTING, f"not yet {unit.spec.desired} on {name_some(late)}{why}"


def _count_machines(number: int) -> str:
    return "1 machine" if number == 1 else f"{number} machines"
