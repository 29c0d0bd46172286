"""The order that the journal holds open: arming, rebooting, the trial boot, and the way back. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from careen.api.node import Assignment, CauseWord, Goal

from .actions import AbandonTrial, ArmSlot, Disarm, MarkGood, RequestReboot, VerifySlot, Wait, WriteJournal
from .aim import Aim, end_order, may_be_tried
from .decision import decide_boot
from .record import Ended, Fault, Journal, OpenOrder, Stage, Verdict
from .report import build_step
from .requested import aim_open_request
from .view import ANSWER_SECONDS, GATE_POLL_SECONDS, SICK_SECONDS, AgentView

_TRIES_WHEN_ARMED = 3


def aim_open(view: AgentView, journal: Journal, opened: OpenOrder) -> Aim:
    """What to do with the open order in this boot."""
    if opened.kind != "Update":
        return aim_open_request(view, journal, opened)
    if view.boot.boot_id == opened.from_boot_id:
        return _aim_before_boot(view, journal, opened)
    if view.disk.booted == opened.to_slot:
        return _aim_trial(view, journal, opened)
    return _aim_return(view, journal, opened)


def must_be_kept(view: AgentView, journal: Journal) -> bool:
    """Whether this boot is a trial that a reset would harm: decided for, or with nothing to go back to."""
    opened, disk = journal.open, view.disk
    if opened is None or disk.booted != opened.to_slot or disk[disk.booted].attributes.good:
        return False
    return opened.verdict == "COMMIT" or not disk[disk.passive].attributes.good


def _order_of(view: AgentView, opened: OpenOrder) -> Assignment | None:
    """The Node's order, if it is the open one."""
    order = view.node.assignment if view.node else None
    return order if order and order.id == opened.order else None


def _aim_before_boot(view: AgentView, journal: Journal, opened: OpenOrder) -> Aim:
    if opened.stage is Stage.UNDOING:
        return _aim_undo(view, journal, opened)
    if opened.stage is Stage.REQUESTED:
        if view.request_failed is not None:
            fault = Fault("Boot", view.request_failed)
            return _undo(journal, opened, Ended(opened.order, "Failed", "Activate", fault=fault))
        return Aim(None, RequestReboot(opened.method, opened.to_slot))
    step = build_step(opened.order, "Activating", goal="Activate")
    order = _order_of(view, opened)
    if order is None:
        # Armed or not, a reset does no harm now; the operator gives the same order again, or an Abort.
        return Aim(step, Wait())
    if order.goal == "Abort":
        return _undo(journal, opened, Ended(opened.order, "Idle", "Abort", cause=order.cause))
    return _aim_arm(view, journal, opened, order)


def _aim_arm(view: AgentView, journal: Journal, opened: OpenOrder, order: Assignment) -> Aim:
    slot, trouble = view.disk[opened.to_slot], view.trouble
    fault = None
    if trouble and trouble.order == opened.order and trouble.failures >= _TRIES_WHEN_ARMED:
        fault = trouble.fault
    elif slot.refuted == opened.digest:
        fault = Fault("Integrity", f"slot {opened.to_slot} no longer holds {opened.digest}")
    if fault:
        return _undo(journal, opened, Ended(opened.order, "Failed", "Activate", fault=fault))
    if slot.digest != opened.digest or slot.checked != opened.order:
        release = order.release
        check = VerifySlot(
            opened.to_slot,
            opened.digest,
            release.size_bytes,
            opened.version,
            opened.order,
            release.repository,
            release.path,
            order.terms.allow_downgrade,
        )
        return Aim(None, check)
    if opened.method == "Kexec" and view.kexec_refused and view.kexec_refused[0] == opened.order:
        return _fall_back(view, journal, opened, order, view.kexec_refused[1])
    if not _armed(view, opened):
        return Aim(None, ArmSlot(opened.to_slot, opened.method))
    return Aim(None, WriteJournal(replace(journal, open=replace(opened, stage=Stage.REQUESTED))))


def _fall_back(view: AgentView, journal: Journal, opened: OpenOrder, order: Assignment, reason: str) -> Aim:
    """The kernel can't be loaded: through the firmware then, unless the order insists on kexec.

    The operator has let the order pass with what would end a trial by kexec; a watchdog does not survive the firmware.
    """
    but, deadman = None, decide_boot("Firmware", view.facts).deadman
    if order.terms.boot_method == "Kexec":
        but = "the order asks for kexec only"
    elif not order.terms.allow_no_deadman and deadman == "Missing":
        but = "nothing would end a trial that hangs if the firmware booted it"
    if but is not None:
        fault = Fault("Boot", f"{reason}; {but}")
        return _undo(journal, opened, Ended(opened.order, "Failed", "Activate", fault=fault))
    promised = "Missing" if order.terms.allow_no_deadman else deadman
    return Aim(None, WriteJournal(replace(journal, open=replace(opened, method="Firmware", deadman=promised))))


def _armed(view: AgentView, opened: OpenOrder) -> bool:
    target, booted = view.disk[opened.to_slot].attributes, view.disk[view.disk.booted].attributes
    tries = 0 if opened.method == "Kexec" else 1
    return target.priority > booted.priority and target.tries == tries and not target.successful


def _undo(journal: Journal, opened: OpenOrder, end: Ended) -> Aim:
    return Aim(None, WriteJournal(replace(journal, open=replace(opened, stage=Stage.UNDOING, undo=end))))


