"""How far a unit is on the way to what people asked for: done, broken, or still to be waited for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from careen.cli.units.views import BUSY, UnitView

Goal = Literal["inactive", "loaded", "launched"]

SETTLE_SECONDS = 2.0
"""What may be a state in between is believed when it has lasted so long; fleet waited as long for an active unit."""
STOP_SECONDS = 30.0
"""A global unit may take so long to stop everywhere; what runs on was started by its socket or its timer."""
BROKEN_FILES = frozenset({"error", "bad-setting", "masked"})
"""systemd's load states of a file that it does not take."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a unit stands."""

    outcome: Literal["Done", "Broken", "Waiting"]
    sentence: str
    """What to tell people: of a unit that is waited for, why."""
    settle: float = 0.0
    """Seconds for which it must stay so before it is believed."""


def judge_unit(unit: UnitView, goal: Goal, generation: int) -> Progress:
    """Where the unit stands on its way to `goal`, wished for in this generation of the object or an older one."""
    if unit.observed < generation:
        return Progress("Waiting", "the operator has not seen it yet")
    for name, fine in (("Valid", True), ("NameTaken", False)):
        condition = unit.conditions.get(name)
        if condition is not None and condition.holds != fine:
            return Progress("Broken", f"Unit {unit.name} can't be {goal}: {condition.sentence}")
    if goal == "inactive":
        return _judge_unloaded(unit)
    return _judge_global(unit, goal) if unit.is_global else _judge_placed(unit, goal)


def _judge_unloaded(unit: UnitView) -> Progress:
    left = sorted({*(node for node, report in unit.reports.items() if report.held), *unit.leaving})
    if unit.place or left:
        return Progress("Waiting", unit.reason or f"still on {', '.join(left or [unit.place])}")
    return Progress("Done", f"Unit {unit.name} inactive")


def _judge_placed(unit: UnitView, goal: Goal) -> Progress:
    report = unit.reports.get(unit.place)
    if not unit.place or report is None:
        return Progress("Waiting", unit.reason)
    where = f"on {unit.place}"
    if report.hash == unit.hash and report.load in BROKEN_FILES:
        sentence = f"Unit {unit.name} can't be {goal} {where}: systemd says {report.load}"
        return Progress("Broken", sentence, SETTLE_SECONDS)
    if unit.current != goal or (goal == "loaded" and report.active == "deactivating"):
        return Progress("Waiting", unit.reason)
    if goal == "loaded" and report.active in BUSY:
        # Its socket or its timer has started it, and nobody's order stops that.
        return Progress("Done", f"Unit {unit.name} loaded {where} ({report.active}, {report.sub})", SETTLE_SECONDS)
    if goal == "loaded":
        return Progress("Done", f"Unit {unit.name} loaded {where}")
    if report.active == "failed":
        return Progress("Broken", f"Unit {unit.name} failed {where} ({report.sub}); `careen unit journal` tells why")
    if report.active == "active":
        return Progress("Done", f"Unit {unit.name} launched {where}")
    if report.sub == "auto-restart":
        return Progress("Broken", f"Unit {unit.name} does not stay up {where} (auto-restart)", SETTLE_SECONDS)
    # A unit that has done its work and ended is as good; so is one that takes its time, which is said.
    return Progress("Done", f"Unit {unit.name} launched {where} ({report.active}, {report.sub})", SETTLE_SECONDS)


def _judge_global(unit: UnitView, goal: Goal) -> Progress:
    placed, ready = unit.counts.get("placed", 0), unit.conditions.get("Ready")
    if not placed:
        condition = unit.conditions.get("Placed")
        why = f": {condition.message}" if condition is not None and condition.message else ""
        return Progress("Done", f"Unit {unit.name} {goal} on no machine{why}", SETTLE_SECONDS)
    # Machines that have not started the new content yet may still tell of the old one's failure.
    if goal == "launched" and any(r.active == "failed" and r.hash == unit.hash for r in unit.reports.values()):
        return Progress("Broken", f"Unit {unit.name} is {goal}, but not everywhere: {unit.reason}", SETTLE_SECONDS)
    if ready is None or not ready.holds:
        return Progress("Waiting", unit.reason)
    sentence = f"Unit {unit.name} {goal} on {placed} machine{'' if placed == 1 else 's'}"
    # Told to be loaded only, machines count as ready before they have stopped what they had launched.
    running = unit.counts.get("active", 0) or any(report.active in BUSY for report in unit.reports.values())
    running = goal == "loaded" and bool(running)
    return Progress("Done", f"{sentence} (active on some)" if running else sentence, STOP_SECONDS if running else 0.0)
