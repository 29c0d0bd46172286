"""The plan and an order's end: given back, judged, silent, tried again, forgotten (rules 4, 6 to 8 and 10)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from careen.core.actions import (
    SetOrder,
    Uncordon,
    WriteLock,
    WriteNote,
)
from careen.core.pods import Pod
from careen.core.snapshot import Step
from plans import drained, on_trial, staged


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
