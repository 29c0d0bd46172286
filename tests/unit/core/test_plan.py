"""The plan: the ladder from rung to rung, who goes first, cordons, and what people are told (design.md 4, 5)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from careen.core.actions import (
    Cordon,
    CreateNode,
    Evict,
    RekeyNode,
    SetOrder,
    Uncordon,
    WriteLock,
    WriteNote,
    WritePolicy,
)
from careen.core.pods import Pod, Refusal
from careen.core.releases import Lookup, ReleaseKey
from plans import cluster_terms, drained, on_trial, staged


def test_a_machine_without_a_node_is_given_one(cluster: Any) -> None:
    cluster.add("m0")
    del cluster.machines["m0"]
    assert cluster.find(CreateNode) == [CreateNode("m0", "core-m0", "id-m0")]


def test_no_order_is_given_before_the_rollout_is_stored(cluster: Any) -> None:
    cluster.add("m0")
    cluster.set_policy(stored=False)
    cluster.set_lock()
    (write,) = cluster.find(WritePolicy)
    assert write.urgent
    assert write.state.rollout.number == 1
    assert not cluster.find(SetOrder)


def test_stage_is_ordered_within_max_staging(cluster: Any) -> None:
    cluster.add("m0", "m1", "m2")
    cluster.set_policy(max_staging=2)
    cluster.set_lock()
    orders = cluster.find(SetOrder)
    assert len(orders) == 2
    assert {action.order.goal for action in orders} == {"Stage"}
    assert [e.reason for e in cluster.plan().explanations].count("StagingBudgetSpent") == 1


def test_a_machine_that_runs_the_release_is_left_alone(cluster: Any) -> None:
    cluster.add("m0", version="2.0.0")
    cluster.set_policy()
    cluster.set_lock()
    assert not cluster.find(SetOrder)
    assert cluster.reason("m0") == ("UpToDate", "UpToDate")


def test_the_lock_comes_first_then_cordon_drain_and_activate(cluster: Any) -> None:
    staged(cluster, "m0")
    (grant,) = cluster.find(WriteLock)
    assert grant.granted == ("m0",)
    assert not cluster.find(Cordon)
    cluster.set_lock("m0")
    assert [action.order for action in cluster.find(Cordon)] == [cluster.machines["m0"].order.id]
    drained(cluster)
    cluster.pods["m0"] = (Pod("apps", "web", "pod-1", "m0", deleting=False),)
    assert [action.uid for action in cluster.find(Evict)] == ["pod-1"]
    assert not cluster.find(SetOrder)
    cluster.pods["m0"] = (Pod("apps", "web", "pod-1", "m0", deleting=True),)
    assert not cluster.find(Evict)
    assert not cluster.find(SetOrder), "a pod is gone only when its UID is"
    del cluster.pods["m0"]
    (activate,) = cluster.find(SetOrder)
    assert (activate.order.goal, activate.order.from_boot_id) == ("Activate", "boot-m0")


def test_a_refused_eviction_waits_and_names_the_pod(cluster: Any) -> None:
    staged(cluster, "m0")
    drained(cluster)
    cluster.pods["m0"] = (Pod("apps", "web", "pod-1", "m0", deleting=False),)
    cluster.facts["refusals"] = {"pod-1": Refusal("disruption budget web: needs 1", cluster.at + 5)}
    assert not cluster.find(Evict)
    explanation = cluster.plan().explanations[0]
    assert (explanation.reason, explanation.message) == (
        "DisruptionBudget", "pod apps/web stays: disruption budget web: needs 1",
    )  # fmt: skip
    assert cluster.plan().wake_at == cluster.at + 5


def test_commit_needs_the_kubelet_of_this_very_boot(cluster: Any) -> None:
    on_trial(cluster)
    cluster.change_core("m0", boot_id="boot-before")
    assert not cluster.find(SetOrder)
    cluster.change_core("m0", boot_id="boot-m0", ready=False)
    assert not cluster.find(SetOrder)
    cluster.change_core("m0", ready=True)
    assert [action.order.goal for action in cluster.find(SetOrder)] == ["Commit"]


def test_ready_seconds_run_from_a_stored_instant(cluster: Any) -> None:
    on_trial(cluster, terms=replace(cluster_terms(), ready_seconds=30))
    (note,) = cluster.find(WriteNote)
    assert note.note.settled_since == cluster.at
    cluster.note("m0", "Verifying", "Verifying", cluster.at, settled=cluster.at)
    cluster.at += 29
    assert not cluster.find(SetOrder)
    assert cluster.plan().wake_at == cluster.at + 1
    cluster.at += 1
    assert [action.order.goal for action in cluster.find(SetOrder)] == ["Commit"]


def test_ready_seconds_do_not_run_from_an_earlier_trial(cluster: Any) -> None:
    on_trial(cluster, terms=replace(cluster_terms(), ready_seconds=30))
    cluster.note("m0", "Verifying", "Verifying", cluster.at - 500, settled=cluster.at - 500)
    assert not cluster.find(SetOrder)


def test_ready_seconds_begin_again_after_a_break(cluster: Any) -> None:
    on_trial(cluster, terms=replace(cluster_terms(), ready_seconds=30))
    cluster.note("m0", "Verifying", "Verifying", cluster.at - 10, settled=cluster.at - 10)
    cluster.change_core("m0", ready=False)
    (note,) = cluster.find(WriteNote)
    assert note.note.settled_since is None


@pytest.mark.parametrize("broken", ["m0", "m1", "m2"])
@pytest.mark.parametrize("most", [1, 3])
def test_rule_13_broken_machines_go_first_and_take_a_place_in_the_lock(cluster: Any, broken: str, most: int) -> None:
    staged(cluster, "m0", "m1", "m2", limit=1, max_unavailable=most)
    cluster.change_core(broken, ready=False)
    (write,) = cluster.find(WriteLock)
    assert write.granted == (broken,)
    assert write.holders[0].unavailable_at_grant


def test_the_operators_own_machine_goes_last(cluster: Any) -> None:
    for mine in ("m0", "m1", "m2"):
        cluster.facts["operator_node"] = mine
        staged(cluster, "m0", "m1", "m2", limit=2, max_unavailable=2)
        (write,) = cluster.find(WriteLock)
        assert mine not in write.granted


def test_a_mark_without_a_holder_is_swept(cluster: Any) -> None:
    cluster.add("m0")
    cluster.set_policy()
    cluster.set_lock()
    cluster.change_core("m0", unschedulable=True, cordoned_for="an-old-order")
    assert [action.schedulable for action in cluster.find(Uncordon)] == [True]


def test_people_overrule_our_cordon(cluster: Any) -> None:
    staged(cluster, "m0")
    drained(cluster)
    cluster.change_core("m0", unschedulable=False)
    assert [action.schedulable for action in cluster.find(Uncordon)] == [False]


def test_a_cordon_of_people_is_never_touched(cluster: Any) -> None:
    staged(cluster, "m0")
    cluster.change_core("m0", unschedulable=True)
    cluster.set_lock("m0")
    assert not cluster.find(Cordon)
    assert not cluster.find(Uncordon)
    assert [action.order.goal for action in cluster.find(SetOrder)] == ["Activate"]


def test_a_machine_nobody_selects_is_told_so_and_its_order_is_withdrawn(cluster: Any, requirement: Any) -> None:
    staged(cluster, "m0")
    cluster.policies["os"] = replace(cluster.policies["os"], selector=(requirement("zone", "In", ("other",)),))
    (abort,) = cluster.find(SetOrder)
    assert (abort.order.goal, abort.order.cause) == ("Abort", "Withdrawn")


def test_notes_do_not_follow_every_hand_over(cluster: Any) -> None:
    staged(cluster, "m0", "m1")
    cluster.change_core("m1", ready=False)
    cluster.set_lock(limit=0)
    cluster.note("m0", "Waiting", "BudgetSpent", cluster.at - 60)
    assert not cluster.find(WriteNote, "m0"), "LockFull and BudgetSpent are one capacity reason"


def test_complete_only_when_all_run_the_release_and_no_lock_is_held(cluster: Any) -> None:
    cluster.add("m0", version="2.0.0")
    cluster.set_policy()
    cluster.give("m0", "Commit", "Committed")
    cluster.set_lock("m0")
    cluster.change_core("m0", ready=False)
    assert complete(cluster) == ("False", "RollingOut")
    cluster.change_core("m0", ready=True)
    cluster.set_lock()
    assert complete(cluster) == ("True", "Complete")


def test_a_new_release_is_incomplete_in_the_same_write_that_records_it(cluster: Any) -> None:
    cluster.add("m0", version="2.0.0")
    cluster.set_policy()
    cluster.policies["os"] = replace(cluster.policies["os"], version="3.0.0", generation=2)
    (write,) = cluster.find(WritePolicy)
    assert write.state.generation == 2
    assert write.state.rollout.release.version == "3.0.0"
    assert complete(cluster)[0] == "False"


def complete(cluster: Any) -> tuple[str, str]:
    (write,) = cluster.find(WritePolicy)
    return next((status, reason) for name, status, reason, _ in write.state.conditions if name == "Complete")


def test_the_same_snapshot_gives_the_same_plan(cluster: Any) -> None:
    staged(cluster, "m0", "m1", "m2", limit=2, max_unavailable=2)
    first = cluster.plan()
    cluster.machines = dict(reversed(cluster.machines.items()))
    assert cluster.plan().actions == first.actions


def test_a_machine_that_does_not_come_back_from_its_boot_says_so(cluster: Any) -> None:
    cluster.add("m0")
    cluster.set_policy()
    cluster.give("m0", "Activate", "Activating")
    cluster.set_lock("m0")
    cluster.facts["silent"] = frozenset({"m0"})
    assert cluster.reason("m0") == ("Activating", "AgentSilent")
    assert [note.note.reason for note in cluster.find(WriteNote)] == ["AgentSilent"]
    conditions = {c[0]: c[1:3] for c in cluster.find(WritePolicy)[0].state.conditions}
    assert conditions["Waiting"] == ("True", "AgentSilent")
    assert conditions["Progressing"][0] == "False"
    assert not [write for write in cluster.find(WriteLock) if write.freed], "it may be on its trial"


def test_a_release_that_moved_reaches_machines_that_can_not_stage_it(cluster: Any) -> None:
    cluster.add("m0", "m1")
    cluster.set_policy()
    cluster.set_lock()
    cluster.give("m0", phase="Failed")
    cluster.give("m1", phase="Staged")
    cluster.policies["os"] = replace(cluster.policies["os"], repository="http://mirror")
    moved = replace(cluster.policies["os"].rollout.release, repository="http://mirror")
    cluster.facts["releases"] = {ReleaseKey("http://mirror", "version", "2.0.0"): Lookup(moved)}
    (abort,) = cluster.find(SetOrder, "m0")
    assert (abort.order.goal, abort.order.cause) == ("Abort", "Withdrawn")
    assert not cluster.find(SetOrder, "m1"), "what is staged needs no place to come from"


def test_a_machine_registered_anew_is_no_conflict(cluster: Any) -> None:
    cluster.add("m0")
    cluster.set_policy()
    cluster.set_lock()
    cluster.change_core("m0", uid="core-new")
    assert cluster.find(RekeyNode)
    for write in cluster.find(WritePolicy):
        conditions = {name: status for name, status, *_ in write.state.conditions}
        assert conditions["PolicyConflict"] == "False"
        assert conditions["Stalled"] == "False"
