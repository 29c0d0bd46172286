"""The plan and the reboot locks: granted in one write, fenced, released on evidence, adopted (rules 1, 2 and 9)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from careen.core.actions import (
    CreateNode,
    DeleteNode,
    RekeyNode,
    SetOrder,
    Uncordon,
    WriteLock,
    WriteNote,
    target,
)
from careen.core.encode import encode_lock_status
from careen.core.snapshot import Holder, Step
from plans import drained, staged


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


def test_rule_2_nothing_is_granted_under_another_term(cluster: Any) -> None:
    staged(cluster, "m0")
    cluster.facts["term"] = 2
    (write,) = cluster.find(WriteLock)
    assert (write.term, write.granted) == (2, ())


def test_rule_2_a_lock_of_a_successor_is_left_alone(cluster: Any) -> None:
    staged(cluster, "m0")
    cluster.set_lock(term=7)
    assert not cluster.find(WriteLock)


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
