"""The agent's part of the Node's status, as it should be, and the smallest write that makes it so. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from careen.api.meta import PROTOCOL
from careen.api.node import Assignment, CauseWord, Goal, Phase

from .actions import WriteStatus
from .decision import decide_boot
from .record import Ended, Fault, Moved, Rejection, Verdict
from .view import AgentView, HostFacts, NodeView, SlotView

MAX_MESSAGE = 1024
MAX_FAULTS = 4

Document = dict[str, Any]


def build_step(
    order: str,
    phase: Phase,
    *,
    goal: Goal | None = None,
    verdict: Verdict | None = None,
    cause: CauseWord | None = None,
    fault: Fault | None = None,
    progress: tuple[int, Moved] | None = None,
) -> Document:
    """status.step as a document. progress: bytes of the largest image, and how far its staging is."""
    document: Document = {"id": order, "phase": phase}
    if goal:
        document["observedGoal"] = goal
    if verdict:
        document["verdict"] = verdict
    if cause:
        document["cause"] = cause
    if fault:
        document["error"] = {"class": fault.class_, "message": fault.message[:MAX_MESSAGE]}
    if progress:
        total, moved = progress
        document["progress"] = {
            "bytesTotal": moved.size or total,
            "bytesReused": moved.reused,
            "bytesFetched": moved.fetched,
            "bytesSkipped": moved.skipped,
        }
    return document


def report_fault(node: NodeView, fault: Fault) -> WriteStatus | None:
    """The write that says why nothing goes on; None if the status says it. The phase stays as it is."""
    step = node.step or build_step("", "Idle")
    error = {"class": fault.class_, "message": fault.message[:MAX_MESSAGE]}
    patch = _diff(node.status, {"step": {**step, "error": error}})
    return WriteStatus(node.uid, patch, node.resource_version) if patch else None


def build_ended(end: Ended, goal: Goal | None) -> Document:
    """status.step of an order that has ended, as the answer to a goal."""
    return build_step(
        end.order, end.phase, goal=goal or end.goal, verdict=end.verdict, cause=end.cause, fault=end.fault
    )


def write_status(view: AgentView, node: NodeView, step: Document | None, *, quiet: bool) -> WriteStatus | None:
    """The write that brings the status up to date, or None if it is.

    step: what status.step should say; None leaves it. quiet: nothing else is going on, so that a mere change of the
    slots' attributes is worth a write of its own. Progress never is; it rides along.
    """
    desired = _describe_machine(view, node, node.step if step is None else step)
    if step is not None:
        desired["step"] = step
    patch = _diff(node.status, desired)
    worth = dict(patch)
    if not quiet:
        worth.pop("slots", None)
    if set(worth.get("step") or {}) <= {"progress"}:
        worth.pop("step", None)
    return WriteStatus(node.uid, patch, node.resource_version) if worth else None


def _find_open(view: AgentView, node: NodeView, step: Mapping[str, Any]) -> Assignment | None:
    """The order of the Node until it has ended; after that its terms decide nothing any more."""
    order = node.assignment
    if order is None or (view.journal is not None and view.journal.find_ended(order.id)):
        return None
    ended = step.get("id") == order.id and step.get("phase") in ("Committed", "RolledBack")
    return None if ended else order


def _describe_machine(view: AgentView, node: NodeView, step: Mapping[str, Any]) -> Document:
    facts, journal = view.facts, view.journal
    rejected = [_describe_rejection(entry) for entry in journal.rejected] if journal else []
    return {
        "slots": {"A": _describe_slot(view.disk.a), "B": _describe_slot(view.disk.b)},
        "gpt": _describe_table(view),
        "booted": view.disk.booted.value,
        "bootID": view.boot.boot_id,
        "bootMethod": view.boot.method,
        "kernelStarted": facts.kernel_started,
        "agentStarted": facts.agent_started,
        "bootDecision": _describe_decision(node, _find_open(view, node, step), facts),
        "architecture": facts.architecture,
        "machineID": view.boot.machine_id,
        "protocol": PROTOCOL,
        "osImage": facts.os_image,
        "kernel": facts.kernel,
        "agentVersion": facts.agent_version,
        "rejected": rejected or None,
    }


def _describe_decision(node: NodeView, order: Assignment | None, facts: HostFacts) -> Document | None:
    if facts.boot_decision is None:
        return None
    wish = order.terms.boot_method if order else node.boot_method
    decision = decide_boot(wish, facts, order.release.digest if order else None)
    return {
        "method": decision.method,
        "reason": decision.reason,
        "message": decision.message[:MAX_MESSAGE],
        "deadman": decision.deadman,
    }


def _describe_slot(slot: SlotView) -> Document:
    document: Document = {
        "partition": slot.partition,
        "priority": slot.attributes.priority,
        "tries": slot.attributes.tries,
        "successful": slot.attributes.successful,
    }
    if slot.version:
        document["version"] = slot.version
    if slot.digest:
        document["digest"] = slot.digest
    return document


def _describe_table(view: AgentView) -> Document | None:
    faults, repair = view.disk.faults, view.disk.repair
    document: Document = {"faults": _bound(faults)} if faults else {}
    if repair is not None:
        document |= {"repairedAt": repair.at, "repaired": _bound(repair.faults)}
    return document or None


def _bound(sentences: Sequence[str]) -> list[str]:
    return [sentence[:MAX_MESSAGE] for sentence in sentences[:MAX_FAULTS]]


def _describe_rejection(entry: Rejection) -> Document:
    return {"digest": entry.digest, "cause": entry.cause, "retry": entry.retry}


def _diff(current: Mapping[str, Any], desired: Mapping[str, Any]) -> Document:
    """The merge patch (RFC 7396) that turns the keys of `desired` from what they are to what they should be."""
    patch: Document = {}
    for key, value in desired.items():
        if value is None:
            if current.get(key) is not None:
                patch[key] = None
        elif isinstance(value, dict):
            old = current.get(key) or {}
            gone = {name: None for name in old if name not in value}
            if inner := {**gone, **_diff(old, value)}:
                patch[key] = inner
        elif current.get(key) != value:
            patch[key] = value
    return patch
