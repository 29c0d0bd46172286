"""What the agent tells of its machine, and when nothing is done at all. No clock, no disk, no API server."""

from __future__ import annotations

from dataclasses import replace

from agent_views import (
    NEW,
    OLD,
    A,
    node,
    old_boot,
    opened,
    order_document,
    quiet,
    shown,
    slot_a,
    slot_b,
    told,
)
from careen.agent.record import Ended, Journal, Rejection
from careen.agent.step import (
    DiskView,
    StageImage,
    Wait,
    WriteJournal,
    WriteStatus,
    next_step,
)
from careen.disk.types import Attributes


def test_a_lost_journal_is_begun_anew_in_this_boot() -> None:
    step = next_step(old_boot(order_document(), journal=None))
    assert step == WriteJournal(Journal("m-id", born="boot-1", boots=("boot-1",)))


def test_a_foreign_journal_gives_only_its_rejections() -> None:
    rejection = Rejection(NEW, "Panic", 0)
    foreign = Journal("other", open=opened(), rejected=(rejection,), ended=(Ended("x", "Committed"),))
    step = next_step(old_boot(order_document(), journal=foreign))
    assert step == WriteJournal(Journal("m-id", born="boot-1", boots=("boot-1",), rejected=(rejection,)))


def test_each_boot_is_noted_once() -> None:
    view = old_boot(order_document(), journal=Journal("m-id", boots=("boot-0",)))
    step = next_step(view)
    assert step == WriteJournal(Journal("m-id", boots=("boot-0", "boot-1")))


def test_before_the_api_server_answers_nothing_is_done() -> None:
    assert next_step(replace(old_boot(), node=None)) == Wait()


def test_a_new_node_gets_the_full_status_and_an_idle_machine_writes_nothing_more() -> None:
    step = next_step(old_boot())
    assert isinstance(step, WriteStatus)
    assert (step.uid, step.status["step"], step.status["bootID"]) == ("uid-1", {"id": "", "phase": "Idle"}, "boot-1")
    assert step.status["slots"]["A"] == {
        "partition": 3, "priority": 1, "tries": 0, "successful": True, "version": "1.0.0", "digest": OLD,
    }  # fmt: skip
    assert set(step.status) == {
        "slots", "booted", "bootID", "bootMethod", "bootDecision", "architecture", "machineID", "protocol", "osImage",
        "kernel", "agentVersion", "step",
    }  # fmt: skip
    assert next_step(told(old_boot(), step)) == Wait()


def test_what_the_operator_wrote_is_never_in_the_write() -> None:
    theirs = {"orchestration": {"state": "Waiting"}, "conditions": [], "observedGeneration": 3}
    view = replace(old_boot(), node=node(None, status=theirs))
    step = next_step(view)
    assert isinstance(step, WriteStatus)
    assert not set(theirs) & set(step.status)


def test_changed_attributes_alone_are_written_only_when_nothing_else_goes_on() -> None:
    disk = DiskView(A, slot_a(), slot_b(attributes=Attributes(1, 0, True)))
    resting = quiet(old_boot())
    step = next_step(replace(resting, disk=disk))
    assert isinstance(step, WriteStatus)
    assert step.status == {"slots": {"B": {"priority": 1, "successful": True}}}
    staging = quiet(old_boot(order_document()))
    assert isinstance(next_step(replace(staging, disk=DiskView(A, slot_a(), slot_b(version="0.9")))), StageImage)


def test_while_the_api_server_refuses_writes_the_machine_goes_on() -> None:
    view = old_boot(order_document(), api_not_before=2000.0)
    assert isinstance(next_step(view), StageImage)
    assert next_step(old_boot(api_not_before=2000.0)) == Wait(2000.0)


def test_an_order_that_cannot_be_read_is_reported() -> None:
    step = shown(old_boot(order_document(goal="Dance")))
    assert (step["phase"], step["error"]["class"]) == ("Failed", "Internal")
    assert "spec.assignment.goal" in step["error"]["message"]


def test_a_journal_remembers_eight_ends_and_sixteen_rejections() -> None:
    journal = Journal("m-id")
    for number in range(20):
        journal = journal.close(Ended(f"o{number}", "Idle")).reject(Rejection(f"d{number}", "Panic", 0))
    assert [entry.order for entry in journal.ended] == [f"o{number}" for number in range(12, 20)]
    assert len(journal.rejected) == 16
    assert journal.rejected[-1].digest == "d19"
    assert len(journal.reject(Rejection("d19", "People", 1)).rejected) == 16
