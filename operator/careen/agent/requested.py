"""A reboot or a reset that people asked for: the running slot is booted again, and no slot is written. Pure.

There is nothing to go back to, so once the machine has booted anew the order can only end as Committed; a cause or
an error beside it says that it did not go well.
"""

from __future__ import annotations

from dataclasses import replace

from careen.api.node import Assignment, Goal
from careen.api.request import RequestAction

from .actions import Disarm, DropReset, PrepareReset, RequestReboot, Wait, WriteJournal
from .aim import Aim, may_be_tried, request_activation
from .decision import decide_boot
from .record import Ended, Fault, Journal, OpenOrder, Stage
from .report import build_step
from .view import GATE_POLL_SECONDS, AgentView, NodeView

_TRIES_WHEN_ARMED = 3


def aim_request(view: AgentView, journal: Journal, node: NodeView, order: Assignment, action: RequestAction) -> Aim:
    """What to do with a request that the journal does not show as begun."""
    if order.from_boot_id and order.from_boot_id != view.boot.boot_id:
        if told := _find_told(node, order):
            # The journal was lost later. Begun once more, it would be in flight without a lock.
            return Aim(None, WriteJournal(journal.close(told)))
        return _aim_unrecorded(view, journal, order, action)
    if order.goal == "Abort":
        return Aim(None, WriteJournal(journal.close(Ended(order.id, "Idle", "Abort", cause=order.cause))))
    if order.goal == "Commit":
        fault = Fault("Internal", f"goal Commit came before the {action.lower()}; expected: Stage or Activate")
        return Aim(build_step(order.id, "Failed", goal=order.goal, fault=fault), Wait())
    ready = build_step(order.id, "Staged", goal=order.goal)
    if order.goal == "Stage":
        return Aim(ready, Wait())
    if may_be_tried(view, view.disk.passive):
        # Left armed by a journal that is lost: a reboot would be a trial that nobody knows of.
        return Aim(None, Disarm(view.disk.passive))
    if view.granted == order.id:
        return Aim(None, WriteJournal(replace(journal, open=_open(view, order, action, Stage.ARMED))))
    shown = node.step.get("id") == order.id and node.step.get("phase") in ("Staged", "Activating")
    return Aim(None if shown else ready, request_activation(node, order))


def aim_open_request(view: AgentView, journal: Journal, opened: OpenOrder) -> Aim:
    """What to do with a request that has begun."""
    if opened.stage is Stage.UNDOING:
        return _aim_undo(view, journal, opened)
    if view.boot.boot_id == opened.from_boot_id:
        return _aim_before_boot(view, journal, opened)
    if opened.kind == "Reset" and opened.stage is Stage.ARMED:
        # The power went before the reboot was asked for, and with it whether the reset was prepared: once more.
        return _undo(
            journal, opened, Ended(opened.order, "RolledBack", _goal_of(view, opened), "ROLLBACK", "Interrupted")
        )
    if opened.kind == "Reset" and view.reset_prepared:
        fault = Fault("Boot", "the system that booted did not obey the request for a reset; it was taken back")
        return _undo(journal, opened, Ended(opened.order, "Committed", _goal_of(view, opened), "COMMIT", fault=fault))
    return _aim_after_boot(view, journal, opened)


def _open(view: AgentView, order: Assignment, action: RequestAction, stage: Stage) -> OpenOrder:
    booted = view.disk.booted
    good = view.disk[booted].attributes.good
    return OpenOrder(
        order=order.id,
        digest="",
        version="",
        from_slot=booted,
        to_slot=booted,
        from_boot_id=order.from_boot_id or view.boot.boot_id,
        # What runs without being marked good is not started once more around the firmware's rule.
        method=decide_boot(order.terms.boot_method, view.facts).method if good else "Firmware",
        lost_attempts=0,
        commit_timeout_seconds=order.terms.commit_timeout_seconds,
        on_silence=order.terms.on_silence,
        kind=action,
        stage=stage,
    )


def _find_told(node: NodeView, order: Assignment) -> Ended | None:
    """How the order has ended, by what this agent once said of it; None if it has not."""
    step = node.step
    if step.get("id") != order.id or step.get("phase") not in ("Committed", "RolledBack", "Failed"):
        return None
    error = step.get("error")
    fault = Fault(error["class"], error["message"]) if error else None
    return Ended(order.id, step["phase"], order.goal, step.get("verdict"), step.get("cause"), fault)


