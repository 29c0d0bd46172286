"""What a plan decided into the documents that the API server takes: the inverse of decode, field by field."""

from typing import Any

from careen.api.reasons import Reason

from .actions import PolicyState, WriteLock, WriteNote, WriteOutcome
from .conditions import encode_conditions
from .instants import format_instant
from .releases import Release, Resolved
from .snapshot import Holder, Lock, Machine, Order, Policy, Rollout


def encode_order(order: Order) -> dict[str, Any]:
    """A Node's spec.assignment."""
    terms = order.terms
    body: dict[str, Any] = {
        "id": order.id,
        "attempt": order.attempt,
        "lostAttempts": order.lost_attempts,
        "retry": order.retry,
        "goal": order.goal,
        "terms": {
            "lock": terms.lock,
            "readySeconds": terms.ready_seconds,
            "verifyTimeoutSeconds": terms.verify_timeout_seconds,
            "commitTimeoutSeconds": terms.commit_timeout_seconds,
            "onSilence": terms.on_silence,
            "bootMethod": terms.boot_method,
            "drainTimeoutSeconds": terms.drain_timeout_seconds,
            "allowNoDeadman": terms.allow_no_deadman,
            "allowDowngrade": terms.allow_downgrade,
        },
    }
    if terms.bytes_per_second is not None:
        body["terms"]["bytesPerSecond"] = terms.bytes_per_second
    if order.policy:
        body["policy"] = {"name": order.policy, "uid": order.policy_uid}
    if order.request is None:
        body |= {"rollout": order.rollout, "release": _encode_address(order.release)}
    else:
        body["request"] = {"action": order.request.action, "id": order.request.id}
    if order.cause is not None:
        body["cause"] = order.cause
    if order.from_boot_id is not None:
        body["fromBootID"] = order.from_boot_id
    return body


def _encode_release(release: Release) -> dict[str, Any]:
    return {
        "repository": release.repository,
        "version": release.version,
        "digest": release.digest,
        "sizeBytes": release.size_bytes,
        "path": release.path,
    }


def _encode_address(release: Release) -> dict[str, Any]:
    body = _encode_release(release)
    if release.mirrors:
        body["mirrors"] = list(release.mirrors)
    return body


def encode_holder(holder: Holder) -> dict[str, Any]:
    """One entry of a RebootLock's status.holders."""
    body = {
        "id": holder.id,
        "order": holder.order,
        "nodeUID": holder.node_uid,
        "coreNodeUID": holder.core_node_uid,
        "machineID": holder.machine_id,
        "since": format_instant(holder.since),
        "by": holder.by,
        "reason": holder.reason,
        "unavailableAtGrant": holder.unavailable_at_grant,
    }
    return {key: value for key, value in body.items() if value is not None}


def encode_lock_status(lock: Lock, write: WriteLock, now: float) -> dict[str, Any]:
    """A RebootLock's whole status; `lock` is what is stored now, for the times of its conditions."""
    available = write.max - len(write.holders)
    ready = available > 0 and not write.paused
    reason = Reason.LOCK_PAUSED if write.paused else Reason.AVAILABLE if ready else Reason.LOCK_FULL
    message = f"{len(write.holders)} of {write.max} held"
    rows = (
        ("Ready", ready, str(reason), message),
        ("Reconciling", False, str(Reason.AVAILABLE), ""),
        ("Stalled", False, str(Reason.AVAILABLE), ""),
    )
    return {
        "observedGeneration": write.generation,
        "term": write.term,
        "available": available,
        "holders": [encode_holder(holder) for holder in write.holders],
        "conditions": encode_conditions(rows, lock.conditions, write.generation, now),
    }


def encode_note(machine: Machine, write: WriteNote, now: float) -> dict[str, Any]:
    """The operator's part of a Node's status; `machine` is what is stored now, for the times of its conditions."""
    note = write.note
    orchestration = {
        "state": note.state,
        "reason": note.reason,
        "message": note.message,
        "since": format_instant(note.since),
        "settledSince": format_instant(note.settled_since) if note.settled_since is not None else None,
        "settledBootID": note.settled_boot,
    }
    ready, stalled = note.state == "UpToDate", note.state == "Failed"
    rows = (
        ("Ready", ready, note.reason, note.message),
        ("Reconciling", not ready and not stalled and note.state != "Unmanaged", note.reason, ""),
        ("Stalled", stalled, note.reason, note.message if stalled else ""),
    )
    return {
        "observedGeneration": write.generation,
        "orchestration": orchestration,
        "conditions": encode_conditions(rows, machine.conditions, write.generation, now),
    }


def encode_outcome(write: WriteOutcome, now: float) -> dict[str, Any]:
    """What came of a request, as a Node's status."""
    outcome = write.outcome
    body = {
        "id": outcome.request.id,
        "action": outcome.request.action,
        "outcome": outcome.outcome,
        "cause": outcome.cause,
        "message": outcome.message[:1024],
        "order": outcome.order,
        "finishedAt": format_instant(now),
    }
    return {"request": {key: value for key, value in body.items() if value is not None}}


def encode_rollout(rollout: Rollout) -> dict[str, Any]:
    """An UpdatePolicy's status.rollout."""
    body: dict[str, Any] = {
        "id": rollout.id,
        "number": rollout.number,
        **_encode_release(rollout.release),
        "startedAt": format_instant(rollout.started_at),
        "wave": rollout.wave,
        "waveNames": list(rollout.wave_names),
        "waveBounds": list(rollout.wave_bounds),
        "failures": [
            {"node": f.node, "nodeUID": f.node_uid, "order": f.order, "cause": f.cause} for f in rollout.failures
        ],
        "failed": rollout.failed,
        "forgiven": rollout.forgiven,
    }
    if rollout.release.min_version is not None:
        body["minVersion"] = rollout.release.min_version
    if rollout.release.capabilities:
        body["capabilities"] = list(rollout.release.capabilities)
    if rollout.release.architectures:
        body["architectures"] = list(rollout.release.architectures)
    if rollout.wave_done_at is not None:
        body["waveDoneAt"] = format_instant(rollout.wave_done_at)
    if rollout.halted_at is not None:
        body["haltedAt"] = format_instant(rollout.halted_at)
    return body


def _encode_resolved(resolved: Resolved) -> dict[str, Any]:
    body: dict[str, Any] = {
        "repository": resolved.repository,
        "version": resolved.version,
        "digest": resolved.digest,
        "resolvedAt": format_instant(resolved.resolved_at),
    }
    if resolved.channel is not None:
        body["channel"] = resolved.channel
    return body


def encode_policy_status(policy: Policy, state: PolicyState, now: float) -> dict[str, Any]:
    """An UpdatePolicy's whole status; a condition keeps its time while its status stays the same."""
    counts = dict(state.counts)
    rows = ((name, status == "True", reason, message) for name, status, reason, message in state.conditions)
    body: dict[str, Any] = {
        "observedGeneration": state.generation,
        "counts": counts,
        "summary": f"{counts.get('updated', 0)}/{counts.get('selected', 0)}",
        "conditions": encode_conditions(rows, policy.conditions, state.generation, now),
    }
    if state.resolved is not None:
        body["release"] = _encode_resolved(state.resolved)
    if state.rollout is not None:
        body["rollout"] = encode_rollout(state.rollout)
    return body
