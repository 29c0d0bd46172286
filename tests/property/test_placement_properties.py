"""Whatever units ask for, a placement keeps its promises; and asking again changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from careen.api.requirements import Requirements
from careen.core.fitness import explain, group_reasons
from careen.core.placement import Placer, place
from careen.core.places import STANDING, Place, Placements, Role, Rules, Target, UnitSpec

NAMES = ("a.service", "b.service", "c.service", "d.timer", "w@1.service", "w@2.service", "w@3.service")
GLOBS = ("a.service", "b.*", "w@*.service", "[cd].*", "*")
MACHINES = ("m1", "m2", "m3", "m4")
Current = dict[str, tuple[Place, ...]]


@st.composite
def units(draw: Any, name: str) -> UnitSpec:
    globs = st.lists(st.sampled_from(GLOBS[:4]), max_size=1).map(tuple)
    kind = draw(st.sampled_from(("plain", "plain", "conflicts", "replaces", "peer", "metadata", "global", "id")))
    wanted = Requirements(
        machine_id="id-m2" if kind == "id" else None,
        machine_of=(draw(st.sampled_from([n for n in NAMES if n != name])),) if kind == "peer" else (),
        machine_metadata=(("zone", tuple(sorted(draw(st.sets(st.sampled_from("xy"), min_size=1))))),)
        if kind == "metadata"
        else (),
        conflicts=draw(globs) if kind in ("conflicts", "global", "peer") else (),
        replaces=draw(globs) if kind == "replaces" else (),
        global_=kind == "global",
        weight=draw(st.integers(0, 3)),
        max_per_machine=draw(st.sampled_from((None, None, 1, 2))),
        avoids=draw(globs),
        spread=draw(st.sampled_from((None, "zone"))),
        surge=draw(st.booleans()),
        interruptible=draw(st.booleans()),
    )
    desired = draw(st.sampled_from(("launched", "launched", "loaded", "inactive")))
    return UnitSpec(name, wanted, desired, draw(st.sampled_from(("Replace", "Keep"))))


@st.composite
def targets(draw: Any, name: str) -> Target:
    return Target(
        name,
        f"id-{name}",
        {"zone": draw(st.sampled_from("xy"))} if draw(st.booleans()) else {},
        draw(st.sampled_from((None, None, 2, 4))),
        draw(st.sampled_from((None, None, None, 10.0, 95.0))),
        draw(st.sampled_from((False, False, False, True))),
    )


@st.composite
def worlds(draw: Any) -> tuple[dict[str, UnitSpec], dict[str, Target]]:
    names = draw(st.sets(st.sampled_from(NAMES), min_size=1))
    machines = draw(st.sets(st.sampled_from(MACHINES)))
    return (
        {name: draw(units(name)) for name in sorted(names)},
        {name: draw(targets(name)) for name in sorted(machines)},
    )


@st.composite
def stories(draw: Any) -> list[tuple[dict[str, UnitSpec], dict[str, Target]]]:
    """One world after the other; each keeps some objects of the one before."""
    told = [draw(worlds())]
    for _ in range(draw(st.integers(1, 3))):
        before, after = told[-1], draw(worlds())
        keep_units = draw(st.sets(st.sampled_from(NAMES)))
        keep_machines = draw(st.sets(st.sampled_from(MACHINES)))
        told.append(
            (
                after[0] | {n: u for n, u in before[0].items() if n in keep_units},
                after[1] | {n: t for n, t in before[1].items() if n in keep_machines},
            )
        )
    return told


def apply(current: Mapping[str, tuple[Place, ...]], placements: Placements) -> Current:
    after = dict(current) | {decision.unit: decision.places for decision in placements.decisions}
    return {name: places for name, places in after.items() if places}


def settle(current: Current) -> Current:
    """The agents do what they were told: what is left goes, what waits or runs is there."""
    left = {n: tuple(replace(p, ready=True) for p in ps if p.role is not Role.LEAVE) for n, ps in current.items()}
    return {name: places for name, places in left.items() if places}


def stand(current: Current) -> dict[str, set[str]]:
    """Units by machine."""
    found: dict[str, set[str]] = {}
    for name, places in current.items():
        for spot in places:
            if spot.role in STANDING:
                found.setdefault(spot.machine, set()).add(name)
    return found


def fits(name: str, globs: tuple[str, ...]) -> bool:
    """fnmatch is near enough for these globs."""
    return any(fnmatchcase(name, glob) for glob in globs)


def at_odds(one: UnitSpec, other: UnitSpec) -> bool:
    return fits(other.name, one.requirements.conflicts) or fits(one.name, other.requirements.conflicts)


def check_rules(world: tuple[dict[str, UnitSpec], dict[str, Target]], current: Current) -> None:
    specs, machines = world
    there = stand(current)
    for machine, names in there.items():
        target = machines[machine]
        for name in names:
            wanted = specs[name].requirements
            assert specs[name].desired != "inactive"
            assert not any(at_odds(specs[name], specs[other]) for other in names - {name})
            assert all(peer in names for peer in wanted.machine_of)
            assert all(target.metadata.get(key) in values for key, values in wanted.machine_metadata)
            assert wanted.machine_id in (None, target.machine_id)
            group = {n for n in names if n.startswith("w@")}
            if name in group and wanted.max_per_machine is not None:
                assert len(group) <= wanted.max_per_machine
        assert target.capacity is None or sum(specs[n].requirements.weight for n in names) <= target.capacity
    for name, unit in specs.items():
        assert unit.requirements.global_ or sum(name in names for names in there.values()) <= 1


@given(stories())
@settings(max_examples=100, deadline=None)
def test_no_rule_is_ever_broken(story: Any) -> None:
    current: Current = {}
    for world in story:
        current = apply(current, place(*world, current, 100.0))
        check_rules(world, current)


@given(stories())
@settings(max_examples=100, deadline=None)
def test_what_changed_is_all_that_has_to_be_looked_at(story: Any) -> None:
    placer, current = Placer(), Current()
    for step, world in enumerate(story):
        now = 60.0 + step * 30.0  # The grace period of one silent machine ends on the way.
        for rules in (Rules(), Rules(rebalance_budget=1)):
            found = placer.place(*world, current, now, rules)
            assert found == place(*world, current, now, rules)
            if rules.rebalance_budget:
                current = settle(apply(current, found))
            elif step % 2:
                current = apply(current, found)  # Else the decision gets lost, and must come again.
        asked = sorted(world[1])[:1]
        placer.refuse_activation(*world, current, now, leaving=asked)


@given(worlds())
@settings(max_examples=100, deadline=None)
def test_a_second_pass_moves_nothing(world: Any) -> None:
    for rules in (Rules(), Rules(rebalance_budget=3)):
        current: Current = {}
        for _ in range(30):
            found = place(*world, current, 100.0, rules)
            if not found.decisions:
                break
            current = settle(apply(current, found))
        assert found.decisions == (), "it never comes to rest"


@given(worlds())
@settings(max_examples=100, deadline=None)
def test_a_stored_decision_is_not_taken_again(world: Any) -> None:
    current = apply({}, place(*world, {}, 100.0))
    assert place(*world, current, 100.0).decisions == ()


@given(worlds())
@settings(max_examples=100, deadline=None)
def test_who_could_have_a_place_has_one(world: Any) -> None:
    specs, machines = world
    current: Current = {}
    # More than one pass: who was pushed off comes back only after it has left, if who pushed it is pushed off too.
    while (found := place(specs, machines, current, 100.0)).decisions:
        current = settle(apply(current, found))
    there = stand(current)
    for name, unit in specs.items():
        if unit.desired == "inactive" or unit.requirements.global_ or any(name in names for names in there.values()):
            continue
        assert name in found.refusals
        for machine in machines.values():
            assert not takes(specs, there.get(machine.name, set()), machine, unit)


@given(worlds())
@settings(max_examples=100, deadline=None)
def test_the_reasons_are_those_of_each_machine(world: Any) -> None:
    placer = Placer()
    current = settle(apply({}, placer.place(*world, {}, 100.0)))
    found = placer.place(*world, current, 100.0).refusals
    board = placer._board
    for name in board.homeless:
        faults = [explain(board, name, machine) for machine in board.targets]
        assert found[name] == group_reasons(name, [fault.text for fault in faults if fault is not None])


def takes(specs: Mapping[str, UnitSpec], names: set[str], machine: Target, unit: UnitSpec) -> bool:
    """The rules once more, as plainly as can be."""
    wanted = unit.requirements
    if machine.leaving or machine.silent_since is not None or wanted.machine_id not in (None, machine.machine_id):
        return False
    if not all(machine.metadata.get(key) in values for key, values in wanted.machine_metadata):
        return False
    if not all(peer in names for peer in wanted.machine_of) or any(at_odds(unit, specs[name]) for name in names):
        return False
    if any(fits(unit.name, specs[name].requirements.replaces) for name in names):
        return False
    group = [n for n in (*names, unit.name) if n.startswith("w@")]
    of_group = (
        u.requirements.max_per_machine for u in specs.values() if u.name[:2] == "w@" and u.desired != "inactive"
    )
    if unit.name in group and len(group) > min((most for most in of_group if most is not None), default=99):
        return False
    weight = sum(specs[name].requirements.weight for name in names) + wanted.weight
    return machine.capacity is None or not wanted.weight or weight <= machine.capacity


@given(worlds(), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_the_order_of_objects_does_not_matter(world: Any, random: Any) -> None:
    specs, machines = world
    names, targets = list(specs), list(machines)
    random.shuffle(names)
    random.shuffle(targets)
    shuffled = place({n: specs[n] for n in names}, {n: machines[n] for n in targets}, {}, 100.0)
    assert shuffled == place(specs, machines, {}, 100.0)