def _aim_unrecorded(view: AgentView, journal: Journal, order: Assignment, action: RequestAction) -> Aim:
    """Activate was ordered in an earlier boot, and the journal knows nothing of it."""
    if action == "Reboot" and order.goal == "Abort":
        # The operator may long have done with the order: an open one would have to be called off once more.
        return Aim(None, WriteJournal(journal.close(Ended(order.id, "Committed", "Abort", "COMMIT", order.cause))))
    if action == "Reboot":
        # However it came about, the machine has booted anew.
        return Aim(None, WriteJournal(replace(journal, open=_open(view, order, action, Stage.REQUESTED))))
    known = journal.covers(order.from_boot_id or "")
    end = Ended(order.id, "RolledBack", order.goal, "ROLLBACK", "Interrupted" if known else "JournalLost")
    return Aim(None, WriteJournal(journal.close(end)))


def _order_of(view: AgentView, opened: OpenOrder) -> Assignment | None:
    order = view.node.assignment if view.node else None
    return order if order and order.id == opened.order else None


def _goal_of(view: AgentView, opened: OpenOrder) -> Goal:
    order = _order_of(view, opened)
    return order.goal if order else "Activate"


def _aim_before_boot(view: AgentView, journal: Journal, opened: OpenOrder) -> Aim:
    if opened.stage is Stage.REQUESTED:
        if view.request_failed is not None:
            fault = Fault("Boot", view.request_failed)
            return _undo(journal, opened, Ended(opened.order, "Failed", _goal_of(view, opened), fault=fault))
        return Aim(None, RequestReboot(opened.method, opened.to_slot))
    step = build_step(opened.order, "Activating", goal="Activate")
    order = _order_of(view, opened)
    if order is None:
        return Aim(step, Wait())
    if order.goal == "Abort":
        return _undo(journal, opened, Ended(opened.order, "Idle", "Abort", cause=order.cause))
    trouble = view.trouble
    if trouble and trouble.order == opened.order and trouble.failures >= _TRIES_WHEN_ARMED:
        return _undo(journal, opened, Ended(opened.order, "Failed", "Activate", fault=trouble.fault))
    if opened.kind == "Reset" and not view.reset_prepared:
        return Aim(None, PrepareReset())
    return Aim(None, WriteJournal(replace(journal, open=replace(opened, stage=Stage.REQUESTED))))


def _undo(journal: Journal, opened: OpenOrder, end: Ended) -> Aim:
    return Aim(None, WriteJournal(replace(journal, open=replace(opened, stage=Stage.UNDOING, undo=end))))


def _aim_undo(view: AgentView, journal: Journal, opened: OpenOrder) -> Aim:
    if view.reset_prepared:
        return Aim(None, DropReset())
    end = opened.undo or Ended(opened.order, "Idle", "Abort")
    if opened.kind == "Reset" and end.phase == "Idle" and view.boot.boot_id != opened.from_boot_id:
        fault = Fault("Boot", "the machine restarted while the reset was taken back; it may have been done")
        end = replace(end, fault=fault)
    return Aim(None, WriteJournal(journal.close(end)))


def _aim_after_boot(view: AgentView, journal: Journal, opened: OpenOrder) -> Aim:
    order, uptime, timeout = _order_of(view, opened), view.boot.uptime, float(opened.commit_timeout_seconds)
    done = Ended(opened.order, "Committed", _goal_of(view, opened), "COMMIT")
    if order is None and view.node is not None and view.node.assignment is not None:
        # The operator gives another order only when it is done with this one: an answer to it would be an orphan's.
        return Aim(None, WriteJournal(journal.close(replace(done, cause="Withdrawn"))))
    if order and order.goal == "Abort":
        return Aim(None, WriteJournal(journal.close(replace(done, cause=order.cause))))
    if order and order.goal == "Commit":
        if view.unhealthy is None:
            return Aim(None, WriteJournal(journal.close(done)))
        if uptime >= timeout:
            fault = Fault("Boot", f"local gate: {view.unhealthy}")
            return Aim(None, WriteJournal(journal.close(replace(done, cause="LocalGate", fault=fault))))
    fault_now = Fault("Boot", f"local gate: {view.unhealthy}") if view.unhealthy is not None else None
    step = build_step(opened.order, "Verifying", goal="Activate", fault=fault_now)
    poll = uptime + GATE_POLL_SECONDS
    return Aim(step, Wait(min(poll, timeout) if uptime < timeout else poll))
