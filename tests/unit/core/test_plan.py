"""The plan, rule by rule of the protocol (design.md section 4) and of the decision (section 5)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from careen.core.actions import (
    Cordon,
    CreateNode,
    DeleteNode,
    Evict,
    RekeyNode,
    SetOrder,
    Uncordon,
    WriteLock,
    WriteNote,
    WritePolicy,
    target,
)
from careen.core.encode import encode_lock_status
from careen.core.pods import Pod, Refusal
from careen.core.releases import Lookup, ReleaseKey
from careen.core.snapshot import Holder, Step, Terms


def staged(cluster: Any, *names: str, limit: int = 1, **policy: Any) -> None:
    """Machines that hold 2.0.0 in the passive slot, and a free lock."""
    cluster.add(*names)
    cluster.set_policy(**policy)
    for name in names:
        cluster.give(name)
    cluster.set_lock(limit=limit)


def drained(cluster: Any, name: str = "m0") -> None:
    """A machine that holds the lock, cordoned by us."""
    cluster.set_lock(name)
    cluster.change_core(name, unschedulable=True, cordoned_for=cluster.machines[name].order.id)


def on_trial(cluster: Any, *, goal: str = "Activate", phase: str = "Verifying", **changes: Any) -> None:
    """m0 on trial of 2.0.0, holding the lock."""
    cluster.add("m0")
    cluster.set_policy(**changes)
    cluster.give("m0", goal, phase, cause="Withdrawn" if goal == "Abort" else None, acknowledged=goal == "Activate")
    drained(cluster)


# The ladder.


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


def cluster_terms() -> Terms:
    return Terms("default", 0, 600, 600, "Rollback", "Auto", 3600)


# Rule 1: the grant.


def test_rule_1_one_write_frees_and_grants(cluster: Any) -> None:
    cluster.add("m0", version="2.0.0")
    cluster.add("m1")
    cluster.set_policy()
    cluster.give("m0", "Commit", "Committed")
    cluster.give("m1")
    cluster.set_lock("m0")
    (write,) = cluster.find(WriteLock)
    assert (write.freed, write.granted, write.resource_version) == (("m0",), ("m1",), "1")


def test_rule_1_a_machine_that_still_holds_another_lock_is_not_counted_as_back(cluster: Any) -> None:
    cluster.add("m0", version="2.0.0")
    cluster.add("m1")
    cluster.set_policy()
    cluster.give("m0", "Commit", "Committed")
    cluster.give("m1")
    cluster.set_lock("m0", limit=2)
    cluster.set_lock(name="other", limit=2, holders=(Holder("m0", cluster.at - 60, by="zoe"),))
    (write,) = cluster.find(WriteLock)
    assert (write.freed, write.granted) == (("m0",), ())
    assert cluster.reason("m1") == ("Waiting", "BudgetSpent")


def test_rule_1_nothing_is_granted_while_a_locks_write_is_on_its_way(cluster: Any) -> None:
    staged(cluster, "m0")
    cluster.facts["busy"] = frozenset({("RebootLock", "other")})
    assert not cluster.find(WriteLock)


def test_rule_1_no_action_touches_a_busy_object_and_none_gets_two(cluster: Any) -> None:
    staged(cluster, "m0", "m1", limit=2, max_unavailable=2)
    cluster.facts["busy"] = frozenset({("Node", "m0")})
    touched = [target(action) for action in cluster.plan().actions]
    assert ("Node", "m0") not in touched
    assert len(touched) == len(set(touched))


# Rule 2: the fence.


def test_rule_2_nothing_is_granted_under_another_term(cluster: Any) -> None:
    staged(cluster, "m0")
    cluster.facts["term"] = 2
    (write,) = cluster.find(WriteLock)
    assert (write.term, write.granted) == (2, ())


def test_rule_2_a_lock_of_a_successor_is_left_alone(cluster: Any) -> None:
    staged(cluster, "m0")
    cluster.set_lock(term=7)
    assert not cluster.find(WriteLock)


# Rule 4: giving back.


@pytest.mark.parametrize("why", ["paused", "machine paused", "halted", "silent", "switch", "another release"])
def test_rule_4_before_activate_abort_comes_first_then_uncordon_then_release(cluster: Any, why: str) -> None:
    staged(cluster, "m0")
    drained(cluster)
    match why:
        case "paused":
            cluster.policies["os"] = replace(cluster.policies["os"], paused=True)
        case "machine paused":
            cluster.change("m0", paused=True)
        case "halted":
            cluster.store_rollout(halted_at=cluster.at, failed=1)
        case "silent":
            cluster.facts["silent"] = frozenset({"m0"})
        case "switch":
            cluster.facts["paused"] = True
        case "another release":
            cluster.policies["os"] = replace(cluster.policies["os"], version="3.0.0")
    (abort,) = cluster.find(SetOrder)
    assert (abort.order.goal, abort.order.cause) == ("Abort", "Withdrawn")
    assert not cluster.find(Uncordon)
    assert not cluster.find(WriteLock)
    cluster.change("m0", order=abort.order)
    assert cluster.find(Uncordon)
    assert not cluster.find(WriteLock)
    cluster.change_core("m0", unschedulable=False, cordoned_for=None)
    assert [write.freed for write in cluster.find(WriteLock)] == [("m0",)]


def test_rule_4_a_drain_that_does_not_end_is_given_up(cluster: Any) -> None:
    staged(cluster, "m0")
    drained(cluster)
    cluster.pods["m0"] = (Pod("apps", "web", "pod-1", "m0", deleting=True),)
    cluster.note("m0", "Draining", "Draining", cluster.at - 60)
    cluster.at += 3539
    assert not cluster.find(SetOrder)
    cluster.at += 1
    (abort,) = cluster.find(SetOrder)
    assert (abort.order.goal, abort.order.cause) == ("Abort", "Withdrawn")


def test_rule_4_an_old_drain_does_not_shorten_this_one(cluster: Any) -> None:
    staged(cluster, "m0")
    drained(cluster)
    cluster.pods["m0"] = (Pod("apps", "web", "pod-1", "m0", deleting=True),)
    cluster.note("m0", "Draining", "Draining", cluster.at - 9000)
    assert not cluster.find(SetOrder)
    assert [note.note.since for note in cluster.find(WriteNote)] == [cluster.at]


@pytest.mark.parametrize(
    ("phase", "acknowledged", "freed"),
    [
        ("Activating", False, False),
        ("Verifying", False, False),
        ("Staged", False, True),
        ("Idle", True, True),
        ("RolledBack", True, True),
        ("Failed", True, True),
    ],
)
def test_rule_4_after_activate_the_lock_stays_until_the_abort_is_answered(
    cluster: Any, phase: str, acknowledged: bool, freed: bool
) -> None:
    cluster.add("m0")
    cluster.set_policy()
    cluster.give("m0", "Abort", phase, cause="Withdrawn", acknowledged=acknowledged)
    cluster.set_lock("m0")
    assert bool([write for write in cluster.find(WriteLock) if write.freed]) == freed


def test_rule_4_paused_machines_in_flight_finish(cluster: Any) -> None:
    on_trial(cluster, paused=True)
    assert [action.order.goal for action in cluster.find(SetOrder)] == ["Commit"]


# Rules 6 to 8: verdicts, silence, causes.


def test_rule_6_no_word_about_another_order_is_a_verdict(cluster: Any) -> None:
    on_trial(cluster)
    cluster.change("m0", step=Step("another-order", "Commit", "Committed"))
    assert not [write for write in cluster.find(WriteLock) if write.freed]


def test_rule_7_gates_that_never_pass_end_in_an_abort(cluster: Any) -> None:
    on_trial(cluster)
    cluster.change_core("m0", ready=False)
    order = cluster.machines["m0"].order.id
    cluster.facts["verifying_since"] = {order: cluster.at - 599}
    assert not cluster.find(SetOrder)
    cluster.facts["verifying_since"] = {order: cluster.at - 600}
    (abort,) = cluster.find(SetOrder)
    assert (abort.order.goal, abort.order.cause) == ("Abort", "GateFailed")


def test_rule_7_a_gap_of_the_watch_starts_the_time_anew(cluster: Any) -> None:
    on_trial(cluster)
    cluster.change_core("m0", ready=False)
    cluster.facts["verifying_since"] = {}
    assert not cluster.find(SetOrder)


def test_rule_7_a_silent_trial_is_not_committed(cluster: Any) -> None:
    on_trial(cluster)
    cluster.facts["silent"] = frozenset({"m0"})
    assert not cluster.find(SetOrder)


@pytest.mark.parametrize(("cause", "lost"), [("Interrupted", 0), ("TrialLost", 1), ("JournalLost", 1)])
def test_rule_8_a_lost_trial_gets_one_more_attempt(cluster: Any, cause: str, lost: int) -> None:
    cluster.add("m0")
    cluster.set_policy()
    before = cluster.give("m0", "Activate", "RolledBack", step_cause=cause)
    cluster.set_lock()
    (again,) = cluster.find(SetOrder)
    assert again.order.goal == "Stage"
    assert (again.order.attempt, again.order.lost_attempts) == (1, lost)
    assert again.order.id != before.id


def test_rule_8_people_abort_one_machine_and_the_rollout_goes_on(cluster: Any) -> None:
    on_trial(cluster)
    cluster.change("m0", abort=cluster.machines["m0"].order.id)
    (abort,) = cluster.find(SetOrder)
    assert (abort.order.goal, abort.order.cause) == ("Abort", "People")


def test_rule_8_an_abort_of_an_older_order_has_no_effect(cluster: Any) -> None:
    on_trial(cluster)
    cluster.change("m0", abort="an-older-order")
    assert [action.order.goal for action in cluster.find(SetOrder)] == ["Commit"]


# Rule 9: release on evidence, adoption.


@pytest.mark.parametrize(
    ("trouble", "freed"),
    [
        ({}, True),
        ({"ready": False}, False),
        ({"boot_id": "boot-before"}, False),
        ({"unschedulable": True}, True),
    ],
)
def test_rule_9_no_worse_than_at_the_grant(cluster: Any, trouble: dict[str, Any], freed: bool) -> None:
    cluster.add("m0", version="2.0.0")
    cluster.set_policy()
    cluster.give("m0", "Commit", "Committed")
    cluster.set_lock("m0")
    cluster.change_core("m0", **trouble)
    assert bool([write for write in cluster.find(WriteLock) if write.freed]) == freed


def test_rule_9_a_machine_that_was_broken_at_the_grant_may_stay_so(cluster: Any) -> None:
    cluster.add("m0", version="2.0.0", ready=False)
    cluster.set_policy()
    cluster.give("m0", "Commit", "Committed")
    cluster.set_lock(holders=(replace(cluster.holder("m0"), unavailable_at_grant=True),))
    assert [write.freed for write in cluster.find(WriteLock)] == [("m0",)]


@pytest.mark.parametrize(("trouble", "stored"), [({"ready": False}, True), ({"unschedulable": True}, False)])
def test_rule_9_a_machine_that_people_had_only_cordoned_must_be_ready_again(
    cluster: Any, trouble: dict[str, Any], stored: bool
) -> None:
    staged(cluster, "m0")
    cluster.change_core("m0", **trouble)
    (write,) = cluster.find(WriteLock)
    assert [holder.unavailable_at_grant for holder in write.holders] == [stored]


@pytest.mark.parametrize(("begun", "silent", "freed"), [(-100.0, False, False), (0.0, False, True), (0.0, True, False)])
def test_rule_9_another_release_may_cure_a_machine_that_did_not_become_ready(
    cluster: Any, begun: float, silent: bool, freed: bool
) -> None:
    cluster.add("m0", "m1", version="2.0.0")
    cluster.set_policy()
    cluster.give("m0", "Commit", "Committed")
    cluster.set_lock("m0")
    cluster.change_core("m0", ready=False)
    cluster.set_policy("3.0.0")
    cluster.store_rollout(started_at=cluster.at + begun)
    cluster.facts["silent"] = frozenset({"m0"} if silent else ())
    assert bool([write for write in cluster.find(WriteLock) if write.freed]) == freed


def test_rule_9_the_cordon_goes_first(cluster: Any) -> None:
    cluster.add("m0", version="2.0.0")
    cluster.set_policy()
    cluster.give("m0", "Commit", "Committed")
    drained(cluster)
    assert cluster.find(Uncordon)
    assert not cluster.find(WriteLock)


def test_rule_9_a_lock_that_lost_its_holders_is_completed_before_any_grant(cluster: Any) -> None:
    cluster.add("m0", "m1")
    cluster.set_policy()
    cluster.give("m0", "Activate", "Activating")
    cluster.give("m1")
    cluster.set_lock(term=0)
    (write,) = cluster.find(WriteLock)
    assert [holder.id for holder in write.holders] == ["m0"]
    assert write.granted == ()


def test_rule_9_adoption_may_exceed_max(cluster: Any) -> None:
    cluster.add("m0", "m1")
    cluster.set_policy()
    for name in ("m0", "m1"):
        cluster.give(name, "Activate", "Activating")
    cluster.set_lock(limit=1)
    (write,) = cluster.find(WriteLock)
    assert [holder.id for holder in write.holders] == ["m0", "m1"]


def test_rule_9_holders_of_people_are_theirs(cluster: Any) -> None:
    cluster.add("m0")
    cluster.set_policy()
    cluster.give("m0")
    cluster.set_lock(holders=(Holder("zoe", cluster.at - 9999, by="zoe"),))
    assert not cluster.find(WriteLock)
    assert cluster.reason("m0") == ("Waiting", "LockFull")


def test_rule_9_a_lock_held_by_people_in_a_machines_name_keeps_it_waiting_and_says_so(cluster: Any) -> None:
    staged(cluster, "m0", limit=2)
    cluster.set_lock(limit=2, holders=(Holder("m0", cluster.at - 60, by="zoe"),))
    assert not cluster.find(WriteLock)
    (told,) = cluster.plan().explanations
    assert (told.state, told.reason) == ("Waiting", "LockFull")
    assert told.message == "zoe holds RebootLock default in the name of m0"


def test_a_lock_that_people_resized_shows_what_is_available(cluster: Any) -> None:
    staged(cluster, "m0")
    cluster.set_lock(limit=0, generation=2)
    (write,) = cluster.find(WriteLock)
    assert (write.generation, write.max, write.granted) == (2, 0, ())
    assert encode_lock_status(cluster.locks["default"], write, cluster.at)["conditions"][0]["reason"] == "LockFull"
    cluster.set_lock(limit=0, generation=2, observed_generation=2)
    assert not cluster.find(WriteLock)


def test_rule_9_a_missing_lock_refuses_all(cluster: Any) -> None:
    staged(cluster, "m0")
    cluster.locks.clear()
    assert cluster.reason("m0") == ("Waiting", "LockMissing")


# Gone, and registered anew.


@pytest.mark.parametrize("how", ["absent", "another machine"])
def test_a_machine_that_is_gone_loses_its_node_and_then_its_lock(cluster: Any, how: str) -> None:
    cluster.add("m0")
    cluster.set_policy()
    cluster.give("m0", "Activate", "Activating")
    cluster.set_lock("m0")
    if how == "absent":
        del cluster.cores["m0"]
    else:
        cluster.change_core("m0", uid="core-new", machine_id="id-new")
    assert [(action.name, action.uid) for action in cluster.find(DeleteNode)] == [("m0", "uid-m0")]
    assert not cluster.find(WriteLock)
    del cluster.machines["m0"]
    assert [write.freed for write in cluster.find(WriteLock)] == [("m0",)]


def test_the_same_machine_under_a_new_uid_is_keyed_anew(cluster: Any) -> None:
    cluster.add("m0")
    cluster.set_policy()
    cluster.give("m0", "Activate", "Activating")
    cluster.set_lock("m0")
    cluster.change_core("m0", uid="core-new")
    assert not cluster.find(DeleteNode)
    assert [action.core_uid for action in cluster.find(RekeyNode)] == ["core-new"]
    (write,) = cluster.find(WriteLock)
    assert [(holder.id, holder.core_node_uid) for holder in write.holders] == [("m0", "core-new")]


def test_a_node_that_was_deleted_is_made_again_and_its_holder_stays(cluster: Any) -> None:
    cluster.add("m0", "m1")
    cluster.set_policy(max_unavailable=1)
    cluster.give("m0", "Activate", "Activating")
    cluster.give("m1")
    cluster.set_lock("m0", limit=2)
    del cluster.machines["m0"]
    assert cluster.find(CreateNode)
    assert not cluster.find(WriteLock), "m0 holds on, and counts as down for m1"
    assert cluster.reason("m1") == ("Waiting", "BudgetSpent")


# Rule 10: an order that its Node forgot.


def orphan(cluster: Any, phase: str) -> str:
    cluster.add("m0")
    cluster.set_policy()
    order = cluster.give("m0", "Activate", phase, attempt=3)
    cluster.set_lock("m0")
    cluster.change("m0", order=None, uid="uid-again")
    return str(order.id)


def test_rule_10_the_same_order_is_issued_again(cluster: Any) -> None:
    order = orphan(cluster, "Verifying")
    (again,) = cluster.find(SetOrder)
    assert (again.order.id, again.order.goal, again.order.attempt) == (order, "Activate", 3)
    assert not [write for write in cluster.find(WriteLock) if write.freed]


def test_rule_10_or_an_abort_when_nobody_wants_it_any_more(cluster: Any) -> None:
    order = orphan(cluster, "Verifying")
    cluster.policies.clear()
    (abort,) = cluster.find(SetOrder)
    assert (abort.order.id, abort.order.goal, abort.order.cause) == (order, "Abort", "Withdrawn")


def test_rule_10_an_id_never_comes_back(cluster: Any) -> None:
    """The journal knows how an id ended; an order under it would be answered with that for ever."""
    cluster.add("m0")
    cluster.set_policy()
    old = cluster.give("m0", "Abort", "Idle", cause="Withdrawn", unarmed=True)
    cluster.set_lock()
    (again,) = cluster.find(SetOrder)
    assert (again.order.goal, again.order.attempt) == ("Stage", 1)
    assert again.order.id != old.id
    # The Node was made again, and its agent tells how the last order ended.
    cluster.change("m0", order=None)
    (again,) = cluster.find(SetOrder)
    assert again.order.id != old.id
    # Even so it came back: the agent answers at once that it has ended, and the next one is tried.
    cluster.give("m0", "Stage", "Idle")
    (again,) = cluster.find(SetOrder)
    assert again.order.id != old.id


def test_rule_10_attempts_count_on_after_an_order_that_was_called_off_nameless(cluster: Any) -> None:
    cluster.add("m0")
    cluster.set_policy()
    cluster.set_lock()
    ended = cluster.give("m0", "Abort", "Committed", attempt=4, cause="Withdrawn", rollout="unknown", id="a-reboot")
    assert ended.attempt == 4
    (again,) = cluster.find(SetOrder)
    assert (again.order.goal, again.order.attempt) == ("Stage", 5)


def test_rule_10_attempts_count_on_across_rollouts(cluster: Any) -> None:
    cluster.add("m0")
    cluster.set_policy()
    cluster.give("m0", "Abort", "Idle", cause="Withdrawn", attempt=4, unarmed=True)
    cluster.policies["os"] = replace(cluster.policies["os"], version="3.0.0")
    cluster.store_rollout()
    cluster.set_lock()
    assert [action.order.attempt for action in cluster.find(SetOrder)] == [5]


# Rule 13, marks, and the rest of section 5.


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


def test_rule_10_a_trial_that_journal_and_node_forgot_is_taken_over_under_the_lock(cluster: Any) -> None:
    cluster.add("m0")
    cluster.set_policy()
    cluster.give("m0", "Stage", "Verifying")
    cluster.set_lock()
    assert [write.granted for write in cluster.find(WriteLock)] == [("m0",)]
    drained(cluster)
    (activate,) = cluster.find(SetOrder)
    # Another boot than the agent's: so it knows that the boot it runs in is the trial.
    assert (activate.order.goal, activate.order.from_boot_id) == ("Activate", "unknown")


# Waits that nobody would see otherwise (invariant 10).


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


def test_a_lock_is_taken_back_from_a_machine_that_fell_silent_before_it_took_the_order(cluster: Any) -> None:
    cluster.add("m0")
    cluster.set_policy()
    cluster.give("m0", "Activate", "Staged", acknowledged=False)
    cluster.set_lock("m0")
    assert not cluster.find(SetOrder)
    cluster.facts["silent"] = frozenset({"m0"})
    (abort,) = cluster.find(SetOrder)
    assert (abort.order.goal, abort.order.cause) == ("Abort", "Withdrawn")


def test_a_machine_that_keeps_its_lock_because_it_is_not_ready_says_so(cluster: Any) -> None:
    cluster.add("m0")
    cluster.set_policy()
    cluster.give("m0", "Activate", "RolledBack", step_cause="Panic")
    cluster.set_lock("m0")
    cluster.change_core("m0", ready=False)
    assert cluster.reason("m0") == ("Returning", "NodeNotReady")
    assert [note.note.reason for note in cluster.find(WriteNote)] == ["NodeNotReady"]


def test_a_lock_that_is_gone_is_not_replaced_by_a_strangers(cluster: Any) -> None:
    cluster.add("m0")
    cluster.set_policy()
    cluster.give("m0", "Activate", "Activating")
    cluster.set_lock(name="another")
    assert not [write for write in cluster.find(WriteLock) if write.holders]


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


def test_a_holder_whose_slot_went_bad_gives_the_lock_back(cluster: Any) -> None:
    cluster.add("m0")
    cluster.set_policy()
    order = cluster.give("m0", phase="Staged")
    cluster.set_lock("m0")
    cluster.change_core("m0", unschedulable=True, cordoned_for=order.id)
    cluster.change("m0", step=Step(order.id, "Stage", "Failed", None, "Transfer", "the mirror is down"))
    (abort,) = cluster.find(SetOrder)
    assert (abort.order.goal, abort.order.cause) == ("Abort", "Withdrawn")
    explanation = next(iter(cluster.plan().explanations))
    assert (explanation.reason, explanation.message) == ("StagingFailed", "the mirror is down")


def test_an_order_is_activated_under_the_lock_of_its_terms(cluster: Any) -> None:
    cluster.add("m0", "m1")
    cluster.set_policy()
    cluster.set_lock(limit=0)
    cluster.set_lock(limit=1, name="racks")
    cluster.give("m0", phase="Staged")
    policy = cluster.policies["os"]
    cluster.policies["os"] = replace(policy, terms=replace(policy.terms, lock="racks"))
    assert not cluster.find(WriteLock)
    assert cluster.reason("m0") == ("Waiting", "LockFull")


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
