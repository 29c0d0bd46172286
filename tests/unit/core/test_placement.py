"""fleet's rules of placement, each with what it puts where."""

from __future__ import annotations

from typing import Any

import pytest

from careen.api.requirements import Requirements as Asks
from careen.core.placement import Placer, place
from careen.core.places import Place, Placements, Role, Target, UnitSpec


def targets(count: int = 3, **facts: Any) -> dict[str, Target]:
    """Machines m1, m2, …; m1 has the id 11111111-m1."""
    names = [f"m{number}" for number in range(1, count + 1)]
    return {name: Target(name, f"{name[1] * 8}-{name}", **facts) for name in names}


def specs(**asked: Asks) -> dict[str, UnitSpec]:
    """Services; an underscore and a number in a keyword stand for an instance."""
    names = {key: key.replace("_", "@") + ".service" for key in asked}
    return {names[key]: UnitSpec(names[key], wanted) for key, wanted in asked.items()}


def at(*machines: str) -> tuple[Place, ...]:
    return tuple(Place(machine, ready=True) for machine in machines)


def show(placements: Placements) -> dict[str, str]:
    """Decisions in short: `m1` for Run, else `m1 Leave`."""
    return {
        d.unit.removesuffix(".service"): ", ".join(
            p.machine if p.role is Role.RUN else f"{p.machine} {p.role}" for p in d.places
        )
        for d in placements.decisions
    }


NONE = Asks()
ROWS: dict[str, tuple[dict[str, UnitSpec], dict[str, tuple[Place, ...]], dict[str, str]]] = {
    "least loaded first, ties by machine id": (
        specs(a=NONE, b=NONE, c=NONE, d=NONE),
        {},
        {"a": "m1", "b": "m2", "c": "m3", "d": "m1"},
    ),
    "load counts": (specs(a=NONE, b=NONE, c=NONE), {"a.service": at("m1"), "b.service": at("m2")}, {"c": "m3"}),
    "global units are load": (
        specs(g=Asks(global_=True, conflicts=("x.service",)), h=NONE) | specs(x=NONE),
        {"x.service": at("m1")},
        {"g": "m2, m3", "h": "m1"},
    ),
    "MachineID, full": (specs(a=Asks(machine_id="22222222-m2")), {}, {"a": "m2"}),
    "MachineID, short": (specs(a=Asks(machine_id="33333333")), {}, {"a": "m3"}),
    "MachineID of nobody": (specs(a=Asks(machine_id="3333333")), {}, {}),
    "MachineOf waits for its peer, and joins": (
        specs(a=Asks(machine_of=("z.service",)), b=NONE, z=NONE),
        {},
        {"a": "m2", "b": "m1", "z": "m2"},
    ),
    "MachineOf without a peer": (specs(a=Asks(machine_of=("z.service",))), {}, {}),
    "MachineOf each other": (specs(a=Asks(machine_of=("b.service",)), b=Asks(machine_of=("a.service",))), {}, {}),
    "a leader goes where its follower can": (
        specs(a=NONE, b=Asks(machine_of=("a.service",), conflicts=("x.service",)), x=NONE),
        {"x.service": at("m1")},
        {"a": "m2", "b": "m2"},
    ),
    "MachineOf, peer destroyed": (
        specs(a=Asks(machine_of=("z.service",))),
        {"a.service": at("m1"), "z.service": at("m1")},
        {"a": "m1 Leave", "z": "m1 Leave"},
    ),
    "Conflicts of the one that comes": (
        specs(a=NONE, b=Asks(conflicts=("a.*",))),
        {"a.service": at("m1")},
        {"b": "m2"},
    ),
    "Conflicts of the one that is there": (
        specs(a=Asks(conflicts=("b.*",)), b=NONE),
        {"a.service": at("m1")},
        {"b": "m2"},
    ),
    "never with itself": (specs(w_1=Asks(conflicts=("w@*",))), {"w@1.service": at("m1")}, {}),
    "each machine one": (
        specs(**{f"w_{n}": Asks(conflicts=("w@*.service",)) for n in range(4)}),
        {},
        {"w@0": "m1", "w@1": "m2", "w@2": "m3"},
    ),
    "a bad pattern matches nothing": (
        specs(a=NONE, b=Asks(conflicts=("[a",))),
        {"a.service": at("m1"), "b.service": at("m1")},
        {},
    ),
    "two come to conflict: the first by name leaves": (
        specs(a=NONE, b=Asks(conflicts=("a.service",))),
        {"a.service": at("m1"), "b.service": at("m1")},
        {"a": "m1 Leave, m2 Wait"},
    ),
    "nothing goes where a conflict is still being stopped": (
        specs(b=Asks(conflicts=("a.service",))),
        {"a.service": (Place("m1", Role.LEAVE),)},
        {"b": "m2"},
    ),
    "Replaces": (specs(a=NONE, r=Asks(replaces=("a.*",))), {"a.service": at("m1")}, {"r": "m2"}),
    "mutual Replaces is ignored": (
        specs(a=Asks(replaces=("r.*",)), r=Asks(replaces=("a.*",))),
        {"a.service": at("m1"), "r.service": at("m1")},
        {},
    ),
    "Global": (specs(g=Asks(global_=True)), {}, {"g": "m1, m2, m3"}),
    "two global units that conflict: the first by name": (
        specs(g=Asks(global_=True), h=Asks(global_=True, conflicts=("g.*",))),
        {},
        {"g": "m1, m2, m3"},
    ),
    "new machine: no move": (specs(a=NONE, b=NONE), {"a.service": at("m1"), "b.service": at("m1")}, {}),
    "desired inactive: no place": (
        {"a.service": UnitSpec("a.service", desired="inactive")},
        {"a.service": at("m2")},
        {"a": "m2 Leave"},
    ),
    "inactive units do not conflict": (
        {"a.service": UnitSpec("a.service", Asks(conflicts=("b.*",)), "inactive")} | specs(b=NONE),
        {},
        {"b": "m1"},
    ),
    "desired loaded: a place": ({"a.service": UnitSpec("a.service", desired="loaded")}, {}, {"a": "m1"}),
    "a template has none": ({"w@.service": UnitSpec("w@.service")}, {}, {}),
    "machine gone": (specs(a=NONE), {"a.service": at("m9")}, {"a": "m1"}),
}


