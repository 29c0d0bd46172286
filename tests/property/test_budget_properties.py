"""No fleet, however broken, is granted more than its budgets allow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from careen.core.actions import WriteLock
from careen.core.budgets import resolve_limit
from careen.core.plan import make_plan
from careen.core.releases import Release
from careen.core.snapshot import CoreNode, Holder, Lock, Machine, Order, Policy, Rollout, Slot, Snapshot, Step, Terms
from careen.core.waves import order_id

NOW = 1_900_000_000.0
TERMS = Terms("default", 0, 600, 600, "Rollback", "Auto", 3600)
NEW = Release("http://r", "2.0.0", "sha256:" + "2" * 64, 1, "x")
STATES = st.sampled_from(
    ["staged", "staged", "staged", "done", "in flight", "holds", "not ready", "cordoned", "silent"]
)
LIMITS = st.one_of(st.integers(1, 5), st.integers(1, 100).map(lambda n: f"{n}%"))


@st.composite
def snapshots(draw: Any) -> Snapshot:
    states = draw(st.lists(st.tuples(STATES, st.sampled_from("xyz"), st.booleans()), min_size=1, max_size=12))
    rollout = Rollout("1-222222222222", 1, NEW, NOW - 100, 0, ("rest",), ("g",), policy_uid="p")
    policy = Policy(
        "os", "p", "1", 1, (), "http://r", "2.0.0", None, TERMS, max_unavailable=draw(LIMITS),
        topology=(("zone", draw(LIMITS)),) if draw(st.booleans()) else (), rollout=rollout,
    )  # fmt: skip
    machines, cores, holders, silent = {}, {}, [], set()
    for number, (state, zone, control_plane) in enumerate(states):
        name = f"m{number}"
        labels = {"zone": zone} | ({"node-role.kubernetes.io/control-plane": ""} if control_plane else {})
        cores[name] = CoreNode(name, f"c{name}", "1", labels, state != "not ready", state == "cordoned", "boot", name)
        machines[name] = build_machine(name, state, rollout)
        silent |= {name} if state == "silent" else set()
        if state in ("holds", "in flight"):
            holders.append(Holder(name, NOW - 5, machines[name].order.id, f"u{name}", f"c{name}", name, by="operator"))
    limit = draw(st.integers(0, 8))
    lock = Lock("default", "l", "1", 1, limit, term=1, holders=tuple(sorted(holders, key=lambda h: h.id)))
    return Snapshot(machines, cores, policies={"os": policy}, locks={"default": lock}, silent=frozenset(silent), term=1)


def build_machine(name: str, state: str, rollout: Rollout) -> Machine:
    goal, phase, before = "Stage", "Staged", None
    if state == "in flight":
        goal, phase, before = "Activate", "Activating", "boot-0"
    if state == "done":
        goal, phase, before = "Commit", "Committed", "boot-0"
    order = Order(order_id(f"c{name}", rollout, 0), 0, 0, 0, "os", "p", rollout.id, NEW, goal, None, before, TERMS)
    digest = NEW.digest if state == "done" else "sha256:" + "1" * 64
    return Machine(
        name, f"u{name}", "1", 1, NOW - 1000, core_uid=f"c{name}", core_machine_id=name, order=order, booted="A",
        boot_id="boot", protocol=1, deadman="TrialTimer", slots={"A": Slot(True, "x", digest)},
        step=Step(order.id, goal, phase),
    )  # fmt: skip


def is_down(snapshot: Snapshot, name: str) -> bool:
    """Written down once more, on purpose."""
    core, machine = snapshot.core_nodes[name], snapshot.machines[name]
    held = any(holder.id == name for holder in snapshot.locks["default"].holders)
    flying = machine.order is not None and machine.order.goal == "Activate" and machine.step.phase != "Committed"
    return not core.ready or core.unschedulable or name in snapshot.silent or held or flying


@given(snapshots())
def test_a_grant_keeps_every_budget(snapshot: Snapshot) -> None:
    for write in make_plan(snapshot, NOW).actions:
        if isinstance(write, WriteLock) and write.granted:
            check_grant(snapshot, write)


def check_grant(snapshot: Snapshot, write: WriteLock) -> None:
    policy = snapshot.policies["os"]
    assert len(write.holders) <= write.max
    before = {name for name in snapshot.machines if is_down(snapshot, name)}
    after = before | set(write.granted)
    fresh = set(write.granted) - before
    if not fresh:
        return
    assert len(after) <= resolve_limit(policy.max_unavailable, len(snapshot.machines))
    for key, limit in policy.topology:
        for zone in {snapshot.core_nodes[name].labels[key] for name in fresh}:
            members = {name for name, core in snapshot.core_nodes.items() if core.labels[key] == zone}
            assert len(members & after) <= resolve_limit(limit, len(members))
    planes = {name for name, core in snapshot.core_nodes.items() if core.control_plane}
    if fresh & planes:
        assert len(planes & after) == 1


@given(snapshots())
def test_room_is_used(snapshot: Snapshot) -> None:
    """With nothing down and a free lock, somebody who is staged is granted."""
    staged = [n for n, m in snapshot.machines.items() if m.phase == "Staged" and not is_down(snapshot, n)]
    lock = replace(snapshot.locks["default"], max=5)
    if not staged or any(is_down(snapshot, name) for name in snapshot.machines):
        return
    plan = make_plan(replace(snapshot, locks={"default": lock}), NOW)
    assert any(isinstance(write, WriteLock) and write.granted for write in plan.actions)


@given(snapshots(), st.randoms(use_true_random=False))
def test_the_order_of_objects_does_not_matter(snapshot: Snapshot, random: Any) -> None:
    names = list(snapshot.machines)
    random.shuffle(names)
    shuffled = replace(
        snapshot,
        machines={name: snapshot.machines[name] for name in names},
        core_nodes={name: snapshot.core_nodes[name] for name in reversed(names)},
    )
    assert make_plan(shuffled, NOW).actions == make_plan(snapshot, NOW).actions