def _aim_undo(view: AgentView, journal: Journal, opened: OpenOrder) -> Aim:
    if may_be_tried(view, opened.to_slot):
        return Aim(None, Disarm(opened.to_slot))
    end = opened.undo or Ended(opened.order, "Idle", "Abort")
    return _close(view, journal, opened, end)


def _close(view: AgentView, journal: Journal, opened: OpenOrder, end: Ended) -> Aim:
    if view.node is None:
        # A rejection needs spec.retry as it is now, and without the API server nobody could be told anyway.
        return Aim(None, Wait())
    lost, retry = opened.lost_attempts, view.node.retry
    return Aim(None, end_order(journal, end, digest=opened.digest, lost_attempts=lost, retry=retry))


def _aim_trial(view: AgentView, journal: Journal, opened: OpenOrder) -> Aim:
    booted = view.disk[view.disk.booted].attributes
    if opened.verdict == "COMMIT":
        if not booted.good or booted.tries or view.disk[view.disk.passive].attributes.priority >= booted.priority:
            trouble = view.trouble
            failing = trouble is not None and trouble.order == opened.order and trouble.action == MarkGood.__name__
            # The machine holds its lock until this succeeds: people must see why it does not.
            step = _build_verifying(opened, trouble.fault) if trouble and failing else None
            return Aim(step, MarkGood(view.disk.booted))
        return _close(view, journal, opened, Ended(opened.order, "Committed", "Commit", "COMMIT"))
    if opened.verdict == "ROLLBACK":
        return _aim_abandon(view, opened)
    if opened.stage is Stage.UNDOING:
        cause = opened.undo.cause if opened.undo else None
        return _decide(journal, opened, "ROLLBACK", cause or "Interrupted")
    if booted.good:
        return _decide(journal, opened, "COMMIT", None)
    if booted.priority == 0:
        return _decide(journal, opened, "ROLLBACK", "TrialLost")
    return _judge(view, journal, opened)


def _aim_abandon(view: AgentView, opened: OpenOrder) -> Aim:
    disk = view.disk
    if not disk[disk.passive].attributes.good:
        sentence = f"slot {disk.passive} has {disk[disk.passive].attributes}, so there is nothing to go back to"
        return Aim(_build_verifying(opened, Fault("Disk", sentence)), Wait())
    if disk[disk.booted].attributes.priority > 0:
        return Aim(None, AbandonTrial(disk.booted))
    return Aim(None, RequestReboot("Firmware", disk.passive))


def _decide(journal: Journal, opened: OpenOrder, verdict: Verdict, cause: CauseWord | None) -> Aim:
    return Aim(None, WriteJournal(replace(journal, open=replace(opened, verdict=verdict, cause=cause))))


def _judge(view: AgentView, journal: Journal, opened: OpenOrder) -> Aim:
    """The trial runs and nobody has judged it yet."""
    order = _order_of(view, opened)
    uptime, timeout = view.boot.uptime, float(opened.commit_timeout_seconds)
    if order and order.goal == "Abort":
        return _decide(journal, opened, "ROLLBACK", order.cause or "Withdrawn")
    if order and order.goal == "Commit" and view.unhealthy is None:
        return _decide(journal, opened, "COMMIT", None)
    if uptime >= timeout:
        if _is_sick(view):
            return _decide(journal, opened, "ROLLBACK", "LocalGate")
        silent = not view.api_answered and uptime - view.asked_since >= ANSWER_SECONDS
        if view.unhealthy is None and silent and opened.on_silence == "Rollback":
            return _decide(journal, opened, "ROLLBACK", "Silence")
        if view.unhealthy is None and silent and opened.on_silence == "Commit":
            return _decide(journal, opened, "COMMIT", None)
    fault = Fault("Boot", f"local gate: {view.unhealthy}") if view.unhealthy is not None else None
    poll = uptime + GATE_POLL_SECONDS
    return Aim(_build_verifying(opened, fault), Wait(min(poll, timeout) if uptime < timeout else poll))


def _is_sick(view: AgentView) -> bool:
    """Whether the trial is not well, and that not only for a moment: a kubelet that restarts is no bad release."""
    if view.unhealthy is None:
        return False
    return view.well_at is None or view.boot.uptime - view.well_at >= SICK_SECONDS


def _build_verifying(opened: OpenOrder, fault: Fault | None) -> dict[str, Any]:
    return build_step(opened.order, "Verifying", goal="Activate", fault=fault)


def _aim_return(view: AgentView, journal: Journal, opened: OpenOrder) -> Aim:
    """The old slot runs again."""
    undone = opened.stage is Stage.UNDOING and opened.verdict is None
    if not undone and opened.cause is None:
        # At once, since the reset's reason can be read in this boot only.
        found = replace(opened, cause=_find_cause(view, opened))
        return Aim(None, WriteJournal(replace(journal, open=found)))
    if may_be_tried(view, opened.to_slot):
        return Aim(None, Disarm(opened.to_slot))
    if undone:
        return _aim_undo(view, journal, opened)
    end = Ended(opened.order, "RolledBack", _goal_of(view, opened), "ROLLBACK", opened.cause)
    return _close(view, journal, opened, end)


def _goal_of(view: AgentView, opened: OpenOrder) -> Goal:
    order = _order_of(view, opened)
    return order.goal if order else "Activate"


def _find_cause(view: AgentView, opened: OpenOrder) -> CauseWord:
    if opened.verdict == "COMMIT" or opened.stage is Stage.ARMED:
        return "Interrupted"
    return view.boot.reset or "TrialLost"
