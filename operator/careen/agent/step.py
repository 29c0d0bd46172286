"""What the agent does next: a pure function of what it sees.

`next_step` first brings the status up to date, then gives the one action that comes next. Nothing is remembered
between two calls but what the view holds, so a crash at any point, or a reboot, only means to ask again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from careen.api.node import Assignment, CauseWord, Phase
from careen.disk.types import GIVEN_UP, SlotName
from careen.release.versions import compare_versions

from .actions import (
    AbandonTrial,
    ArmSlot,
    Disarm,
    DropReset,
    InvalidateSlot,
    MarkGood,
    PrepareReset,
    RepairTable,
    RequestActivation,
    RequestReboot,
    StageImage,
    Step,
    VerifySlot,
    Wait,
    WriteJournal,
    WriteStatus,
)
from .aim import KEEP, Aim, end_unarmed, may_be_tried, request_activation
from .decision import decide_boot, refuse_unguarded
from .record import MAX_BOOTS, Ended, Fault, Journal, Moved, OpenOrder, Rejection, Stage
from .report import build_ended, build_step, report_fault, write_status
from .requested import aim_request
from .trial import aim_open, must_be_kept
from .view import (
    TRIAL_LOOK_SECONDS,
    AgentView,
    BootDecision,
    BootView,
    DiskView,
    HostFacts,
    NodeView,
    SlotView,
    Trouble,
    decode_node,
    next_trouble,
)

__all__ = [
    "AbandonTrial", "AgentView", "ArmSlot", "BootDecision", "BootView", "Disarm", "DiskView", "DropReset", "Ended",
    "Fault", "HostFacts", "InvalidateSlot", "Journal", "MarkGood", "Moved", "NodeView", "OpenOrder", "PrepareReset",
    "Rejection", "RepairTable", "RequestActivation", "RequestReboot", "SlotView", "Stage", "StageImage", "Step",
    "Trouble", "VerifySlot", "Wait", "WriteJournal", "WriteStatus", "current_order", "decode_node", "next_step",
    "next_trouble", "report_progress", "still_wanted",
]  # fmt: skip

_TRIES_WHEN_ACTIVATING = 3
_TRIES_WHEN_UNWRITTEN = 3
_AT_REST: tuple[Phase, ...] = ("Idle", "Committed", "RolledBack", "Failed")


def next_step(view: AgentView) -> Step:
    """The one step to take now. Ask again after it, whatever came of it."""
    journal, boot = view.journal, view.boot
    if journal is None or journal.machine_id != boot.machine_id:
        # Another machine's disk or a copied folder: its orders are not ours, but a bad release is bad here too.
        rejected = journal.rejected if journal else ()
        fresh = Journal(boot.machine_id, born=boot.boot_id, boots=(boot.boot_id,), rejected=rejected)
        return _hold(view, WriteJournal(fresh))
    if boot.boot_id not in journal.boots:
        return _hold(view, WriteJournal(replace(journal, boots=(*journal.boots, boot.boot_id)[-MAX_BOOTS:])))
    aim = _aim(view, journal)
    # While nothing else is to do: the next fault would take the copy that is left.
    action = _hold(view, RepairTable() if view.disk.faults and _is_idle(aim) else aim.action)
    if isinstance(action, Wait) and must_be_kept(view, journal):
        action = _sooner(action, view.boot.uptime + TRIAL_LOOK_SECONDS)
    if view.node is None or aim.step is None:
        return action
    step = None if aim.step is KEEP else aim.step
    write = write_status(view, view.node, step, quiet=isinstance(action, Wait))
    if write is None:
        return action
    if view.boot.uptime >= view.api_not_before:
        return write
    return _sooner(action, view.api_not_before) if isinstance(action, Wait) else action


def current_order(view: AgentView) -> str:
    """Id of the order that the next step is done for; empty if there is none."""
    if view.journal and view.journal.open:
        return view.journal.open.order
    return view.node.assignment.id if view.node and view.node.assignment else ""


def still_wanted(view: AgentView, action: StageImage) -> bool:
    """Whether a staging that is under way should go on, now that the Node may have changed."""
    order = view.node.assignment if view.node else None
    return order is not None and order.id == action.order and order.goal in ("Stage", "Activate")


def report_progress(view: AgentView, action: StageImage, moved: Moved) -> WriteStatus | None:
    """The write that shows how far a staging is; the first one also ends the phase Failed. None without a Node."""
    node = view.node
    if node is None or node.assignment is None or node.assignment.id != action.order:
        return None
    step = build_step(action.order, "Staging", goal=node.assignment.goal, progress=(action.size, moved))
    patch = write_status(view, node, step, quiet=True)
    if patch is None and node.step.get("progress") != step["progress"]:
        return WriteStatus(node.uid, {"step": {"progress": step["progress"]}}, node.resource_version)
    return patch


def _is_idle(aim: Aim) -> bool:
    """Whether no order is under way. A failing repair must not count among the failures of one."""
    return aim.action == Wait() and (aim.step is None or aim.step.get("phase") in _AT_REST)


def _aim(view: AgentView, journal: Journal) -> Aim:
    if journal.open:
        return aim_open(view, journal, journal.open)
    if view.reset_prepared:
        # Whoever prepared it is not known any more: the next boot must not empty the machine for nobody.
        return Aim(None, DropReset())
    node = view.node
    if node is None:
        return Aim(None, Wait())
    order = node.assignment
    if order is None:
        return Aim(_build_idle(node, journal), Wait())
    end = journal.find_ended(order.id)
    if end and end.phase == "Failed" and order.goal == "Stage":
        # The operator forgot this id and gave it once more. Idle lets it count on; Failed would have it wait for ever.
        return Aim(build_step(order.id, "Idle", goal="Stage"), Wait())
    if end:
        return Aim(build_ended(end, order.goal), Wait())
    if order.request is not None:
        return aim_request(view, journal, node, order, order.request.action)
    if order.from_boot_id and order.from_boot_id != view.boot.boot_id:
        return _aim_unrecorded(view, journal, order)
    if order.goal == "Abort":
        return end_unarmed(view, journal, order, "Idle", cause=order.cause)
    if order.goal == "Commit":
        fault = Fault("Internal", "goal Commit came without an activation in this boot; expected: Stage or Activate")
        return Aim(build_step(order.id, "Failed", goal=order.goal, fault=fault), Wait())
    return _aim_activate(view, journal, node, order) if order.goal == "Activate" else _aim_stage(view, node, order)


def _build_idle(node: NodeView, journal: Journal) -> dict[str, Any]:
    if node.unreadable:
        return build_step("", "Failed", fault=Fault("Internal", f"the order can't be read: {node.unreadable}"))
    last = journal.ended[-1] if journal.ended else None
    # A Node that was made again learns how the last order ended; the Node that saw it end keeps showing it.
    if last and last.phase != "Idle" and node.step.get("id", last.order) == last.order:
        return build_ended(last, None)
    return build_step("", "Idle")


def _aim_unrecorded(view: AgentView, journal: Journal, order: Assignment) -> Aim:
    """Activate was ordered in an earlier boot, and the journal does not tell what came of it."""
    booted = view.disk[view.disk.booted]
    if _may_hold(booted, order):
        return Aim(None, _verify(view.disk.booted, order, "booted"))
    if booted.digest != order.release.digest:
        if order.goal == "Abort":
            return end_unarmed(view, journal, order, "Idle", cause=order.cause)
        # A journal that was there all the time proves that nothing was armed before the power went.
        cause: CauseWord = "Interrupted" if journal.covers(order.from_boot_id or "") else "JournalLost"
        return end_unarmed(view, journal, order, "RolledBack", cause=cause)
    if booted.attributes.good:
        return Aim(None, WriteJournal(journal.close(Ended(order.id, "Committed", order.goal, "COMMIT"))))
    opened = _open(view, order, view.disk.booted, Stage.REQUESTED)
    if order.goal == "Abort":
        opened = replace(opened, verdict="ROLLBACK", cause=order.cause)
    elif booted.attributes.priority == 0:
        opened = replace(opened, verdict="ROLLBACK", cause="JournalLost")
    return Aim(None, WriteJournal(replace(journal, open=opened)))


def _aim_stage(view: AgentView, node: NodeView, order: Assignment) -> Aim:
    disk, release, goal = view.disk, order.release, order.goal
    booted, passive = disk[disk.booted], disk[disk.passive]
    if _may_hold(booted, order):
        return Aim(KEEP, _verify(disk.booted, order, "booted"))
    if booted.digest == release.digest:
        if booted.attributes.good:
            return Aim(build_step(order.id, "Committed", goal=goal, verdict="COMMIT"), Wait())
        return Aim(build_step(order.id, "Verifying", goal=goal), Wait())
    if fault := _refuse(view, node, order):
        return Aim(build_step(order.id, "Failed", goal=goal, fault=fault), Wait())
    if may_be_tried(view, disk.passive):
        # Left armed by a journal that is lost: nobody would know what a boot of it means.
        return Aim(None, Disarm(disk.passive))
    trouble = _trouble_of(view, order)
    if passive.digest == release.digest:
        if passive.checked:
            progress = (release.size_bytes, view.moved)
            return Aim(build_step(order.id, "Staged", goal=goal, progress=progress), Wait())
        step = build_step(order.id, "Failed", goal=goal, fault=trouble.fault) if trouble else KEEP
        return Aim(step, _verify(disk.passive, order, "stage"))
    if trouble and not trouble.retrying:
        step = build_step(order.id, "Failed", goal=goal, fault=trouble.fault)
    else:
        step = build_step(order.id, "Staging", goal=goal, progress=(release.size_bytes, view.moved))
    if passive.attributes != GIVEN_UP or passive.digest is not None:
        return Aim(step, InvalidateSlot(disk.passive, _stage(disk.passive, order)))
    return Aim(step, _stage(disk.passive, order))


def _aim_activate(view: AgentView, journal: Journal, node: NodeView, order: Assignment) -> Aim:
    disk, release = view.disk, order.release
    booted, passive = disk[disk.booted], disk[disk.passive]
    if _may_hold(booted, order):
        return Aim(KEEP, _verify(disk.booted, order, "booted"))
    if booted.digest == release.digest and booted.attributes.good:
        return Aim(None, WriteJournal(journal.close(Ended(order.id, "Committed", order.goal, "COMMIT"))))
    fault = _refuse(view, node, order)
    trouble = _trouble_of(view, order)
    if trouble and trouble.failures >= _TRIES_WHEN_ACTIVATING:
        fault = fault or trouble.fault
    if passive.refuted == release.digest:
        fault = fault or Fault("Integrity", f"slot {disk.passive} no longer holds {release.digest}; it was not armed")
    if fault:
        # The end is recorded: the operator takes the lock back on it, so nothing may revive this order.
        return end_unarmed(view, journal, order, "Failed", fault=fault)
    if passive.digest != release.digest or passive.checked != order.id:
        return Aim(KEEP, _verify(disk.passive, order, order.id))
    # Only now: what the release itself declares is known once it was found in the slot.
    decision = decide_boot(order.terms.boot_method, view.facts, release.digest)
    if fault := refuse_unguarded(decision, allowed=order.terms.allow_no_deadman):
        return end_unarmed(view, journal, order, "Failed", fault=fault)
    if view.granted == order.id:
        promised = "Missing" if order.terms.allow_no_deadman else decision.deadman
        opened = replace(_open(view, order, disk.passive, Stage.ARMED), deadman=promised)
        return Aim(None, WriteJournal(replace(journal, open=opened)))
    shown = node.step.get("id") == order.id and node.step.get("phase") in ("Staged", "Activating")
    step = KEEP if shown else build_step(order.id, "Staged", goal=order.goal)
    return Aim(step, request_activation(node, order))


def _open(view: AgentView, order: Assignment, to_slot: SlotName, stage: Stage) -> OpenOrder:
    return OpenOrder(
        order=order.id,
        digest=order.release.digest,
        version=order.release.version,
        from_slot=to_slot.other,
        to_slot=to_slot,
        from_boot_id=order.from_boot_id or view.boot.boot_id,
        method=decide_boot(order.terms.boot_method, view.facts, order.release.digest).method,
        lost_attempts=order.lost_attempts,
        commit_timeout_seconds=order.terms.commit_timeout_seconds,
        on_silence=order.terms.on_silence,
        stage=stage,
    )


def _may_hold(slot: SlotView, order: Assignment) -> bool:
    """Whether only a read-back can tell if the slot holds the order's release."""
    if slot.digest is not None or slot.refuted == order.release.digest:
        return False
    return slot.version in (None, order.release.version) and order.release.size_bytes <= slot.capacity