@pytest.mark.parametrize(("units", "current", "expected"), ROWS.values(), ids=ROWS.keys())
def test_rules(units: Any, current: Any, expected: Any) -> None:
    assert show(place(units, targets(), current, 0.0)) == expected


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ((("region", ("eu",)),), "m1"),
        ((("region", ("eu", "us")), ("disk", ("ssd",))), "m2"),
        ((("region", ("EU",)),), None),
        ((("arch", ("x",)),), None),
    ],
)
def test_metadata(wanted: Any, expected: str | None) -> None:
    machines = {
        "m1": Target("m1", "1", {"region": "eu", "disk": "hdd"}),
        "m2": Target("m2", "2", {"region": "us", "disk": "ssd"}),
    }
    found = show(place(specs(a=Asks(machine_metadata=wanted)), machines, {}, 0.0))
    assert found == ({"a": expected} if expected else {})


def test_other_metadata_moves_units_and_stops_global_ones() -> None:
    asked = Asks(machine_metadata=(("region", ("eu",)),))
    units = specs(a=asked, g=Asks(machine_metadata=asked.machine_metadata, global_=True))
    machines = {"m1": Target("m1", "1", {"region": "us"}), "m2": Target("m2", "2", {"region": "eu"})}
    current = {"a.service": at("m1"), "g.service": at("m1")}
    assert show(place(units, machines, current, 0.0)) == {"a": "m1 Leave, m2 Wait", "g": "m1 Leave, m2"}


def test_replaces_pushes_off_once_and_comes_to_rest() -> None:
    units = specs(a=Asks(), r=Asks(replaces=("a.*",)))
    both = {"a.service": at("m1"), "r.service": at("m1")}
    assert show(place(units, targets(2), both, 0.0)) == {"a": "m1 Leave, m2 Wait"}
    alone = place(units, targets(1), {"a.service": at("m1")}, 0.0)
    assert show(alone) == {"a": "m1 Leave", "r": "m1"}
    after = place(units, targets(1), {"r.service": at("m1")}, 0.0)
    assert show(after) == {}
    assert after.refusals["a.service"].message == "1 machine: replaced by r.service"


def test_every_machine_says_why() -> None:
    units = specs(a=Asks(machine_metadata=(("zone", ("z", "y")),)), w=Asks(conflicts=("g.*",)), g=Asks(global_=True))
    machines = targets(3) | {"m4": Target("m4", "4", leaving=True), "m5": Target("m5", "5", silent_since=-1.0)}
    refusals = place(units, machines, {}, 0.0).refusals
    assert (
        refusals["w.service"].message
        == "3 machines: Conflicts with g.service; 1 machine: about to be activated; 1 machine: silent"
    )
    assert refusals["a.service"].reasons[0] == (3, "MachineMetadata zone is not z or y")
    assert place(units, {}, {}, 0.0).refusals["w.service"].message == "there is no machine"


def test_a_machine_that_comes_back_gets_nothing_back() -> None:
    placer, units = Placer(), specs(a=Asks())
    current = {"a.service": at("m1")}
    assert show(placer.place(units, targets(2), current, 0.0)) == {}
    lost = {"m2": targets(2)["m2"]}
    assert show(placer.place(units, lost, current, 1.0)) == {"a": "m2"}
    assert show(placer.place(units, targets(2), {"a.service": at("m2")}, 2.0)) == {}


def test_a_decision_that_was_not_stored_is_forgotten_when_the_machine_is_back() -> None:
    placer, units = Placer(), specs(a=Asks())
    current = {"a.service": at("m1")}
    assert show(placer.place(units, {"m2": targets(2)["m2"]}, current, 1.0)) == {"a": "m2"}
    assert show(placer.place(units, targets(2), current, 2.0)) == {}
