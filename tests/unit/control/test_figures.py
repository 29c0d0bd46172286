"""The figures of the fleet: read from a snapshot and its plan, nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from careen.control.figures import Sight, find_problem, read_figures
from careen.core.conditions import Condition
from careen.core.pods import Pod, Refusal
from careen.core.snapshot import Slot
from careen.observe.fleet import FAMILIES, Figures
from small_cluster import NOW, Cluster

GOOD = Slot(True, "1.0.0", "sha256:" + "1" * 64, priority=2)


def read(cluster: Cluster, **changes: Any) -> Figures:
    snapshot = cluster.snapshot()
    return read_figures(Sight(snapshot, cluster.plan()), **changes)


def staged(cluster: Cluster, *names: str) -> None:
    cluster.add(*names)
    cluster.set_policy()
    for name in names:
        cluster.give(name)
        cluster.change(name, slots={"A": GOOD, "B": Slot(False, None, None)})
    cluster.set_lock()


def test_machines_are_counted_by_the_words_of_the_plan(cluster: Cluster) -> None:
    staged(cluster, "m0", "m1")
    cluster.set_lock("m0")
    found = read(cluster)
    states = {(e.policy or "", e.state, e.reason) for e in cluster.plan().explanations}
    assert set(found["careen_nodes"]) == states
    assert sum(found["careen_nodes"].values()) == 2
    assert found["careen_blocked_nodes"] == {("os", "BudgetSpent"): 1}
    assert found["careen_version_nodes"] == {("os", "1.0.0"): 2}


def test_what_is_gone_leaves_nothing(cluster: Cluster) -> None:
    staged(cluster, "m0", "m1")
    cluster.set_lock("m0")
    seen = read(cluster, last_seen={"m0": NOW, "gone": NOW})["careen_agent_last_seen_timestamp_seconds"]
    assert seen == {("m0",): NOW}
    cluster.machines.clear()
    cluster.policies.clear()
    cluster.locks.clear()
    values = [value for family in read(cluster, last_seen={"m0": NOW}).values() for value in family.items()]
    assert set(values) == {((state,), 0) for state in ("talking", "silent", "missing")} | {((), 0.0)}


def test_a_lock_names_its_holders_and_who_gave_it(cluster: Cluster) -> None:
    staged(cluster, "m0")
    cluster.set_lock("m0", limit=3)
    found = read(cluster)
    assert found["careen_lock_slots"] == {("default",): 3}
    assert found["careen_lock_holders"] == {("default",): 1}
    assert found["careen_lock_holder_since_timestamp_seconds"] == {("default", "m0", "operator"): NOW - 60}


def test_a_policy_shows_rollout_conditions_and_halt(cluster: Cluster) -> None:
    staged(cluster, "m0")
    cluster.store_rollout(halted_at=NOW, failed=1)
    conditions = {
        "Complete": Condition("Complete", "True", "Complete", "", NOW - 5, 1),
        "Waiting": Condition("Waiting", "False", "RollingOut", "", NOW, 1),
    }
    cluster.policies["os"] = replace(cluster.policies["os"], conditions=conditions, counts={"selected": 1}, paused=True)
    found = read(cluster)
    assert found["careen_policy_halted"] == found["careen_policy_paused"] == {("os",): 1}
    assert found["careen_policy_nodes"] == {("os", "selected"): 1}
    assert found["careen_policy_condition"] == {("os", "Complete", "Complete"): 1, ("os", "Waiting", "RollingOut"): 0}
    assert found["careen_policy_complete_timestamp_seconds"] == {("os",): NOW - 5}
    ((policy, _, version, wave),) = found["careen_policy_rollout_info"]
    assert (policy, version) == ("os", "2.0.0")
    assert wave in cluster.policies["os"].rollout.wave_names  # type: ignore[union-attr]
    assert found["careen_policy_rollout_failures"] == {("os",): 1}


def test_a_blocked_drain_names_machine_and_budget(cluster: Cluster) -> None:
    staged(cluster, "m0")
    cluster.set_lock("m0")
    order = cluster.machines["m0"].order
    assert order is not None
    cluster.change_core("m0", unschedulable=True, cordoned_for=order.id)
    cluster.pods["m0"] = (Pod("shop", "web-1", "p1", "m0", False), Pod("shop", "web-2", "p2", "m0", False))
    cluster.facts["refusals"] = {"p1": Refusal("no", NOW + 5, ("shop", "web")), "p2": Refusal("no", NOW + 5)}
    found = read(cluster)["careen_drain_blocked_pods"]
    assert found == {("m0", "shop", "web"): 1, ("m0", "shop", "unknown"): 1}


def test_agents_are_silent_missing_or_talking(cluster: Cluster) -> None:
    staged(cluster, "m0", "m1", "m2")
    cluster.facts["silent"] = frozenset({"m1"})
    cluster.change("m2", boot_id="")
    assert read(cluster)["careen_agents"] == {("talking",): 1, ("silent",): 1, ("missing",): 1}


@pytest.mark.parametrize(
    ("slots", "booted", "problem"),
    [
        ({"A": GOOD, "B": Slot(False, None, None)}, "A", None),
        ({"A": GOOD, "B": replace(GOOD, priority=1)}, "A", None),
        ({"A": GOOD, "B": replace(GOOD, priority=3)}, "A", "OtherSlotNext"),
        ({"A": GOOD, "B": Slot(False, "2", None, priority=3, tries=1)}, "A", "OtherSlotNext"),
        ({"A": GOOD, "B": Slot(False, "2", None, priority=3, tries=0)}, "A", None),
        ({"A": GOOD, "B": GOOD}, "A", None),
        ({"A": GOOD, "B": GOOD}, "B", "OtherSlotNext"),
        ({"A": replace(GOOD, successful=False, tries=1), "B": GOOD}, "A", "BootedSlotNotGood"),
        ({"A": replace(GOOD, priority=0), "B": Slot(False, None, None)}, "A", "BootedSlotNotGood"),
        ({"A": GOOD}, None, "BootedSlotUnknown"),
    ],
)
def test_a_slot_that_a_reset_would_not_boot_is_a_problem(
    cluster: Cluster, slots: dict[str, Slot], booted: str | None, problem: str | None
) -> None:
    cluster.add("m0")
    cluster.change("m0", slots=slots, booted=booted)
    assert find_problem(cluster.machines["m0"]) == problem
    assert read(cluster)["careen_unsound_nodes"] == ({(problem,): 1} if problem else {})


def test_a_machine_on_trial_has_no_problem(cluster: Cluster) -> None:
    staged(cluster, "m0")
    cluster.give("m0", "Activate", "Verifying")
    assert find_problem(cluster.machines["m0"]) is None


def test_figures_fit_their_families(cluster: Cluster) -> None:
    staged(cluster, "m0", "m1")
    cluster.set_lock("m0")
    labels = {family.name: len(family.labels) for family in FAMILIES}
    per_node = {family.name for family in FAMILIES if family.per_node}
    for name, values in read(cluster, last_seen={"m0": NOW}).items():
        assert {len(key) for key in values} <= {labels[name]}, name
    assert not per_node & set(read(cluster)), "a machine's own series are behind the switch"
    assert per_node <= set(read(cluster, last_seen={}))
