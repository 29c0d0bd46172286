"""The boot after a trial, and orders whose journal or Node was lost: what became of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent_views import (
    NEW,
    PLACE,
    STAGED,
    TRIAL,
    A,
    B,
    closed,
    node,
    old_boot,
    opened,
    order_document,
    quiet,
    returned,
    settle,
    shown,
    slot_a,
    slot_b,
    told,
    trial_boot,
    with_open,
)
from careen.agent.record import Ended, Fault, Journal, Rejection, Stage
from careen.agent.step import (
    BootView,
    Disarm,
    DiskView,
    VerifySlot,
    Wait,
    WriteJournal,
    WriteStatus,
    next_step,
)
from careen.disk.types import GIVEN_UP, Attributes


@pytest.mark.parametrize(
    ("journal", "reset", "cause"),
    [
        (with_open(stage=Stage.ARMED), None, "Interrupted"),
        (with_open(stage=Stage.ARMED), "Panic", "Interrupted"),
        (with_open(), None, "TrialLost"),
        (with_open(), "Panic", "Panic"),
        (with_open(), "Watchdog", "Watchdog"),
        (with_open(verdict="ROLLBACK", cause="LocalGate"), None, "LocalGate"),
        (with_open(verdict="ROLLBACK", cause="Silence"), "Panic", "Silence"),
        (with_open(verdict="COMMIT"), None, "Interrupted"),
        (with_open(verdict="COMMIT"), "Panic", "Interrupted"),
    ],
)
def test_the_cause_of_a_return(journal: Journal, reset: Any, cause: str) -> None:
    view = returned(order_document("Activate"), journal, boot=BootView("boot-2", "m-id", reset=reset))
    step = next_step(view)
    if journal.open and journal.open.cause is None:
        # Into the journal at once: the reason can be read in this boot only.
        assert isinstance(step, WriteJournal)
        assert step.journal.open
        view = replace(view, journal=step.journal, boot=replace(view.boot, reset=None))
        step = next_step(view)
    end = closed(step)
    assert (end.phase, end.cause, end.verdict) == ("RolledBack", cause, "ROLLBACK")


@pytest.mark.parametrize(
    ("cause", "lost", "rejected"),
    [
        ("Panic", 0, True), ("Watchdog", 0, True), ("LocalGate", 0, True), ("GateFailed", 0, True),
        ("Silence", 0, True), ("People", 0, True), ("Withdrawn", 0, False), ("Interrupted", 5, False),
        ("TrialLost", 0, False), ("TrialLost", 1, True), ("JournalLost", 0, False), ("JournalLost", 1, True),
    ],
)  # fmt: skip
def test_which_causes_reject_the_digest(cause: Any, lost: int, rejected: bool) -> None:
    journal = with_open(verdict="ROLLBACK", cause=cause, lost_attempts=lost)
    view = replace(returned(None, journal), node=node(order_document("Activate"), retry=4))
    step = next_step(view)
    assert isinstance(step, WriteJournal)
    assert step.journal.rejected == ((Rejection(NEW, cause, 4),) if rejected else ())
    after = quiet(replace(view, journal=step.journal)).node
    assert after is not None
    assert after.status.get("rejected", []) == ([{"digest": NEW, "cause": cause, "retry": 4}] if rejected else [])


def test_a_slot_that_is_still_armed_is_given_up_first() -> None:
    disk = DiskView(A, slot_a(), replace(STAGED, attributes=TRIAL))
    view = returned(order_document("Activate"), with_open(cause="TrialLost"), disk=disk)
    assert next_step(view) == Disarm(B)


def test_a_return_waits_for_the_node_before_it_is_closed() -> None:
    view = returned(None, with_open(cause="Panic"), node=None)
    assert next_step(view) == Wait()


@pytest.mark.parametrize(
    ("goal", "journal", "phase", "cause"),
    [
        ("Activate", Journal("m-id", born="boot-2", boots=("boot-2",)), "RolledBack", "JournalLost"),
        ("Commit", Journal("m-id", born="boot-2", boots=("boot-2",)), "RolledBack", "JournalLost"),
        ("Activate", Journal("m-id", born="boot-1", boots=("boot-1", "boot-2")), "RolledBack", "JournalLost"),
        ("Activate", Journal("m-id", boots=("boot-1", "boot-2")), "RolledBack", "Interrupted"),
        ("Abort", Journal("m-id", born="boot-2", boots=("boot-2",)), "Idle", "Withdrawn"),
    ],
)
def test_a_return_that_no_journal_tells_of(goal: str, journal: Journal, phase: str, cause: str) -> None:
    order = order_document(goal, **({"cause": "Withdrawn"} if goal == "Abort" else {}))
    end = closed(next_step(returned(order, journal)))
    assert (end.phase, end.cause) == (phase, cause)


@pytest.mark.parametrize(
    ("attributes", "goal", "verdict", "cause"),
    [
        (TRIAL, "Activate", None, None),
        (TRIAL, "Commit", None, None),
        (TRIAL, "Abort", "ROLLBACK", "GateFailed"),
        (GIVEN_UP, "Activate", "ROLLBACK", "JournalLost"),
    ],
)
def test_a_trial_that_no_journal_tells_of_is_taken_up(
    attributes: Attributes, goal: str, verdict: Any, cause: Any
) -> None:
    lost = Journal("m-id", born="boot-2", boots=("boot-2",))
    disk = DiskView(B, slot_a(), slot_b(digest=NEW, version="2.0.0", attributes=attributes))
    order = order_document(goal, **({"cause": "GateFailed"} if goal == "Abort" else {}))
    step = next_step(trial_boot(order, journal=lost, disk=disk))
    assert isinstance(step, WriteJournal)
    assert step.journal.open == opened(verdict=verdict, cause=cause)


def test_a_committed_slot_that_no_journal_tells_of_is_committed() -> None:
    disk = DiskView(B, slot_a(), slot_b(digest=NEW, version="2.0.0", attributes=Attributes(2, 0, True)))
    view = trial_boot(order_document("Commit"), journal=Journal("m-id", boots=("boot-2",)), disk=disk)
    assert closed(next_step(view)).phase == "Committed"


def test_a_trial_without_any_record_is_recognised_by_its_content() -> None:
    disk = DiskView(B, slot_a(), slot_b(version="2.0.0", attributes=TRIAL))
    view = trial_boot(order_document("Activate"), journal=Journal("m-id", boots=("boot-2",)), disk=disk)
    assert next_step(view) == VerifySlot(B, NEW, 100, "2.0.0", "booted", *PLACE)


@pytest.mark.parametrize("goal", ["Stage", "Activate", "Commit", "Abort"])
@pytest.mark.parametrize(
    "end", [Ended("order-1", "RolledBack", "Activate", "ROLLBACK", "Panic"), Ended("order-1", "Committed")]
)
def test_an_id_that_ended_is_answered_with_its_end(goal: str, end: Ended) -> None:
    journal = Journal("m-id", boots=("boot-1",), ended=(end, Ended("order-0", "Idle")))
    view = old_boot(order_document(goal), journal=journal)
    step = shown(view)
    assert (step["phase"], step.get("cause"), step["observedGoal"]) == (end.phase, end.cause, goal)
    assert settle(view)[1] == Wait()


@pytest.mark.parametrize("assignment", [None, order_document(id="order-2")])
@pytest.mark.parametrize(("stage", "phase"), [(Stage.ARMED, "Activating"), (Stage.REQUESTED, "Verifying")])
def test_an_open_step_is_reported_to_a_node_without_its_order(assignment: Any, stage: Stage, phase: str) -> None:
    journal = with_open(stage=stage)
    view = old_boot(assignment, journal=journal) if stage is Stage.ARMED else trial_boot(assignment, journal=journal)
    step = next_step(view)
    assert isinstance(step, WriteStatus)
    assert (step.status["step"]["id"], step.status["step"]["phase"]) == ("order-1", phase)
    assert {"slots", "bootID", "machineID"} <= set(step.status)
    assert isinstance(next_step(told(view, step)), Wait)


def test_a_node_made_again_learns_how_the_last_order_ended() -> None:
    journal = Journal(
        "m-id", boots=("boot-1",), ended=(Ended("order-1", "RolledBack", "Activate", "ROLLBACK", "Panic"),)
    )
    assert shown(old_boot(journal=journal))["cause"] == "Panic"


def test_rule_10_an_id_that_failed_and_comes_back_at_stage_is_answered_so_that_the_operator_counts_on() -> None:
    ended = Ended("order-1", "Failed", "Activate", fault=Fault("Disk", "no"))
    view, step = settle(replace(old_boot(order_document()), journal=Journal("m-id", boots=("boot-1",), ended=(ended,))))
    assert view.node is not None
    assert (view.node.step["phase"], view.node.step["observedGoal"], step) == ("Idle", "Stage", Wait())
