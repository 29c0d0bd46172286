"""From goal Activate to the reboot, and how an order is called off before it, rule by rule of the ladder."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent_views import (
    CHECKED,
    DECISION,
    NEW,
    OLD,
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
    settle,
    shown,
    slot_a,
    slot_b,
    with_open,
)
from careen.agent.decision import decide_boot
from careen.agent.record import Ended, Fault, Journal, Rejection, Stage
from careen.agent.step import (
    ArmSlot,
    Disarm,
    DiskView,
    HostFacts,
    RequestActivation,
    RequestReboot,
    Trouble,
    VerifySlot,
    Wait,
    WriteJournal,
    WriteStatus,
    next_step,
)
from careen.agent.view import BootDecision


def test_activation_verifies_asks_journals_arms_journals_and_reboots() -> None:
    view = quiet(old_boot(order_document(), disk=DiskView(A, slot_a(), STAGED)))
    status = view.node.status if view.node else {}
    view = replace(view, node=node(order_document("Activate"), status=dict(status)))
    assert next_step(view) == VerifySlot(B, NEW, 100, "2.0.0", "order-1", *PLACE)
    view = replace(view, disk=DiskView(A, slot_a(), CHECKED))
    asked = next_step(view)
    assert isinstance(asked, RequestActivation)
    assert asked.patch[:-1] == (
        {"op": "test", "path": "/metadata/uid", "value": "uid-1"},
        {"op": "test", "path": "/spec/assignment/id", "value": "order-1"},
        {"op": "test", "path": "/spec/assignment/goal", "value": "Activate"},
        {"op": "test", "path": "/status/step/id", "value": "order-1"},
        {"op": "test", "path": "/status/step/phase", "value": "Staged"},
    )
    assert asked.patch[-1]["path"] == "/status/step"
    assert asked.patch[-1]["value"] == {"id": "order-1", "phase": "Activating", "observedGoal": "Activate"}
    view = replace(view, granted="order-1")
    step = next_step(view)
    assert isinstance(step, WriteJournal)
    assert step.journal.open == opened(stage=Stage.ARMED, deadman="TrialTimer")
    view = replace(view, journal=step.journal)
    assert next_step(view) == ArmSlot(B, "Kexec")
    view = replace(view, disk=DiskView(A, slot_a(), replace(CHECKED, attributes=TRIAL)))
    step = next_step(view)
    assert isinstance(step, WriteJournal)
    assert step.journal.open == opened(stage=Stage.REQUESTED, deadman="TrialTimer")
    assert next_step(replace(view, journal=step.journal)) == RequestReboot("Kexec", B)


@pytest.mark.parametrize("granted", [None, "order-1"])
@pytest.mark.parametrize(
    "decision", [BootDecision("Firmware", "LowMemory", "memory is low since the drain", "Missing"), None]
)
def test_what_nothing_would_end_is_not_armed_though_the_operator_let_it_pass(
    decision: BootDecision | None, granted: str | None
) -> None:
    order = order_document("Activate")
    view = old_boot(order, disk=DiskView(A, slot_a(), CHECKED), granted=granted)
    view = replace(view, facts=replace(view.facts, boot_decision=decision))
    end = closed(settle(view)[1])
    assert (end.phase, end.fault and end.fault.class_) == ("Failed", "Boot")
    assert end.fault
    assert "nothing would end a trial that hangs" in end.fault.message
    # An order that permits it needs nothing, so a watchdog that goes later does not matter either.
    order["terms"]["allowNoDeadman"] = True
    step = settle(replace(view, node=node(order), granted="order-1"))[1]
    assert isinstance(step, WriteJournal)
    assert step.journal.open
    assert (step.journal.open.stage, step.journal.open.deadman) == (Stage.ARMED, "Missing")


@pytest.mark.parametrize(
    ("wish", "kexec", "method"),
    [
        ("Auto", True, "Kexec"),
        ("Auto", False, "Firmware"),
        ("Kexec", True, "Kexec"),
        ("Kexec", False, "Firmware"),
        ("Firmware", True, "Firmware"),
    ],
)
def test_the_boot_method_is_decided_by_order_and_machine(wish: str, kexec: bool, method: str) -> None:
    view = old_boot(order_document("Activate", boot_method=wish), disk=DiskView(A, slot_a(), CHECKED))
    decision = replace(DECISION, method="Kexec" if kexec else "Firmware")
    view = replace(view, facts=replace(view.facts, kexec=kexec, boot_decision=decision), granted="order-1")
    step = next_step(view)
    assert isinstance(step, WriteJournal)
    assert step.journal.open
    assert step.journal.open.method == method
    after = replace(view, journal=step.journal)
    assert next_step(after) == ArmSlot(B, method)
    state = quiet(replace(view, granted=None)).node
    assert state is not None
    assert state.status["bootDecision"]["method"] == method


def test_what_would_undo_a_trial_is_told_with_the_method_and_why() -> None:
    view = old_boot(order_document("Stage", boot_method="Firmware"))
    told_of = quiet(view).node
    assert told_of is not None
    decision = told_of.status["bootDecision"]
    assert (decision["method"], decision["reason"], decision["deadman"]) == ("Firmware", "Asked", "TrialTimer")
    undecided = quiet(replace(view, facts=HostFacts("x86_64"))).node
    assert undecided is not None
    assert "bootDecision" not in undecided.status


CAN = BootDecision("Kexec", "Supported", "it can", "HardwareWatchdog")
CAN_SO = ("Supported", "HardwareWatchdog")
DENIED = BootDecision("Firmware", "DenyListed", "the vendor is on the deny list", "Missing")


@pytest.mark.parametrize(
    ("wish", "facts", "method", "reason", "deadman"),
    [
        ("Auto", HostFacts(kexec=True, boot_decision=CAN), "Kexec", "Supported", "HardwareWatchdog"),
        ("Firmware", HostFacts(kexec=True, boot_decision=CAN), "Firmware", "Asked", "Missing"),
        ("Firmware", HostFacts(kexec=True, boot_decision=CAN, trial_timer=True), "Firmware", "Asked", "TrialTimer"),
        ("Auto", HostFacts(kexec=True, boot_decision=DENIED), "Firmware", "DenyListed", "Missing"),
        ("Kexec", HostFacts(kexec=True, boot_decision=DENIED, watchdog=True), "Kexec", "Asked", "HardwareWatchdog"),
        ("Kexec", HostFacts(boot_decision=DENIED), "Firmware", "DenyListed", "Missing"),
        ("Auto", HostFacts(kexec=True, boot_decision=CAN, kexec_suspect=NEW), "Firmware", "KexecLost", "Missing"),
        ("Auto", HostFacts(kexec=True, boot_decision=CAN, kexec_suspect=OLD), "Kexec", *CAN_SO),
        (
            "Kexec",
            HostFacts(kexec=True, boot_decision=CAN, kexec_suspect=NEW),
            "Kexec",
            "Supported",
            "HardwareWatchdog",
        ),
    ],
)
def test_wish_machine_and_experience_decide_how_it_boots(
    wish: Any, facts: HostFacts, method: str, reason: str, deadman: str
) -> None:
    decision = decide_boot(wish, facts, NEW)
    assert (decision.method, decision.reason, decision.deadman) == (method, reason, deadman)
    assert decision.message


WATCHED = BootDecision("Kexec", "Supported", "it can", "HardwareWatchdog")


@pytest.mark.parametrize(
    ("wish", "decision", "allowed", "falls_back"),
    [
        ("Auto", DECISION, False, True),
        ("Kexec", DECISION, False, False),
        # A watchdog does not survive the firmware, and the operator let the order pass because of it.
        ("Auto", WATCHED, False, False),
        ("Auto", WATCHED, True, True),
    ],
)
def test_a_kernel_that_can_not_be_loaded_leads_through_the_firmware(
    wish: str, decision: BootDecision, allowed: bool, falls_back: bool
) -> None:
    order = order_document("Activate", boot_method=wish)
    order["terms"]["allowNoDeadman"] = allowed
    journal = with_open(stage=Stage.ARMED)
    view = old_boot(order, journal=journal, disk=DiskView(A, slot_a(), CHECKED), kexec_refused=("order-1", "EPERM"))
    view = replace(view, facts=replace(view.facts, boot_decision=decision))
    step = settle(view)[1]
    assert isinstance(step, WriteJournal)
    assert step.journal.open
    if falls_back:
        promised = "Missing" if allowed else "TrialTimer"
        assert step.journal.open == opened(stage=Stage.ARMED, method="Firmware", deadman=promised)
        assert settle(replace(view, journal=step.journal))[1] == ArmSlot(B, "Firmware")
    else:
        assert step.journal.open.stage is Stage.UNDOING
        assert step.journal.open.undo
        assert step.journal.open.undo.fault
        assert "EPERM" in step.journal.open.undo.fault.message


@pytest.mark.parametrize("phase", ["Committed", "RolledBack", "Idle"])
def test_the_method_of_an_order_that_has_ended_decides_no_more(phase: Any) -> None:
    order = order_document("Abort", boot_method="Kexec", cause="People")
    ended = Journal("m-id", boots=("boot-1",), ended=(Ended("order-1", phase),))
    view = old_boot(order, journal=ended)
    assert view.node is not None
    state = quiet(replace(view, node=replace(view.node, boot_method="Firmware"))).node
    assert state is not None
    assert state.status["bootDecision"]["method"] == "Firmware"


def test_the_override_does_not_reach_an_order_that_was_given() -> None:
    view = old_boot(order_document("Stage", boot_method="Kexec"), disk=DiskView(A, slot_a(), CHECKED))
    assert view.node is not None
    state = quiet(replace(view, node=replace(view.node, boot_method="Firmware"))).node
    assert state is not None
    assert state.status["bootDecision"]["method"] == "Kexec"


def test_without_an_answer_nothing_is_activated() -> None:
    view = old_boot(order_document("Activate"), disk=DiskView(A, slot_a(), CHECKED))
    view = replace(quiet(view), api_not_before=1010.0)
    assert next_step(view) == Wait(1010.0)


def test_a_grant_for_another_order_does_not_count() -> None:
    view = old_boot(order_document("Activate"), disk=DiskView(A, slot_a(), CHECKED), granted="order-0")
    assert isinstance(settle(view)[1], RequestActivation)


def test_a_new_process_asks_again_and_does_not_take_activating_back() -> None:
    step = {"id": "order-1", "phase": "Activating", "observedGoal": "Activate"}
    view = quiet(old_boot(order_document("Activate"), disk=DiskView(A, slot_a(), CHECKED)))
    assert view.node is not None
    view = replace(view, node=replace(view.node, status={**view.node.status, "step": step}))
    assert isinstance(next_step(view), RequestActivation)


@pytest.mark.parametrize(
    ("changes", "class_"),
    [
        ({"disk": DiskView(A, slot_a(), slot_b(refuted=NEW))}, "Integrity"),
        ({"disk": DiskView(A, slot_a(attributes=TRIAL), CHECKED)}, "Disk"),
        ({"journal": Journal("m-id", boots=("boot-1",), rejected=(Rejection(NEW, "Panic", 0),))}, "Refused"),
        ({"trouble": Trouble("order-1", "VerifySlot", Fault("Disk", "bad sector"), 3, 9999.0)}, "Disk"),
    ],
)
def test_an_activation_that_cannot_be_ends_the_order(changes: dict[str, Any], class_: str) -> None:
    view = replace(old_boot(order_document("Activate"), disk=DiskView(A, slot_a(), STAGED)), **changes)
    end = closed(next_step(view))
    assert (end.order, end.phase, end.fault.class_ if end.fault else None) == ("order-1", "Failed", class_)


@pytest.mark.parametrize("goal", ["Activate", "Abort"])
def test_once_requested_only_the_next_boot_answers(goal: str) -> None:
    view = old_boot(order_document(goal), journal=with_open(), disk=DiskView(A, slot_a(), STAGED))
    assert next_step(view) == RequestReboot("Kexec", B)
    assert next_step(replace(view, node=None)) == RequestReboot("Kexec", B)


def test_a_request_that_provably_failed_is_undone() -> None:
    armed = DiskView(A, slot_a(), replace(STAGED, attributes=TRIAL))
    view = old_boot(order_document("Activate"), journal=with_open(), disk=armed, request_failed="kexec refused")
    step = next_step(view)
    assert isinstance(step, WriteJournal)
    assert step.journal.open
    assert step.journal.open.stage is Stage.UNDOING
    view = replace(view, journal=step.journal, request_failed=None)
    assert next_step(view) == Disarm(B)
    end = closed(next_step(replace(view, disk=DiskView(A, slot_a(), STAGED))))
    assert (end.phase, end.fault) == ("Failed", Fault("Boot", "kexec refused"))


def test_an_armed_order_goes_on_after_a_crash_only_when_the_node_says_so() -> None:
    view = old_boot(
        order_document("Activate"), journal=with_open(stage=Stage.ARMED), disk=DiskView(A, slot_a(), STAGED)
    )
    assert isinstance(next_step(view), VerifySlot)
    assert next_step(replace(view, node=None)) == Wait()


def test_an_abort_before_arming_ends_idle() -> None:
    view = old_boot(order_document("Abort", cause="Withdrawn"), disk=DiskView(A, slot_a(), STAGED))
    end = closed(next_step(view))
    assert (end.phase, end.cause) == ("Idle", "Withdrawn")
    after = replace(view, journal=view.journal.close(end) if view.journal else None)
    assert shown(after) == {"id": "order-1", "observedGoal": "Abort", "phase": "Idle", "cause": "Withdrawn"}


def test_an_abort_while_armed_disarms_then_ends_idle() -> None:
    armed = DiskView(A, slot_a(), replace(STAGED, attributes=TRIAL))
    view = old_boot(order_document("Abort", cause="GateFailed"), journal=with_open(stage=Stage.ARMED), disk=armed)
    step = next_step(view)
    assert isinstance(step, WriteJournal)
    view = replace(view, journal=step.journal)
    assert next_step(view) == Disarm(B)
    end = closed(next_step(replace(view, disk=DiskView(A, slot_a(), STAGED))))
    assert (end.phase, end.cause) == ("Idle", "GateFailed")


@pytest.mark.parametrize(("cause", "rejected"), [("People", True), ("Withdrawn", False), ("GateFailed", False)])
def test_people_reject_also_what_was_never_booted(cause: str, rejected: bool) -> None:
    step = next_step(old_boot(order_document("Abort", cause=cause)))
    assert isinstance(step, WriteJournal)
    assert bool(step.journal.rejected) is rejected


def test_an_action_that_failed_waits_but_other_actions_do_not() -> None:
    trouble = Trouble("order-1", "ArmSlot", Fault("Disk", "busy"), 1, 1001.0)
    view = old_boot(
        order_document("Activate"),
        journal=with_open(stage=Stage.ARMED),
        disk=DiskView(A, slot_a(), CHECKED),
        trouble=trouble,
    )
    assert next_step(view) == Wait(1001.0)
    abort = replace(view, node=node(order_document("Abort", cause="People")))
    assert isinstance(next_step(abort), WriteJournal)


def test_a_journal_that_can_not_be_written_is_told_and_tried_again() -> None:
    fault = Fault("Disk", "[Errno 30] Read-only file system")
    view = quiet(old_boot(order_document("Activate"), disk=DiskView(A, slot_a(), CHECKED), granted="order-1"))
    first = replace(view, trouble=Trouble("order-1", "WriteJournal", fault, 1, 1001.0))
    assert next_step(first) == Wait(1001.0)
    lasting = replace(view, trouble=Trouble("order-1", "WriteJournal", fault, 3, 1001.0))
    told = next_step(lasting)
    assert isinstance(told, WriteStatus)
    assert told.status["step"]["error"] == {"class": "Disk", "message": fault.message}
    assert next_step(replace(lasting, api_not_before=1000.5)) == Wait(1001.0)
    assert view.node
    step = {**view.node.step, **told.status["step"]}
    shown_once = replace(view.node, status={**view.node.status, "step": step})
    assert next_step(replace(lasting, node=shown_once)) == Wait(1001.0)
    again = replace(lasting, boot=replace(view.boot, uptime=1001.0))
    assert isinstance(next_step(again), WriteJournal)


def test_arming_that_fails_three_times_is_undone() -> None:
    trouble = Trouble("order-1", "ArmSlot", Fault("Disk", "busy"), 3, 1001.0)
    disk = DiskView(A, slot_a(), CHECKED)
    view = old_boot(order_document("Activate"), journal=with_open(stage=Stage.ARMED), disk=disk, trouble=trouble)
    step = next_step(view)
    assert isinstance(step, WriteJournal)
    assert step.journal.open
    assert step.journal.open.undo == Ended("order-1", "Failed", "Activate", fault=Fault("Disk", "busy"))
