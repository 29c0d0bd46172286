"""Reboots and resets that people ask for (design.md section 4 rule 16)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from careen.core.actions import Cordon, SetOrder, Uncordon, WriteLock, WriteOutcome, WritePolicy
from careen.core.encode import encode_order
from careen.core.forecast import foresee
from careen.core.lines import Line, read_line
from careen.core.releases import NO_RELEASE
from careen.core.requests import DEFAULT_TERMS, request_order_id
from careen.core.snapshot import Step
from careen.core.wishes import Request
from reboots import REBOOT, asked, ended, holding, under_order


@pytest.mark.parametrize("policy", [True, False])
def test_a_request_becomes_an_order_without_a_release(cluster: Any, policy: bool) -> None:
    asked(cluster, "m0", policy=policy)
    (given,) = cluster.find(SetOrder)
    order = given.order
    assert (order.goal, order.request, order.release, order.rollout) == ("Stage", REBOOT, NO_RELEASE, "")
    assert order.policy == ("os" if policy else "")
    body = encode_order(order)
    assert body["request"] == {"action": "Reboot", "id": "r1"}
    assert not {"release", "rollout"} & set(body)


def test_a_machine_without_a_policy_has_clear_terms(cluster: Any) -> None:
    asked(cluster, "m0", policy=False)
    (given,) = cluster.find(SetOrder)
    terms = given.order.terms
    assert (terms.lock, terms.drain_timeout_seconds, terms.verify_timeout_seconds) == ("default", 3600, 600)
    assert (terms.ready_seconds, terms.boot_method) == (0, "Auto")


def test_the_policys_terms_and_the_machines_method_are_frozen_into_the_order(cluster: Any) -> None:
    asked(cluster, "m0")
    cluster.policies["os"] = replace(cluster.policies["os"], terms=replace(DEFAULT_TERMS, lock="rack", ready_seconds=7))
    cluster.set_lock(name="rack")
    cluster.change("m0", boot_method="Firmware")
    (given,) = cluster.find(SetOrder)
    assert (given.order.terms.lock, given.order.terms.ready_seconds) == ("rack", 7)
    assert given.order.terms.boot_method == "Firmware"


def test_the_orders_id_is_made_of_machine_request_and_attempt(cluster: Any) -> None:
    asked(cluster, "m0")
    first = cluster.find(SetOrder)[0].order.id
    assert first == cluster.find(SetOrder)[0].order.id
    cluster.change("m0", request=Request("Reboot", "r2"))
    second = cluster.find(SetOrder)[0].order.id
    cluster.change_core("m0", uid="another")
    cluster.change("m0", core_uid="another")
    third = cluster.find(SetOrder)[0].order.id
    assert len({first, second, third}) == 3


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("switch", "ClusterPaused"), ("policy", "Paused"), ("machine", "Paused"), ("conflict", "PolicyConflict"),
        ("silent", "AgentSilent"), ("lock", "LockMissing"), ("lock paused", "LockPaused"),
    ],
)  # fmt: skip
def test_what_stops_an_update_stops_a_request(cluster: Any, what: str, reason: str) -> None:
    asked(cluster, "m0")
    match what:
        case "switch":
            cluster.facts["paused"] = True
        case "policy":
            cluster.policies["os"] = replace(cluster.policies["os"], paused=True)
        case "machine":
            cluster.change("m0", paused=True)
        case "conflict":
            cluster.set_policy(name="rival")
        case "silent":
            cluster.facts["silent"] = frozenset({"m0"})
        case "lock":
            cluster.locks.clear()
        case _:
            cluster.set_lock(paused=True)
    assert not cluster.find(SetOrder)
    assert cluster.reason("m0") == ("Waiting", reason)


@pytest.mark.parametrize("what", ["halted", "rejected", "later wave", "no deadman"])
def test_what_is_about_the_release_does_not_stop_a_request(cluster: Any, what: str) -> None:
    asked(cluster, "m0")
    if what == "halted":
        cluster.store_rollout(halted_at=cluster.at)
    if what == "rejected":
        cluster.change("m0", rejected=(("sha256:" + "2" * 64, 0),))
    if what == "no deadman":
        cluster.change("m0", deadman="Missing")
    under_order(cluster)
    (write,) = cluster.find(WriteLock)
    assert write.granted == ("m0",)


def test_the_lock_then_cordon_then_activate(cluster: Any) -> None:
    asked(cluster, "m0")
    order = under_order(cluster)
    (write,) = cluster.find(WriteLock)
    assert (write.granted, write.holders[0].order) == (("m0",), order.id)
    cluster.set_lock("m0")
    assert cluster.find(Cordon)[0].order == order.id
    holding(cluster)
    (given,) = cluster.find(SetOrder)
    assert (given.order.goal, given.order.from_boot_id, given.order.id) == ("Activate", "boot-m0", order.id)
    assert given.turn.message == "reboots (r1)"


def test_requests_and_updates_share_lock_and_budgets(cluster: Any) -> None:
    cluster.add("m0", "m1")
    cluster.set_policy()
    cluster.give("m1")
    cluster.change("m0", request=REBOOT)
    under_order(cluster)
    cluster.set_lock(limit=5)
    (write,) = cluster.find(WriteLock)
    assert write.granted == ("m0",), "what people ask for by name goes first, and maxUnavailable is 1"
    assert cluster.reason("m1") == ("Waiting", "BudgetSpent")


@pytest.mark.parametrize(("goal", "phase"), [("Activate", "Activating"), ("Activate", "Verifying")])
def test_an_update_that_is_armed_or_on_trial_goes_first(cluster: Any, goal: str, phase: str) -> None:
    cluster.add("m0")
    cluster.set_policy()
    cluster.give("m0", goal, phase)
    holding(cluster)
    cluster.change("m0", request=Request("Reset", "r1"))
    assert not [given for given in cluster.find(SetOrder) if given.order.request is not None]


def test_an_update_that_holds_the_lock_goes_first(cluster: Any) -> None:
    cluster.add("m0")
    cluster.set_policy()
    update = cluster.give("m0")
    holding(cluster)
    cluster.change("m0", request=REBOOT)
    (given,) = cluster.find(SetOrder)
    assert (given.order.id, given.order.goal) == (update.id, "Activate")


def test_an_update_that_is_only_staged_gives_way(cluster: Any) -> None:
    cluster.add("m0")
    cluster.set_policy()
    update = cluster.give("m0", attempt=4)
    cluster.set_lock()
    cluster.change("m0", request=REBOOT)
    (given,) = cluster.find(SetOrder)
    assert (given.order.request, given.order.attempt, given.order.goal) == (REBOOT, update.attempt + 1, "Stage")
    assert not cluster.find(WriteLock)


def test_back_and_ready_it_is_committed_and_then_told(cluster: Any) -> None:
    asked(cluster, "m0")
    under_order(cluster, "Activate", "Verifying")
    holding(cluster)
    (given,) = cluster.find(SetOrder)
    assert given.order.goal == "Commit"
    under_order(cluster, "Commit", "Committed")
    (told,) = cluster.find(WriteOutcome)
    assert (told.outcome.request, told.outcome.outcome, told.turn.reason) == (REBOOT, "Done", "Rebooted")
    assert cluster.find(Uncordon)


def test_the_lock_goes_back_when_the_machine_is_as_before(cluster: Any) -> None:
    asked(cluster, "m0")
    under_order(cluster, "Commit", "Committed")
    cluster.set_lock("m0")
    cluster.change_core("m0", ready=False)
    assert not cluster.find(WriteLock)
    cluster.change_core("m0", ready=True)
    assert cluster.find(WriteLock)[0].freed == ("m0",)


@pytest.mark.parametrize(("request_now", "freed"), [(REBOOT, False), (Request("Reset", "r2"), True)])
def test_another_request_may_cure_a_machine_that_did_not_become_ready(
    cluster: Any, request_now: Request, freed: bool
) -> None:
    asked(cluster, "m0")
    under_order(cluster, "Commit", "Committed")
    cluster.set_lock("m0")
    cluster.change_core("m0", ready=False)
    ended(cluster)
    cluster.change("m0", request=request_now)
    assert bool([write for write in cluster.find(WriteLock) if write.freed]) == freed


def test_no_order_follows_before_the_outcome_is_stored(cluster: Any) -> None:
    asked(cluster, "m0")
    cluster.set_policy("3.0.0")
    under_order(cluster, "Commit", "Committed")
    assert not cluster.find(SetOrder)
    ended(cluster)
    (given,) = cluster.find(SetOrder)
    assert (given.order.request, given.order.release.version, given.order.attempt) == (None, "3.0.0", 1)


def test_an_id_is_done_once_and_another_id_asks_again(cluster: Any) -> None:
    asked(cluster, "m0")
    under_order(cluster, "Commit", "Committed")
    ended(cluster)
    assert not cluster.find(SetOrder)
    cluster.change("m0", request=Request("Reset", "r2"))
    (given,) = cluster.find(SetOrder)
    assert (given.order.request, given.order.attempt) == (Request("Reset", "r2"), 1)


@pytest.mark.parametrize(
    ("goal", "phase", "cause", "order_cause", "error", "outcome"),
    [
        ("Abort", "Committed", "GateFailed", "GateFailed", None, "Failed"),
        ("Commit", "Committed", "LocalGate", None, None, "Failed"),
        ("Abort", "Committed", "People", "People", None, "Done"),
        ("Abort", "Committed", "Withdrawn", "Withdrawn", None, "Done"),
        ("Commit", "Committed", None, None, "did not obey", "Failed"),
        ("Activate", "Failed", None, None, "kexec: refused", "Failed"),
        ("Activate", "RolledBack", "JournalLost", None, None, "Failed"),
        ("Activate", "RolledBack", "Interrupted", None, None, None),
        ("Abort", "Idle", "People", "People", None, "Aborted"),
        ("Abort", "Idle", "Withdrawn", "Withdrawn", None, None),
    ],
)
def test_what_came_of_it(
    cluster: Any, goal: str, phase: str, cause: str | None, order_cause: str | None, error: str | None,
    outcome: str | None,
) -> None:  # fmt: skip
    asked(cluster, "m0")
    first = under_order(cluster, goal, phase, cause=cause, error=error)
    cluster.change("m0", order=replace(first, cause=order_cause))
    told = cluster.find(WriteOutcome)
    assert [write.outcome.outcome for write in told] == ([outcome] if outcome else [])
    if outcome is None:
        (given,) = cluster.find(SetOrder)
        assert (given.order.request, given.order.attempt) == (REBOOT, 1), "nothing came of it: once more"


def test_not_healthy_in_time_is_a_failure_of_the_request_and_of_no_rollout(cluster: Any) -> None:
    asked(cluster, "m0")
    order = under_order(cluster, "Activate", "Verifying")
    holding(cluster)
    cluster.change_core("m0", ready=False)
    cluster.facts["verifying_since"] = {order.id: cluster.at - 601}
    (given,) = cluster.find(SetOrder)
    assert (given.order.goal, given.order.cause) == ("Abort", "GateFailed")
    cluster.change("m0", order=given.order, step=Step(order.id, "Abort", "Committed", "GateFailed"))
    progress = cluster.assess()
    assert (progress.rollout.failed, progress.rollout.halted_at) == (0, None)


@pytest.mark.parametrize("request_now", [None, Request("Reset", "r2")])
def test_taken_back_before_it_began_it_is_called_off(cluster: Any, request_now: Request | None) -> None:
    asked(cluster, "m0")
    under_order(cluster)
    holding(cluster)
    cluster.change("m0", request=request_now)
    (given,) = cluster.find(SetOrder)
    assert (given.order.goal, given.order.cause) == ("Abort", "Withdrawn")


def test_aborted_by_its_id_it_is_not_tried_again(cluster: Any) -> None:
    asked(cluster, "m0")
    order = under_order(cluster)
    cluster.change("m0", abort=order.id)
    (given,) = cluster.find(SetOrder)
    assert (given.order.goal, given.order.cause) == ("Abort", "People")
    cluster.change("m0", order=given.order)
    assert cluster.find(WriteOutcome)[0].outcome.outcome == "Aborted"
    assert not cluster.find(SetOrder)


def test_a_pause_gives_the_lock_back_and_the_request_stays_asked_for(cluster: Any) -> None:
    asked(cluster, "m0")
    under_order(cluster)
    holding(cluster)
    cluster.change("m0", paused=True)
    (given,) = cluster.find(SetOrder)
    assert given.order.cause == "Withdrawn"
    cluster.change("m0", order=given.order)
    assert not cluster.find(WriteOutcome)


def test_a_completed_rollout_stays_complete_over_a_reboot(cluster: Any) -> None:
    asked(cluster, "m0")
    under_order(cluster, "Activate", "Activating")
    holding(cluster)
    (write,) = cluster.find(WritePolicy)
    told = {name: status for name, status, _, _ in write.state.conditions}
    assert (told["Complete"], dict(write.state.counts)["updated"]) == ("True", 1)


def line_of(cluster: Any, name: str = "m0") -> Line:
    return read_line(cluster.machines[name], {}, cluster.locks.values())


def test_people_see_the_request_in_the_machines_line(cluster: Any) -> None:
    asked(cluster, "m0")
    under_order(cluster)
    assert (line_of(cluster).wanted, line_of(cluster).reason) == ("reboot", "Requested")
    under_order(cluster, "Activate", "Activating")
    holding(cluster)
    assert (line_of(cluster).reason, line_of(cluster).message) == ("Activating", "reboots")
    under_order(cluster, "Activate", "Verifying", request=Request("Reset", "r1"))
    assert line_of(cluster).message == "the reset is being checked"


@pytest.mark.parametrize(
    ("goal", "phase", "action", "message"),
    [
        ("Stage", "Staged", "activate", "is reset and reboots"),
        ("Activate", "Verifying", "commit", "marks the reset done"),
    ],
)
def test_a_dry_run_foresees_it(cluster: Any, goal: str, phase: str, action: str, message: str) -> None:
    reset = Request("Reset", "r1")
    asked(cluster, "m0", request=reset)
    under_order(cluster, goal, phase, request=reset)
    holding(cluster)
    steps = {(step.action, step.message) for step in foresee(cluster.snapshot(), "os", cluster.at).steps}
    assert (action, message) in steps


@pytest.mark.parametrize("remade", [False, True])
def test_an_id_does_not_come_back_after_an_order_that_was_called_off_unseen(cluster: Any, remade: bool) -> None:
    """The agent has an older order open; calling that off must not make the next one begin to count anew."""
    asked(cluster, "m0")
    core = cluster.cores["m0"].uid
    old, later = (request_order_id(core, REBOOT.id, attempt) for attempt in (1, 2))
    under_order(cluster, id=later, attempt=2)
    cluster.change("m0", step=Step(old, "Activate", "Verifying"))
    if remade:
        cluster.change("m0", order=None, uid="uid-again")
    (abort,) = cluster.find(SetOrder)
    assert (abort.order.id, abort.order.goal, abort.order.attempt) == (old, "Abort", 1 if remade else 2)
