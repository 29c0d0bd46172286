"""When a unit counts as being what people asked for, when as broken, and what is said while it is waited for."""

from __future__ import annotations

from typing import Any

import pytest

from careen.cli.units.progress import Goal, judge_unit
from careen.cli.units.views import UnitView, elect_units, read_unit
from careen.units.file import unit_hash

CONTENT = "[Service]\nExecStart=/bin/web\n"
HASH = unit_hash(CONTENT)
OLD = "0" * 40


def make_unit(content: str = CONTENT, *, generation: int = 2, conditions: Any = (), **status: Any) -> UnitView:
    rows = [
        {"type": kind, "status": str(holds), "reason": reason, "message": message}
        for kind, holds, reason, message in conditions
    ]
    return read_unit(
        {
            "metadata": {"name": "web.service", "generation": generation},
            "spec": {"content": content},
            "status": {"observedGeneration": 2, "conditions": rows, **status},
        }
    )


def placed(active: str, sub: str, *, current: str = "launched", held: str = HASH, load: str = "loaded") -> UnitView:
    return make_unit(
        currentState=current,
        placements=[{"node": "old", "leaving": True}, {"node": "m1"}],
        machines=[{"node": "m1", "hash": held, "load": load, "active": active, "sub": sub}],
        conditions=[("Ready", False, "Starting", "not yet launched on m1: exit 203")],
    )


@pytest.mark.parametrize(
    ("unit", "goal", "outcome", "sentence", "settles"),
    [
        (placed("active", "running"), "launched", "Done", "launched on m1", False),
        (placed("inactive", "dead"), "launched", "Done", "launched on m1 (inactive, dead)", True),
        (placed("activating", "start"), "launched", "Done", "launched on m1 (activating, start)", True),
        (placed("failed", "failed"), "launched", "Broken", "failed on m1", False),
        (placed("activating", "auto-restart"), "launched", "Broken", "does not stay up", True),
        (placed("failed", "failed", current="inactive", held=OLD), "launched", "Waiting", "exit 203", False),
        (placed("inactive", "dead", load="bad-setting"), "launched", "Broken", "systemd says bad-setting", True),
        (placed("inactive", "dead", load="error", held=OLD), "loaded", "Waiting", "", False),
        (placed("inactive", "dead", current="loaded"), "loaded", "Done", "loaded on m1", False),
        (placed("failed", "failed", current="loaded"), "loaded", "Done", "loaded on m1", False),
        (placed("deactivating", "stop", current="loaded"), "loaded", "Waiting", "", False),
        (placed("active", "running", current="loaded"), "loaded", "Done", "loaded on m1 (active, running)", True),
        (placed("active", "running", current="loaded"), "launched", "Waiting", "Starting: not yet", False),
        (placed("active", "running"), "inactive", "Waiting", "", False),
        (make_unit(placements=[], machines=[]), "inactive", "Done", "inactive", False),
    ],
)  # fmt: skip
def test_units_with_a_place(unit: UnitView, goal: Goal, outcome: str, sentence: str, settles: bool) -> None:
    progress = judge_unit(unit, goal, 2)
    assert progress.outcome == outcome
    assert sentence in progress.sentence
    assert (progress.settle > 0) == settles


def test_what_the_operator_has_not_seen_does_not_count() -> None:
    unit = placed("active", "running")
    assert judge_unit(unit, "launched", 2).outcome == "Done"
    assert judge_unit(unit, "launched", 3).outcome == "Waiting"


@pytest.mark.parametrize(
    "condition",
    [("Valid", False, "Invalid", "MachineID must not be empty"), ("NameTaken", True, "NameTaken", "Unit x is older")],
)
def test_what_waiting_does_not_heal_ends_it_at_once(condition: tuple[str, bool, str, str]) -> None:
    progress = judge_unit(make_unit(conditions=[condition]), "launched", 2)
    assert progress.outcome == "Broken"
    assert condition[3] in progress.sentence


def make_global(counts: dict[str, int], *, ready: bool, active: str = "active", held: str = HASH) -> UnitView:
    content = f"{CONTENT}\n[X-Fleet]\nGlobal=true\n"
    machine = {"node": "m1", "hash": unit_hash(content) if held == HASH else held, "load": "loaded", "active": active}
    conditions = [
        ("Ready", ready, "Starting", "not yet launched on m2"),
        ("Placed", bool(counts["placed"]), "NoPlace", "no"),
    ]
    return make_unit(content, counts=counts, machines=[machine] if counts["placed"] else [], conditions=conditions)


@pytest.mark.parametrize(
    ("unit", "outcome", "sentence"),
    [
        (make_global({"placed": 2, "active": 1}, ready=False), "Waiting", "not yet launched on m2"),
        (make_global({"placed": 2, "active": 2}, ready=True), "Done", "launched on 2 machines"),
        (make_global({"placed": 1, "active": 1}, ready=True), "Done", "launched on 1 machine"),
        (make_global({"placed": 0}, ready=False), "Done", "on no machine: no"),
        (make_global({"placed": 2, "failed": 1}, ready=False, active="failed"), "Broken", "not everywhere"),
        (make_global({"placed": 2, "failed": 1}, ready=False, active="failed", held=OLD), "Waiting", ""),
    ],
)
def test_global_units(unit: UnitView, outcome: str, sentence: str) -> None:
    progress = judge_unit(unit, "launched", 2)
    assert progress.outcome == outcome
    assert sentence in progress.sentence


def test_a_unit_that_is_being_deleted_does_not_count() -> None:
    old = {"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "x"}}
    new = {"metadata": {"name": "b", "creationTimestamp": "2026-01-02T00:00:00Z"}}
    units = elect_units([{**each, "spec": {"name": "web.service", "content": CONTENT}} for each in (old, new)])
    assert units["web.service"].object == "b"