def _verify(slot: SlotName, order: Assignment, purpose: str) -> VerifySlot:
    release = order.release
    place = (release.repository, release.path)
    downgrade = order.terms.allow_downgrade
    return VerifySlot(slot, release.digest, release.size_bytes, release.version, purpose, *place, downgrade)


def _stage(slot: SlotName, order: Assignment) -> StageImage:
    release, terms = order.release, order.terms
    return StageImage(
        order.id,
        slot,
        release.repository,
        release.path,
        release.digest,
        release.size_bytes,
        release.version,
        mirrors=tuple(release.mirrors or ()),
        bytes_per_second=terms.bytes_per_second,
        allow_downgrade=terms.allow_downgrade,
    )


def _refuse(view: AgentView, node: NodeView, order: Assignment) -> Fault | None:
    """Why the order can't be carried out, whatever is tried; None if it can."""
    disk, release = view.disk, order.release
    rejected = view.journal.rejected if view.journal else ()
    for entry in rejected:
        if entry.digest == release.digest and node.retry <= entry.retry:
            sentence = (
                f"{release.version} was rolled back on this machine ({entry.cause}); `careen retry` permits it again"
            )
            return Fault("Refused", sentence)
    capacity = disk[disk.passive].capacity
    if release.size_bytes > capacity:
        sentence = f"the image has {release.size_bytes} bytes; slot {disk.passive} has room for {capacity}"
        return Fault("Size", sentence)
    # What is staged already was admitted for another order's terms. The rest of them can't differ: see VerifySlot.
    running = disk[disk.booted].version
    if running and not order.terms.allow_downgrade and compare_versions(release.version, running) < 0:
        sentence = f"release {release.version} is older than {running}, which runs here; allowDowngrade permits it"
        return Fault("Refused", sentence)
    booted = disk[disk.booted].attributes
    if not booted.good:
        sentence = (
            f"slot {disk.booted} is booted but not marked good ({booted}); slot {disk.passive} may not be touched"
        )
        return Fault("Disk", sentence)
    return None


def _trouble_of(view: AgentView, order: Assignment) -> Trouble | None:
    return view.trouble if view.trouble and view.trouble.order == order.id else None


def _hold(view: AgentView, action: Step) -> Step:
    """The action, or a pause if it failed a moment ago."""
    if isinstance(action, WriteStatus | RequestActivation):
        return action if view.boot.uptime >= view.api_not_before else Wait(view.api_not_before)
    trouble = view.trouble
    if trouble is None or trouble.action != type(action).__name__ or trouble.order != current_order(view):
        return action
    if view.boot.uptime >= trouble.not_before:
        return action
    return _tell_unwritten(view, action, trouble) or Wait(trouble.not_before)


def _tell_unwritten(view: AgentView, action: Step, trouble: Trouble) -> WriteStatus | None:
    """Say that the journal can't be written. Nothing goes on without it, and the machine may hold its lock."""
    if not isinstance(action, WriteJournal) or trouble.failures < _TRIES_WHEN_UNWRITTEN:
        return None
    if view.node is None or view.boot.uptime < view.api_not_before:
        return None
    return report_fault(view.node, trouble.fault)


def _sooner(wait: Wait, instant: float) -> Wait:
    return Wait(instant if wait.until is None else min(wait.until, instant))
