"""What the agent does with a reboot or a reset that people asked for. No clock, no disk, no API server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from careen.agent.record import Ended, Fault, Journal, OpenOrder, Stage
from careen.agent.step import (
    AgentView,
    BootView,
    Disarm,
    DiskView,
    DropReset,
    HostFacts,
    PrepareReset,
    RequestActivation,
    RequestReboot,
    SlotView,
    Step,
    Trouble,
    Wait,
    WriteJournal,
    WriteStatus,
    decode_node,
    next_step,
)
from careen.disk.types import GIVEN_UP, Attributes, SlotName

A, B = SlotName.A, SlotName.B
GOOD = Attributes(1, 0, True)
SLOT_A = SlotView(3, 4096, GOOD, "sha256:" + "a" * 64, "1.0.0")
SLOT_B = SlotView(4, 4096, GIVEN_UP)


def node(goal: str = "Activate", action: str = "Reboot", *, step: dict[str, Any] | None = None, **changes: Any) -> Any:
    terms = {
        "lock": "default", "readySeconds": 0, "verifyTimeoutSeconds": 60, "commitTimeoutSeconds": 300,
        "onSilence": "Rollback", "bootMethod": "Auto", "drainTimeoutSeconds": 60,
    }  # fmt: skip
    order = {"id": "order-1", "request": {"action": action, "id": "r-1"}, "goal": goal, "terms": terms, **changes}
    if goal != "Stage":
        order.setdefault("fromBootID", "boot-1")
    metadata = {"name": "m", "uid": "uid-1", "resourceVersion": "7"}
    return decode_node({"metadata": metadata, "spec": {"assignment": order}, "status": {"step": step or {}}})


def opened(kind: Any = "Reboot", stage: Stage = Stage.REQUESTED, **changes: Any) -> OpenOrder:
    base = OpenOrder("order-1", "", "", A, A, "boot-1", "Kexec", 0, 300, "Rollback", stage, kind=kind)
    return replace(base, **changes)


def view(assigned: Any, open_order: OpenOrder | None = None, boot: str = "boot-1", **changes: Any) -> AgentView:
    made = AgentView(
        node=assigned,
        api_answered=True,
        journal=Journal("m-id", boots=("boot-0", "boot-1", "boot-2"), open=open_order),
        disk=DiskView(A, SLOT_A, SLOT_B),
        boot=BootView(boot, "m-id", uptime=10.0),
        facts=HostFacts("x86_64", "OS 1", "6.1", "0.1.0", kexec=True),
    )
    return replace(made, **changes)


def settle(seen: AgentView) -> tuple[dict[str, Any], Step]:
    """status.step once the status is up to date, and the step that comes then."""
    for _ in range(3):
        step = next_step(seen)
        if not isinstance(step, WriteStatus):
            assert seen.node is not None
            return dict(seen.node.step), step
        assert seen.node is not None
        status: dict[str, Any] = {**seen.node.status, **step.status}
        status["step"] = {**seen.node.step, **step.status.get("step", {})}
        seen = replace(seen, node=replace(seen.node, status={k: v for k, v in status.items() if v is not None}))
    raise AssertionError("the status never settles")


def opens(step: Step) -> OpenOrder:
    assert isinstance(step, WriteJournal), step
    assert step.journal.open is not None
    return step.journal.open


def closed(step: Step) -> Ended:
    assert isinstance(step, WriteJournal), step
    assert step.journal.open is None
    assert step.journal.rejected == (), "a request rejects no release"
    return step.journal.ended[-1]


@pytest.mark.parametrize("action", ["Reboot", "Reset"])
def test_at_stage_it_says_that_it_is_ready_and_does_nothing(action: str) -> None:
    told, step = settle(view(node("Stage", action)))
    assert (told["id"], told["phase"], told["observedGoal"]) == ("order-1", "Staged", "Stage")
    assert isinstance(step, Wait)


def test_rule_3_it_asks_before_it_begins() -> None:
    told, step = settle(view(node()))
    assert told["phase"] == "Staged"
    assert isinstance(step, RequestActivation)
    assert opens(next_step(view(node(), granted="order-1"))) == opened(stage=Stage.ARMED)


def test_a_reboot_goes_from_the_journal_straight_to_the_request() -> None:
    step = next_step(view(node(), opened(stage=Stage.ARMED)))
    assert opens(step).stage is Stage.REQUESTED
    assert next_step(view(node(), opened())) == RequestReboot("Kexec", A)


def test_a_reset_is_prepared_between_the_two_words_of_the_journal() -> None:
    asked = node(action="Reset")
    assert next_step(view(asked, opened("Reset", Stage.ARMED))) == PrepareReset()
    step = next_step(view(asked, opened("Reset", Stage.ARMED), reset_prepared=True))
    assert opens(step).stage is Stage.REQUESTED
    assert next_step(view(asked, opened("Reset"), reset_prepared=True)) == RequestReboot("Kexec", A)


@pytest.mark.parametrize(
    ("wish", "good", "method"),
    [("Auto", True, "Kexec"), ("Firmware", True, "Firmware"), ("Auto", False, "Firmware")],
)
def test_the_boot_method_is_the_decided_one(wish: str, good: bool, method: str) -> None:
    assigned = node()
    order = assigned.assignment
    assigned = replace(assigned, assignment=order.model_copy(
        update={"terms": order.terms.model_copy(update={"boot_method": wish})}
    ))  # fmt: skip
    slot = SLOT_A if good else replace(SLOT_A, attributes=Attributes(2, 0, False))
    seen = view(assigned, granted="order-1", disk=DiskView(A, slot, SLOT_B))
    assert opens(next_step(seen)).method == method


def test_a_slot_that_a_lost_journal_left_armed_is_not_tried() -> None:
    armed = replace(SLOT_B, attributes=Attributes(2, 1, False))
    assert next_step(view(node(), granted="order-1", disk=DiskView(A, SLOT_A, armed))) == Disarm(B)


@pytest.mark.parametrize(("kind", "prepared"), [("Reboot", False), ("Reset", True)])
def test_an_abort_works_until_the_reboot_is_requested(kind: str, prepared: bool) -> None:
    asked = node("Abort", kind, cause="People")
    step = next_step(view(asked, opened(kind, Stage.ARMED), reset_prepared=prepared))
    undoing = opens(step)
    assert undoing.stage is Stage.UNDOING
    if prepared:
        assert next_step(view(asked, undoing, reset_prepared=True)) == DropReset()
    end = closed(next_step(view(asked, undoing)))
    assert (end.phase, end.cause, end.goal) == ("Idle", "People", "Abort")
    assert next_step(view(asked, opened(kind), reset_prepared=prepared)) == RequestReboot("Kexec", A)


def test_an_abort_before_anything_began_ends_it() -> None:
    end = closed(next_step(view(node("Abort", cause="People"))))
    assert (end.phase, end.cause) == ("Idle", "People")


@pytest.mark.parametrize("kind", ["Reboot", "Reset"])
def test_in_the_next_boot_it_verifies_and_then_commits(kind: str) -> None:
    told, step = settle(view(node(action=kind), opened(kind), "boot-2"))
    assert told["phase"] == "Verifying"
    assert isinstance(step, Wait)
    end = closed(next_step(view(node("Commit", kind), opened(kind), "boot-2")))
    assert (end.phase, end.verdict, end.cause, end.fault) == ("Committed", "COMMIT", None, None)


@pytest.mark.parametrize("cause", ["GateFailed", "People", "Withdrawn"])
def test_after_the_boot_there_is_nothing_to_go_back_to(cause: str) -> None:
    end = closed(next_step(view(node("Abort", cause=cause), opened(), "boot-2")))
    assert (end.phase, end.verdict, end.cause, end.goal) == ("Committed", "COMMIT", cause, "Abort")


def test_never_healthy_it_ends_with_the_local_gate_as_cause() -> None:
    asked = node("Commit")
    told, step = settle(view(asked, opened(), "boot-2", unhealthy="a mount is missing"))
    assert "a mount is missing" in told["error"]["message"]
    assert isinstance(step, Wait)
    late = view(asked, opened(), unhealthy="a mount is missing", boot="boot-2")
    end = closed(next_step(replace(late, boot=replace(late.boot, uptime=300.0))))
    assert (end.phase, end.cause) == ("Committed", "LocalGate")


def test_silence_takes_nothing_back() -> None:
    alone = view(None, opened(), "boot-2", api_answered=False)
    assert isinstance(next_step(replace(alone, boot=replace(alone.boot, uptime=10_000.0))), Wait)


def test_a_reboot_that_is_known_to_have_failed_is_told() -> None:
    undoing = opens(next_step(view(node(), opened(), request_failed="kexec: refused")))
    end = closed(next_step(view(node(), undoing)))
    assert (end.phase, end.fault) == ("Failed", Fault("Boot", "kexec: refused"))


def test_a_marker_that_can_not_be_written_ends_it_after_three_tries() -> None:
    fault = Fault("Disk", "ROOT is full")
    asked = node(action="Reset")
    for failures, ends in ((2, False), (3, True)):
        trouble = Trouble("order-1", "PrepareReset", fault, failures, 0.0)
        step = next_step(view(asked, opened("Reset", Stage.ARMED), trouble=trouble))
        assert isinstance(step, WriteJournal) is ends


def test_a_reset_that_the_power_cut_short_is_interrupted() -> None:
    asked = node(action="Reset")
    undoing = opens(next_step(view(asked, opened("Reset", Stage.ARMED), "boot-2")))
    end = closed(next_step(view(asked, undoing, "boot-2")))
    assert (end.phase, end.cause) == ("RolledBack", "Interrupted")


def test_a_reboot_that_a_power_cut_came_before_is_done_all_the_same() -> None:
    told, _ = settle(view(node(), opened(stage=Stage.ARMED), "boot-2"))
    assert told["phase"] == "Verifying"


def test_a_reset_that_the_new_system_did_not_obey_is_taken_back_and_told() -> None:
    asked = node("Commit", "Reset")
    undoing = opens(next_step(view(asked, opened("Reset"), "boot-2", reset_prepared=True)))
    assert next_step(view(asked, undoing, "boot-2", reset_prepared=True)) == DropReset()
    end = closed(next_step(view(asked, undoing, "boot-2")))
    assert (end.phase, end.fault and end.fault.class_) == ("Committed", "Boot")


@pytest.mark.parametrize(
    ("action", "born", "phase", "cause"),
    [("Reset", "boot-0", "RolledBack", "Interrupted"), ("Reset", "boot-2", "RolledBack", "JournalLost")],
)
def test_a_reset_that_no_journal_tells_of_is_not_called_done(action: str, born: str, phase: str, cause: str) -> None:
    boots = ("boot-2",) if born == "boot-2" else ("boot-0", "boot-1", "boot-2")
    journal = Journal("m-id", born=born, boots=boots)
    end = closed(next_step(view(node(action=action), boot="boot-2", journal=journal)))
    assert (end.phase, end.cause) == (phase, cause)


def test_a_reboot_that_no_journal_tells_of_is_verified() -> None:
    journal = Journal("m-id", born="boot-2", boots=("boot-2",))
    assert opens(next_step(view(node(), boot="boot-2", journal=journal))) == opened()


@pytest.mark.parametrize("action", ["Reboot", "Reset"])
@pytest.mark.parametrize("unhealthy", [None, "disk full"])
def test_a_request_that_had_ended_before_the_journal_was_lost_stays_ended(action: str, unhealthy: str | None) -> None:
    error = {"class": "Boot", "message": "local gate: kubelet"}
    told = {"id": "order-1", "phase": "Committed", "observedGoal": "Commit", "verdict": "COMMIT", "error": error}
    journal = Journal("m-id", born="boot-2", boots=("boot-2",))
    asked = node("Commit", action, step=told)
    end = closed(next_step(view(asked, boot="boot-2", journal=journal, unhealthy=unhealthy)))
    assert end == Ended("order-1", "Committed", "Commit", "COMMIT", fault=Fault("Boot", "local gate: kubelet"))
    told_again, _ = settle(view(asked, boot="boot-2", journal=journal, unhealthy=unhealthy))
    assert told_again == told


def test_a_reboot_whose_order_was_replaced_meanwhile_is_closed_and_not_told() -> None:
    step = next_step(view(node("Stage", id="order-2"), opened(), boot="boot-2"))
    assert isinstance(step, WriteJournal)
    assert step.journal.open is None
    assert step.journal.ended[-1] == Ended("order-1", "Committed", "Activate", "COMMIT", "Withdrawn")


def test_a_reboot_that_no_journal_tells_of_and_that_was_called_off_is_not_opened_again() -> None:
    step = next_step(view(node("Abort", cause="Withdrawn"), boot="boot-2"))
    assert isinstance(step, WriteJournal)
    assert step.journal.open is None
    assert step.journal.ended[-1] == Ended("order-1", "Committed", "Abort", "COMMIT", "Withdrawn")


@pytest.mark.parametrize("assigned", [None, node("Stage", "Reset")])
def test_a_marker_that_nothing_stands_behind_is_taken_away(assigned: Any) -> None:
    assert next_step(view(assigned, reset_prepared=True)) == DropReset()


def test_an_ended_request_answers_every_later_goal() -> None:
    journal = Journal("m-id", boots=("boot-2",), ended=(Ended("order-1", "Committed", "Commit", "COMMIT"),))
    told, step = settle(view(node("Abort", cause="People"), boot="boot-2", journal=journal))
    assert (told["phase"], told["observedGoal"]) == ("Committed", "Abort")
    assert isinstance(step, Wait)


@pytest.mark.parametrize("stage", [Stage.ARMED, Stage.REQUESTED])
@pytest.mark.parametrize("boot", ["boot-1", "boot-2"])
def test_nothing_is_reset_while_an_update_is_armed_or_on_trial(stage: Stage, boot: str) -> None:
    update = replace(opened("Update", stage), order="order-0", digest="sha256:" + "b" * 64, to_slot=B)
    armed = replace(SLOT_B, attributes=Attributes(2, 0, False), digest=update.digest, checked="order-0")
    booted = A if boot == "boot-1" else B
    seen = view(node(action="Reset"), update, boot, disk=DiskView(booted, SLOT_A, armed), granted="order-1")
    step = settle(seen)[1]
    assert not isinstance(step, PrepareReset)
    assert not (isinstance(step, WriteJournal) and step.journal.open and step.journal.open.kind == "Reset")
    assert not (isinstance(step, RequestReboot) and step.slot is A)
