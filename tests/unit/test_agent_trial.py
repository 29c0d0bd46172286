"""The boot on trial: commit, roll back, and what silence means."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent_views import (
    NEW,
    TRIAL,
    A,
    B,
    closed,
    node,
    opened,
    order_document,
    quiet,
    settle,
    shown,
    slot_a,
    slot_b,
    told,
    trial_boot,
    with_open,
)
from careen.agent.record import Ended, Fault, Stage
from careen.agent.step import (
    AbandonTrial,
    BootView,
    DiskView,
    MarkGood,
    RequestReboot,
    Trouble,
    Wait,
    WriteJournal,
    WriteStatus,
    next_step,
)
from careen.agent.view import TRIAL_LOOK_SECONDS
from careen.disk.types import GIVEN_UP, Attributes


def test_a_trial_boot_is_reported_with_its_new_boot_id() -> None:
    view = trial_boot(order_document("Activate"))
    step = next_step(view)
    assert isinstance(step, WriteStatus)
    assert step.status["step"] == {"id": "order-1", "observedGoal": "Activate", "phase": "Verifying"}
    assert (step.status["bootID"], step.status["booted"], step.status["bootMethod"]) == ("boot-2", "B", "Kexec")
    assert next_step(told(view, step)) == Wait(12.0)


def test_a_slot_that_can_not_be_marked_good_says_why_and_is_tried_again() -> None:
    fault = Fault("Disk", "the ESP: No space left on device (vmlinuz)")
    view = trial_boot(order_document("Commit"), journal=with_open(verdict="COMMIT"))
    assert next_step(view) == MarkGood(B)
    view = replace(view, trouble=Trouble("order-1", "MarkGood", fault, 3, not_before=view.boot.uptime + 4))
    step = shown(view)
    assert (step["phase"], step["error"]) == ("Verifying", {"class": "Disk", "message": fault.message})
    assert settle(view)[1] == Wait(view.boot.uptime + 4)
    long = replace(view, trouble=Trouble("order-1", "MarkGood", fault, 9, not_before=view.boot.uptime + 300))
    assert settle(long)[1] == Wait(view.boot.uptime + TRIAL_LOOK_SECONDS)
    later = replace(view, boot=replace(view.boot, uptime=view.boot.uptime + 4))
    assert settle(later)[1] == MarkGood(B)
    assert next_step(replace(later, node=None)) == MarkGood(B)


def test_commit_is_journaled_then_marked_good_then_told() -> None:
    view = quiet(trial_boot(order_document("Activate")))
    assert view.node is not None
    view = replace(view, node=node(order_document("Commit"), status=dict(view.node.status)))
    step = next_step(view)
    assert isinstance(step, WriteJournal)
    assert step.journal.open == opened(verdict="COMMIT")
    view = replace(view, journal=step.journal)
    assert next_step(view) == MarkGood(B)
    disk = DiskView(B, slot_a(), slot_b(digest=NEW, version="2.0.0", attributes=Attributes(2, 0, True)))
    view = replace(view, disk=disk)
    step = next_step(view)
    end = closed(step)
    assert (end.phase, end.verdict) == ("Committed", "COMMIT")
    assert isinstance(step, WriteJournal)
    view = replace(view, journal=step.journal)
    assert (shown(view)["phase"], shown(view)["observedGoal"], settle(view)[1]) == ("Committed", "Commit", Wait())


def test_an_abort_on_trial_is_journaled_then_given_up_then_booted_away() -> None:
    view = quiet(trial_boot(order_document("Activate")))
    view = replace(view, node=node(order_document("Abort", cause="GateFailed"), status=dict(view.node.status)))  # type: ignore[union-attr]
    step = next_step(view)
    assert isinstance(step, WriteJournal)
    assert step.journal.open == opened(verdict="ROLLBACK", cause="GateFailed")
    view = replace(view, journal=step.journal)
    assert next_step(view) == AbandonTrial(B)
    given_up = slot_b(digest=NEW, version="2.0.0")
    assert next_step(replace(view, disk=DiskView(B, slot_a(), given_up))) == RequestReboot("Firmware", A)


@pytest.mark.parametrize(("verdict", "goal"), [("COMMIT", "Abort"), ("ROLLBACK", "Commit")])
def test_the_first_verdict_wins(verdict: Any, goal: str) -> None:
    view = trial_boot(order_document(goal), journal=with_open(verdict=verdict, cause="GateFailed"))
    assert next_step(view) == (MarkGood(B) if verdict == "COMMIT" else AbandonTrial(B))


def test_a_trial_never_gives_itself_up_without_a_good_slot_behind_it() -> None:
    disk = DiskView(B, slot_a(attributes=GIVEN_UP), slot_b(digest=NEW, attributes=TRIAL))
    view = trial_boot(order_document("Abort"), journal=with_open(verdict="ROLLBACK"), disk=disk)
    # A reset would be the end of the machine: the image's timer must see that somebody decides.
    assert settle(view)[1] == Wait(view.boot.uptime + TRIAL_LOOK_SECONDS)
    assert shown(view)["error"]["class"] == "Disk"


def test_commit_waits_for_the_local_gates() -> None:
    view = quiet(trial_boot(order_document("Commit"), unhealthy="kubelet is down"))
    assert next_step(view) == Wait(12.0)
    assert "kubelet is down" in shown(view)["error"]["message"]


@pytest.mark.parametrize(
    ("uptime", "unhealthy", "answered", "on_silence", "outcome"),
    [
        (299.0, "sick", False, "Rollback", None),
        (300.0, "sick", True, "Rollback", ("ROLLBACK", "LocalGate")),
        (300.0, "sick", True, "Wait", ("ROLLBACK", "LocalGate")),
        (300.0, "sick", False, "Commit", ("ROLLBACK", "LocalGate")),
        (300.0, None, True, "Rollback", None),
        (300.0, None, False, "Rollback", ("ROLLBACK", "Silence")),
        (300.0, None, False, "Commit", ("COMMIT", None)),
        (300.0, None, False, "Wait", None),
        (299.0, None, False, "Rollback", None),
    ],
)
def test_silence(uptime: float, unhealthy: str | None, answered: bool, on_silence: Any, outcome: Any) -> None:
    view = trial_boot(
        None,
        node=None,
        journal=with_open(on_silence=on_silence),
        boot=BootView("boot-2", "m-id", "Kexec", uptime=uptime),
        unhealthy=unhealthy,
        api_answered=answered,
    )
    step = next_step(view)
    if outcome is None:
        assert isinstance(step, Wait)
        assert step.until is not None
        assert uptime < step.until <= uptime + 2
    else:
        assert isinstance(step, WriteJournal)
        assert step.journal.open
        assert (step.journal.open.verdict, step.journal.open.cause) == outcome


@pytest.mark.parametrize(("on_silence", "verdict"), [("Rollback", "ROLLBACK"), ("Commit", "COMMIT")])
def test_an_agent_that_came_up_late_asks_before_it_calls_that_silence(on_silence: Any, verdict: str) -> None:
    view = trial_boot(
        None,
        node=None,
        journal=with_open(on_silence=on_silence),
        boot=BootView("boot-2", "m-id", "Kexec", uptime=400.0),
        api_answered=False,
        asked_since=400.0,
    )
    assert next_step(view) == Wait(402.0)
    step = next_step(replace(view, boot=replace(view.boot, uptime=410.0)))
    assert isinstance(step, WriteJournal)
    assert step.journal.open
    assert step.journal.open.verdict == verdict


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("on_silence", ["Rollback", "Commit", "Wait"])
def test_a_trial_that_was_well_is_not_lost_for_a_moment_without_its_kubelet(answered: bool, on_silence: Any) -> None:
    view = quiet(
        trial_boot(
            order_document("Activate"),
            journal=with_open(on_silence=on_silence),
            boot=BootView("boot-2", "m-id", "Kexec", uptime=9000.0),
            unhealthy="kubelet does not answer",
            api_answered=answered,
            well_at=8941.0,
        )
    )
    assert next_step(view) == Wait(9002.0)
    assert "kubelet does not answer" in shown(view)["error"]["message"]
    step = next_step(replace(view, well_at=8940.0))
    assert isinstance(step, WriteJournal)
    assert step.journal.open == opened(on_silence=on_silence, verdict="ROLLBACK", cause="LocalGate")


def test_a_power_cut_while_armed_for_the_firmware_makes_a_trial_too() -> None:
    view = trial_boot(order_document("Activate"), journal=with_open(stage=Stage.ARMED, method="Firmware"))
    assert shown(view)["phase"] == "Verifying"


def test_a_power_cut_while_undoing_rolls_the_trial_back() -> None:
    undo = Ended("order-1", "Idle", "Abort", cause="Withdrawn")
    view = trial_boot(order_document("Abort"), journal=with_open(stage=Stage.UNDOING, undo=undo))
    step = next_step(view)
    assert isinstance(step, WriteJournal)
    assert step.journal.open
    assert (step.journal.open.verdict, step.journal.open.cause) == ("ROLLBACK", "Withdrawn")
