"""What the agent does next, one table for each rule of the ladder. No clock, no disk, no API server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from careen.agent.decision import decide_boot
from careen.agent.record import Ended, Fault, Journal, OpenOrder, Rejection, Stage
from careen.agent.step import (
    AbandonTrial,
    AgentView,
    ArmSlot,
    BootView,
    Disarm,
    DiskView,
    HostFacts,
    InvalidateSlot,
    MarkGood,
    Moved,
    RequestActivation,
    RequestReboot,
    SlotView,
    StageImage,
    Step,
    Trouble,
    VerifySlot,
    Wait,
    WriteJournal,
    WriteStatus,
    decode_node,
    next_step,
    next_trouble,
    report_progress,
    still_wanted,
)
from careen.agent.view import BootDecision
from careen.disk.types import GIVEN_UP, Attributes, SlotName

OLD, NEW = "sha256:" + "a" * 64, "sha256:" + "b" * 64
GOOD = Attributes(1, 0, True)
TRIAL = Attributes(2, 0, False)
A, B = SlotName.A, SlotName.B
DECISION = BootDecision("Kexec", "Supported", "it can", "TrialTimer")


PLACE = ("http://r/x/", "2.img")
IMAGE = StageImage("order-1", B, *PLACE, NEW, 100, "2.0.0")


def progress(fetched: int) -> dict[str, int]:
    return {"bytesTotal": 100, "bytesReused": 0, "bytesFetched": fetched, "bytesSkipped": 0}


def order_document(goal: str = "Stage", **changes: Any) -> dict[str, Any]:
    release = {"repository": "http://r/x/", "version": "2.0.0", "digest": NEW, "sizeBytes": 100, "path": "2.img"}
    terms = {
        "lock": "default",
        "readySeconds": 0,
        "verifyTimeoutSeconds": 60,
        "commitTimeoutSeconds": 300,
        "onSilence": changes.pop("on_silence", "Rollback"),
        "bootMethod": changes.pop("boot_method", "Auto"),
        "drainTimeoutSeconds": 60,
    }
    release.update(changes.pop("release", {}))
    document = {"id": "order-1", "policy": {"name": "p", "uid": "p"}, "rollout": "1", "release": release, "goal": goal}
    if goal != "Stage":
        document["fromBootID"] = "boot-1"
    return {**document, "terms": terms, **changes}


def node(assignment: dict[str, Any] | None, *, status: dict[str, Any] | None = None, retry: int = 0) -> Any:
    metadata = {"name": "m", "uid": "uid-1", "resourceVersion": "7"}
    spec: dict[str, Any] = {"retry": retry}
    if assignment:
        spec["assignment"] = assignment
    return decode_node({"metadata": metadata, "spec": spec, "status": status or {}})


def slot_a(**changes: Any) -> SlotView:
    return replace(SlotView(3, 4096, GOOD, OLD, "1.0.0"), **changes)


def slot_b(**changes: Any) -> SlotView:
    return replace(SlotView(4, 4096, GIVEN_UP), **changes)


STAGED = slot_b(digest=NEW, version="2.0.0", checked="stage")
CHECKED = slot_b(digest=NEW, version="2.0.0", checked="order-1")


def old_boot(assignment: dict[str, Any] | None = None, **changes: Any) -> AgentView:
    """Slot A runs, as before the order."""
    view = AgentView(
        node=node(assignment),
        api_answered=True,
        journal=Journal("m-id", boots=("boot-1", "boot-2")),
        disk=DiskView(A, slot_a(), slot_b()),
        boot=BootView("boot-1", "m-id", uptime=1000.0),
        facts=HostFacts("x86_64", "OS 1", "6.1", "0.1.0", kexec=True, boot_decision=DECISION),
    )
    return replace(view, **changes)


def opened(**changes: Any) -> OpenOrder:
    base = OpenOrder("order-1", NEW, "2.0.0", A, B, "boot-1", "Kexec", 0, 300, "Rollback", Stage.REQUESTED)
    return replace(base, **changes)


def with_open(**changes: Any) -> Journal:
    return Journal("m-id", boots=("boot-1", "boot-2"), open=opened(**changes))


def trial_boot(assignment: dict[str, Any] | None, **changes: Any) -> AgentView:
    """Slot B runs on trial."""
    base = {
        "journal": with_open(),
        "disk": DiskView(B, slot_a(), slot_b(digest=NEW, version="2.0.0", attributes=TRIAL)),
        "boot": BootView("boot-2", "m-id", "Kexec", uptime=10.0),
    }
    return old_boot(assignment, **(base | changes))


def returned(assignment: dict[str, Any] | None, journal: Journal | None = None, **changes: Any) -> AgentView:
    """Slot A runs again, in a later boot."""
    base = {
        "journal": journal or with_open(),
        "disk": DiskView(A, slot_a(), slot_b(digest=NEW, version="2.0.0")),
        "boot": BootView("boot-2", "m-id", uptime=10.0),
    }
    return old_boot(assignment, **(base | changes))


def settle(view: AgentView) -> tuple[AgentView, Step]:
    """The view once the status is up to date, and the step that comes then."""
    for _ in range(3):
        step = next_step(view)
        if not isinstance(step, WriteStatus):
            return view, step
        view = told(view, step)
    raise AssertionError(f"the status never settles: {step}")


def told(view: AgentView, write: WriteStatus) -> AgentView:
    assert view.node is not None
    return replace(view, node=replace(view.node, status=merge(view.node.status, write.status)))


def merge(target: Any, patch: Any) -> Any:
    result = dict(target)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key, {}), value) if isinstance(value, dict) else value
    return result


def shown(view: AgentView) -> dict[str, Any]:
    """status.step once the status is up to date."""
    after = settle(view)[0].node
    assert after is not None
    return dict(after.step)


def quiet(view: AgentView) -> AgentView:
    """The same view, with a status that is up to date."""
    return settle(view)[0]


def closed(step: Step) -> Ended:
    """The end that a step writes into the journal."""
    assert isinstance(step, WriteJournal), step
    assert step.journal.open is None
    return step.journal.ended[-1]


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


def test_staging_reports_then_fetches_into_the_empty_slot() -> None:
    view = old_boot(order_document())
    assert shown(view) == {
        "id": "order-1", "observedGoal": "Stage", "phase": "Staging",
        "progress": progress(0),
    }  # fmt: skip
    assert settle(view)[1] == IMAGE


@pytest.mark.parametrize("passive", [slot_b(attributes=GOOD, digest="sha256:" + "0" * 64), slot_b(digest="x")])
def test_the_passive_slot_is_given_up_before_its_first_byte(passive: SlotView) -> None:
    view = old_boot(order_document(), disk=DiskView(A, slot_a(), passive))
    assert settle(view)[1] == InvalidateSlot(B, IMAGE)


def test_an_armed_slot_that_no_journal_knows_is_disarmed_first() -> None:
    view = old_boot(order_document(), disk=DiskView(A, slot_a(), replace(STAGED, attributes=Attributes(2, 1, False))))
    assert next_step(view) == Disarm(B)


def test_the_passive_slot_is_left_alone_while_the_booted_one_is_not_good() -> None:
    view = old_boot(order_document(), disk=DiskView(A, slot_a(attributes=TRIAL), slot_b()))
    assert settle(view)[1] == Wait()
    assert shown(view)["error"]["class"] == "Disk"


def test_what_is_there_already_is_staged_without_a_fetch() -> None:
    unchecked = replace(STAGED, checked=None)
    view = old_boot(order_document(), disk=DiskView(A, slot_a(), unchecked))
    assert settle(view)[1] == VerifySlot(B, NEW, 100, "2.0.0", "stage", *PLACE)
    view = replace(view, disk=DiskView(A, slot_a(), STAGED))
    assert (shown(view)["phase"], settle(view)[1]) == ("Staged", Wait())


@pytest.mark.parametrize("goal", ["Stage", "Activate"])
@pytest.mark.parametrize("checked", ["stage", "order-1"])
def test_an_older_release_that_is_there_already_needs_leave_too(goal: str, checked: str) -> None:
    """The slot was filled by an installer, or for an order that allowed it."""
    older = slot_b(digest=NEW, version="0.5.0", checked=checked)
    release = {"version": "0.5.0"}
    view = old_boot(order_document(goal, release=release), disk=DiskView(A, slot_a(), older), granted="order-1")
    step = settle(view)[1]
    if isinstance(step, WriteJournal):
        end = step.journal.find_ended("order-1")
        assert end is not None
        assert (end.phase, end.fault.class_ if end.fault else "") == ("Failed", "Refused")
    else:
        assert (goal, shown(view)["error"]["class"], step) == ("Stage", "Refused", Wait())
    allowed = order_document(goal, release=release)
    allowed["terms"]["allowDowngrade"] = True
    again = replace(view, node=node(allowed))
    if goal == "Stage":
        assert shown(again)["phase"] == "Staged"
    elif checked == "order-1":
        step = settle(again)[1]
        assert isinstance(step, WriteJournal)
        assert step.journal.open is not None
    else:
        assert settle(again)[1] == VerifySlot(B, NEW, 100, "0.5.0", "order-1", *PLACE, allow_downgrade=True)


def test_the_release_that_runs_and_is_good_is_committed_at_once() -> None:
    view = old_boot(order_document(release={"digest": OLD, "version": "1.0.0"}))
    assert (shown(view)["phase"], shown(view)["verdict"], settle(view)[1]) == ("Committed", "COMMIT", Wait())


def test_a_running_slot_without_a_record_is_hashed_if_its_version_fits() -> None:
    same = order_document(release={"digest": OLD, "version": "1.0.0"})
    view = old_boot(same, disk=DiskView(A, slot_a(digest=None), slot_b()))
    assert settle(view)[1] == VerifySlot(A, OLD, 100, "1.0.0", "booted", *PLACE)
    other = old_boot(order_document(), disk=DiskView(A, slot_a(digest=None), slot_b()))
    assert isinstance(settle(other)[1], StageImage)


def test_an_image_that_does_not_fit_is_refused_before_anything_is_written() -> None:
    view = old_boot(order_document(release={"sizeBytes": 4097}), disk=DiskView(A, slot_a(), slot_b(attributes=GOOD)))
    assert shown(view)["error"]["class"] == "Size"
    assert settle(view)[1] == Wait()


def failed(failures: int, *, not_before: float = 1004.0, retrying: bool = False, order: str = "order-1") -> Trouble:
    return Trouble(order, "StageImage", Fault("Transfer", "short"), failures, not_before, retrying)


def test_a_failed_staging_says_so_and_is_tried_again_in_time() -> None:
    view = old_boot(order_document(), trouble=failed(3))
    assert shown(view) == {
        "id": "order-1", "observedGoal": "Stage", "phase": "Failed",
        "error": {"class": "Transfer", "message": "short"},
    }  # fmt: skip
    assert settle(view)[1] == Wait(1004.0)
    later = replace(quiet(view), boot=replace(view.boot, uptime=1004.0))
    assert isinstance(next_step(later), StageImage), "no status write between Failed and the next try"


def test_the_first_bytes_of_the_next_try_end_the_phase_failed() -> None:
    view = replace(quiet(old_boot(order_document(), trouble=failed(3))), trouble=failed(3, retrying=True))
    write = report_progress(view, IMAGE, Moved(fetched=50))
    assert write is not None
    assert write.status["step"]["phase"] == "Staging"
    assert write.status["step"]["error"] is None
    assert write.status["step"]["progress"] == progress(50)


def test_progress_alone_never_causes_another_write() -> None:
    view = quiet(old_boot(order_document()))
    assert isinstance(next_step(replace(view, moved=Moved(fetched=60))), StageImage)
    write = report_progress(view, IMAGE, Moved(fetched=60))
    assert write == WriteStatus("uid-1", {"step": {"progress": progress(60)}}, "7")


def test_a_new_order_forgets_the_trouble_of_the_old_one() -> None:
    view = old_boot(order_document(id="order-2"), trouble=failed(9, not_before=9999.0))
    assert isinstance(settle(view)[1], StageImage)


def test_the_back_off_doubles_up_to_five_minutes() -> None:
    trouble, pauses = None, []
    for _ in range(12):
        trouble = next_trouble(trouble, "o", "StageImage", Fault("Transfer", ""), now=0.0)
        pauses.append(trouble.not_before)
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert next_trouble(trouble, "o2", "StageImage", Fault("Transfer", ""), now=0.0).failures == 1
    assert next_trouble(None, "o", "StageImage", Fault("Transfer", ""), now=0.0, jitter=-1.0).not_before == 0.8


@pytest.mark.parametrize(
    ("assignment", "wanted"),
    [
        (order_document(), True),
        (order_document("Activate"), True),
        (order_document("Abort"), False),
        (order_document(id="order-2"), False),
        (None, False),
    ],
)
def test_a_staging_ends_when_nobody_wants_it(assignment: Any, wanted: bool) -> None:
    assert still_wanted(old_boot(assignment), IMAGE) is wanted


@pytest.mark.parametrize(("retry", "refused"), [(0, True), (2, True), (3, False)])
def test_a_rejected_digest_is_refused_until_people_retry(retry: int, refused: bool) -> None:
    journal = Journal("m-id", boots=("boot-1",), rejected=(Rejection(NEW, "Panic", 2),))
    view = replace(old_boot(journal=journal), node=node(order_document(), retry=retry))
    step = shown(view)
    assert (step["phase"] == "Failed") is refused
    if refused:
        assert step["error"]["class"] == "Refused"
        assert "Panic" in step["error"]["message"]
        assert settle(view)[1] == Wait()


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
    assert settle(view)[1] == Wait()
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


def test_a_journal_remembers_eight_ends_and_sixteen_rejections() -> None:
    journal = Journal("m-id")
    for number in range(20):
        journal = journal.close(Ended(f"o{number}", "Idle")).reject(Rejection(f"d{number}", "Panic", 0))
    assert [entry.order for entry in journal.ended] == [f"o{number}" for number in range(12, 20)]
    assert len(journal.rejected) == 16
    assert journal.rejected[-1].digest == "d19"
    assert len(journal.reject(Rejection("d19", "People", 1)).rejected) == 16


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


def test_arming_that_fails_three_times_is_undone() -> None:
    trouble = Trouble("order-1", "ArmSlot", Fault("Disk", "busy"), 3, 1001.0)
    disk = DiskView(A, slot_a(), CHECKED)
    view = old_boot(order_document("Activate"), journal=with_open(stage=Stage.ARMED), disk=disk, trouble=trouble)
    step = next_step(view)
    assert isinstance(step, WriteJournal)
    assert step.journal.open
    assert step.journal.open.undo == Ended("order-1", "Failed", "Activate", fault=Fault("Disk", "busy"))


def test_rule_10_an_id_that_failed_and_comes_back_at_stage_is_answered_so_that_the_operator_counts_on() -> None:
    ended = Ended("order-1", "Failed", "Activate", fault=Fault("Disk", "no"))
    view, step = settle(replace(old_boot(order_document()), journal=Journal("m-id", boots=("boot-1",), ended=(ended,))))
    assert view.node is not None
    assert (view.node.step["phase"], view.node.step["observedGoal"], step) == ("Idle", "Stage", Wait())
