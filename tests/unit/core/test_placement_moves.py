"""What goes beyond fleet: wishes of units, and how they move for updates and away from silent machines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from careen.api.reasons import Reason
from careen.api.requirements import Requirements as Asks
from careen.core.placement import Placer, place
from careen.core.places import Place, Placements, Role, Rules, Target, UnitSpec

NONE = Asks()


def targets(count: int = 3, **facts: Any) -> dict[str, Target]:
    return {f"m{n}": Target(f"m{n}", f"{n}", **facts) for n in range(1, count + 1)}


def leaving(count: int, *names: str) -> dict[str, Target]:
    return {name: replace(t, leaving=name in names) for name, t in targets(count).items()}


def silent(count: int, name: str, since: float) -> dict[str, Target]:
    return {n: replace(t, silent_since=since if n == name else None) for n, t in targets(count).items()}


def specs(**asked: Asks) -> dict[str, UnitSpec]:
    names = {key: key.replace("_", "@") + ".service" for key in asked}
    return {names[key]: UnitSpec(names[key], wanted) for key, wanted in asked.items()}


def at(*machines: str) -> tuple[Place, ...]:
    return tuple(Place(machine, ready=True) for machine in machines)


def show(placements: Placements) -> dict[str, str]:
    return {
        d.unit.removesuffix(".service"): ", ".join(
            p.machine if p.role is Role.RUN else f"{p.machine} {p.role}" for p in d.places
        )
        for d in placements.decisions
    }


def test_weight_is_load_and_capacity_is_its_end() -> None:
    units = specs(a=Asks(weight=3), b=NONE, c=NONE, d=Asks(weight=4))
    found = place(units, targets(2, capacity=4), {}, 0.0)
    assert show(found) == {"a": "m1", "b": "m2", "c": "m2"}
    assert found.refusals["d.service"].message == (
        "1 machine: weight 4 is more than the 1 of 4 left; 1 machine: weight 4 is more than the 2 of 4 left"
    )


def test_no_more_of_a_template_on_a_machine_than_any_of_them_allows() -> None:
    units = specs(**{f"w_{n}": Asks(max_per_machine=2 if n else None) for n in range(5)})
    found = place(units, targets(2), {}, 0.0)
    assert show(found) == {"w@0": "m1", "w@1": "m2", "w@2": "m1", "w@3": "m2"}
    assert found.refusals["w@4.service"].message == "2 machines: 2 of w@.service there, at most 2 allowed"


def test_what_is_avoided_is_avoided_while_there_is_room_elsewhere() -> None:
    units = specs(a=NONE, b=NONE, c=Asks(avoids=("a.*",)), d=NONE)
    current = {"a.service": at("m1"), "b.service": at("m2"), "d.service": at("m2")}
    assert show(place(units, targets(2), current, 0.0)) == {"c": "m2"}
    assert show(place(units, targets(1), {"a.service": at("m1")}, 0.0))["c"] == "m1"
    reverse = {"c.service": at("m1"), "b.service": at("m2"), "d.service": at("m2")}
    assert show(place(units, targets(2), reverse, 0.0)) == {"a": "m2"}


def test_a_template_is_spread_over_zones_before_load_counts() -> None:
    zones = {"m1": "x", "m2": "x", "m3": "y"}
    machines = {name: Target(name, name, {"zone": zone}) for name, zone in zones.items()} | {"m0": Target("m0", "m0")}
    units = specs(**{f"w_{n}": Asks(spread="zone") for n in range(4)}, heavy=Asks(weight=9))
    found = show(place(units, machines, {"heavy.service": at("m3")}, 0.0))
    assert [zones[found[f"w@{n}"]] for n in range(4)] == ["x", "y", "x", "y"]


@pytest.mark.parametrize(("budget", "moves"), [(0, 0), (1, 1), (2, 2), (9, 3)])
def test_rebalancing_keeps_to_its_budget_and_ends(budget: int, moves: int) -> None:
    units = specs(**{f"u{n}": NONE for n in range(6)})
    current = {name: at("m1") for name in units}
    found = place(units, targets(2), current, 0.0, Rules(rebalance_budget=budget))
    assert len(found.decisions) == moves
    again = dict(current) | {d.unit: d.places for d in found.decisions}
    assert place(units, targets(2), again, 0.0, Rules(rebalance_budget=budget)).decisions == ()


def test_surge_starts_the_new_place_before_it_stops_the_old_one() -> None:
    units, machines = specs(a=Asks(surge=True)), leaving(2, "m1")
    first = place(units, machines, {"a.service": at("m1")}, 0.0)
    assert (show(first), first.moving) == ({"a": "m1 Yield, m2"}, {"m1": ("a.service",)})
    starting = {"a.service": (Place("m1", Role.YIELD, True), Place("m2"))}
    assert show(place(units, machines, starting, 1.0)) == {}
    started = {"a.service": (Place("m1", Role.YIELD, True), Place("m2", Role.RUN, True))}
    assert show(place(units, machines, started, 2.0)) == {"a": "m1 Leave, m2"}
    assert place(units, machines, {"a.service": at("m2")}, 3.0).moving == {"m1": ()}


def test_without_surge_the_new_place_waits_for_the_old_one() -> None:
    units, machines = specs(a=NONE), leaving(2, "m1")
    assert show(place(units, machines, {"a.service": at("m1")}, 0.0)) == {"a": "m1 Leave, m2 Wait"}
    stopping = {"a.service": (Place("m1", Role.LEAVE, True), Place("m2", Role.WAIT))}
    assert show(place(units, machines, stopping, 1.0)) == {}
    assert show(place(units, machines, {"a.service": (Place("m2", Role.WAIT),)}, 2.0)) == {"a": "m2"}


def test_a_new_place_that_is_lost_leaves_the_old_one_running() -> None:
    moving = {"a.service": (Place("m1", Role.YIELD, True), Place("m2"))}
    assert show(place(specs(a=Asks(surge=True)), targets(1), moving, 0.0)) == {"a": "m1"}


def test_global_units_stay_and_nothing_new_comes() -> None:
    units = specs(g=Asks(global_=True), n=NONE)
    found = place(units, leaving(2, "m1"), {"g.service": at("m1", "m2")}, 0.0)
    assert (show(found), found.moving, found.blocked) == ({"n": "m2"}, {"m1": ()}, {})


def test_one_unit_that_cannot_go_keeps_all_of_them_where_they_are() -> None:
    units = specs(a=NONE, p=Asks(machine_id="1"))
    found = place(units, leaving(2, "m1"), {"a.service": at("m1"), "p.service": at("m1")}, 0.0)
    assert found.decisions == ()
    assert found.blocked["m1"].reason == Reason.UNIT_NOT_MOVABLE
    assert found.blocked["m1"].message == "unit p.service can't leave m1: 1 machine: MachineID is not 1"


def test_an_interruptible_unit_stays_and_blocks_nothing() -> None:
    units = specs(a=NONE, p=Asks(machine_id="1", interruptible=True))
    found = place(units, leaving(2, "m1"), {"a.service": at("m1"), "p.service": at("m1")}, 0.0)
    assert (show(found), found.blocked, found.moving) == ({"a": "m1 Leave, m2 Wait"}, {}, {"m1": ("a.service",)})


def test_a_pair_moves_together_or_not_at_all() -> None:
    units = specs(a=NONE, b=Asks(machine_of=("a.service",), conflicts=("x.*",)), x=NONE, y=NONE, z=NONE)
    current = {"a.service": at("m1"), "b.service": at("m1"), "x.service": at("m2")}
    current |= {"y.service": at("m3"), "z.service": at("m3")}
    assert show(place(units, leaving(3, "m1"), current, 0.0)) == {"a": "m1 Leave, m3 Wait", "b": "m1 Leave, m3 Wait"}
    two = {name: t for name, t in leaving(3, "m1").items() if name != "m3"}
    kept = place(units, two, {name: current[name] for name in ("a.service", "b.service", "x.service")}, 0.0)
    assert not {"a", "b"} & show(kept).keys()
    assert "not able to run all units that must be beside it" in kept.blocked["m1"].message


def test_moving_away_pushes_nobody_off() -> None:
    units = specs(a=NONE, r=Asks(replaces=("a.*",)))
    found = place(units, leaving(2, "m1"), {"r.service": at("m1"), "a.service": at("m2")}, 0.0)
    assert found.blocked["m1"].message == "unit r.service can't leave m1: 1 machine: would push a.service off"


def test_asking_decides_nothing() -> None:
    units, machines, current = specs(a=NONE, p=Asks(machine_id="2")), targets(2), {"a.service": at("m1")}
    current["p.service"] = at("m2")
    placer = Placer()
    assert placer.place(units, machines, current, 0.0).decisions == ()
    assert placer.refuse_activation(units, machines, current, 0.0, leaving=["m1"]) == {}
    assert placer.refuse_activation(units, machines, current, 0.0, leaving=["m2"]).keys() == {"m2"}
    assert placer.place(units, machines, current, 0.0).decisions == ()


@pytest.mark.parametrize(
    ("now", "on_silence", "expected", "wake_at"),
    [
        (59.0, "Replace", {}, 60.0),
        (60.0, "Replace", {"a": "m1 Leave, m2"}, None),
        (60.0, "Keep", {}, None),
    ],
)
def test_a_silent_machine_keeps_its_units_for_the_grace_period(
    now: float, on_silence: str, expected: dict[str, str], wake_at: float | None
) -> None:
    units = {"a.service": UnitSpec("a.service", on_silence=on_silence)}
    found = place(units, silent(2, "m1", 0.0), {"a.service": at("m1")}, now, Rules(grace_seconds=60.0))
    assert (show(found), found.wake_at) == (expected, wake_at)


def test_a_unit_that_nobody_else_can_run_keeps_its_place_on_a_silent_machine() -> None:
    found = place(specs(a=Asks(machine_id="1")), silent(2, "m1", 0.0), {"a.service": at("m1")}, 99.0)
    assert found.decisions == ()
    assert found.refusals["a.service"].message == "1 machine: MachineID is not 1"


def test_only_the_units_of_a_lost_machine_are_decided_anew() -> None:
    units = specs(**{f"u{n}": NONE for n in range(20)})
    machines = targets(5)
    current = {d.unit: d.places for d in place(units, machines, {}, 0.0).decisions}
    found = place(units, {n: t for n, t in machines.items() if n != "m3"}, current, 1.0)
    lost = {name for name, places in current.items() if places[0].machine == "m3"}
    assert {d.unit for d in found.decisions} == lost
    assert len(lost) == 4


def test_what_is_still_being_stopped_still_takes_room() -> None:
    units = specs(a=NONE)
    current = {"old.service": (Place("m1", Role.LEAVE, True),)}
    assert show(place(units, targets(1, capacity=1), current, 0.0)) == {}
    assert show(place(units, targets(1, capacity=1), {}, 1.0)) == {"a": "m1"}


def test_followers_go_where_their_peer_goes() -> None:
    units = specs(b=Asks(machine_of=("p.service",)), p=Asks(machine_metadata=(("zone", ("y",)),)))
    machines = {"m1": Target("m1", "1", {"zone": "x"}), "m2": Target("m2", "2", {"zone": "y"})}
    current = {"b.service": at("m1"), "p.service": at("m1")}
    assert show(place(units, machines, current, 0.0)) == {"b": "m1 Leave, m2 Wait", "p": "m1 Leave, m2 Wait"}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (Asks(conflicts=("w@1.*",)), {"w@1": "m1 Leave, m2 Wait"}),
        (Asks(max_per_machine=1), {"w@1": "m1 Leave, m2 Wait"}),
        (Asks(weight=2), {"w@1": "m1 Leave, m2 Wait"}),
        (Asks(replaces=("w@1.*",)), {"w@1": "m1 Leave, m2 Wait"}),
        (Asks(conflicts=("other.*",)), {}),
    ],
)
def test_a_unit_that_changes_moves_its_neighbours(changed: Asks, expected: dict[str, str]) -> None:
    """Although nothing about them has changed."""
    placer, units, machines = Placer(), specs(w_1=NONE, w_2=NONE), targets(2, capacity=2)
    current = {"w@1.service": at("m1"), "w@2.service": at("m1")}
    assert placer.place(units, machines, current, 0.0).decisions == ()
    assert show(placer.place(units | specs(w_2=changed), machines, current, 1.0)) == expected


def test_a_lower_limit_reaches_machines_that_the_unit_is_not_on() -> None:
    placer, units, machines = Placer(), specs(w_1=NONE, w_2=NONE, w_3=NONE), targets(3)
    current = {"w@1.service": at("m1"), "w@2.service": at("m1"), "w@3.service": at("m2")}
    assert placer.place(units, machines, current, 0.0).decisions == ()
    found = placer.place(units | specs(w_3=Asks(max_per_machine=1)), machines, current, 1.0)
    assert show(found) == {"w@1": "m1 Leave, m3 Wait"}


def test_a_new_global_unit_does_not_come_before_an_older_one_on_new_machines() -> None:
    placer, units = Placer(), specs(a=Asks(global_=True))
    current = {"a.service": at("m1")}
    assert placer.place(units, targets(1), current, 0.0).decisions == ()
    found = placer.place(units | specs(b=Asks(global_=True, conflicts=("a.*",))), targets(3), current, 1.0)
    assert show(found) == {"a": "m1, m2, m3"}
