"""What a decision consists of: what the status should say, and the action that comes after that. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from careen.api.node import Assignment, CauseWord, Phase
from careen.api.reasons import rejects
from careen.disk.types import SlotName

from .actions import Disarm, RequestActivation, Step, WriteJournal
from .record import Ended, Fault, Journal, Rejection
from .report import build_step
from .view import AgentView, NodeView

KEEP: Final[dict[str, Any]] = {}
"""Stands for: status.step is right as it is."""


@dataclass(frozen=True)
class Aim:
    """step: what status.step should say before the action; KEEP leaves it; None: no status now, act at once."""

    step: dict[str, Any] | None
    action: Step


def may_be_tried(view: AgentView, slot: SlotName) -> bool:
    """Whether this slot, which does not run, is armed and can be disarmed: the booted one must be good for that."""
    target, booted = view.disk[slot].attributes, view.disk[view.disk.booted].attributes
    return target.priority > 0 and not target.successful and booted.good


def end_order(journal: Journal, end: Ended, *, digest: str, lost_attempts: int, retry: int) -> WriteJournal:
    """The journal with this order ended, and its digest rejected if the cause says so. retry: spec.retry now."""
    closed = journal.close(end)
    # People reject also what was never booted: they called it off.
    rejecting = end.phase == "RolledBack" or end.cause == "People"
    if end.cause and rejecting and rejects(end.cause, lost_attempts):
        closed = closed.reject(Rejection(digest, end.cause, retry))
    return WriteJournal(closed)


def end_unarmed(
    view: AgentView,
    journal: Journal,
    order: Assignment,
    phase: Phase,
    *,
    cause: CauseWord | None = None,
    fault: Fault | None = None,
) -> Aim:
    """End an order that the journal does not show as armed. Should the slot be armed all the same, disarm it first."""
    if may_be_tried(view, view.disk.passive):
        return Aim(None, Disarm(view.disk.passive))
    retry = view.node.retry if view.node else 0
    end = Ended(order.id, phase, order.goal, "ROLLBACK" if phase == "RolledBack" else None, cause, fault)
    release = order.release.digest
    return Aim(None, end_order(journal, end, digest=release, lost_attempts=order.lost_attempts, retry=retry))


def request_activation(node: NodeView, order: Assignment) -> RequestActivation:
    """The question to the API server whether this order still says Activate (rule 3).

    The step must be what was shown, so that a question that arrives late puts no Activating over the order's end.
    """
    tests = {
        "/metadata/uid": node.uid,
        "/spec/assignment/id": order.id,
        "/spec/assignment/goal": "Activate",
        "/status/step/id": order.id,
        "/status/step/phase": node.step.get("phase"),
    }
    patch = [{"op": "test", "path": path, "value": value} for path, value in tests.items()]
    step = build_step(order.id, "Activating", goal="Activate")
    return RequestActivation(node.uid, order.id, (*patch, {"op": "add", "path": "/status/step", "value": step}))
