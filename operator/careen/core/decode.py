"""Objects as the API server sends them (plain dicts) into the frozen views of a snapshot.

Tolerant where the schema is older or newer than we are: absent means default, unknown fields are ignored.
"""

import re
from collections.abc import Mapping
from math import inf
from typing import Any

from careen.api.meta import CORDONED_ANNOTATION, RESUME_ANNOTATION

from .conditions import decode_conditions
from .instants import parse_instant
from .pods import Pod
from .releases import NO_RELEASE, Release, Resolved
from .snapshot import (
    CoreNode,
    Failure,
    Holder,
    Lock,
    Machine,
    Note,
    Order,
    Policy,
    Requirement,
    Rollout,
    Slot,
    Step,
    Terms,
    Wave,
)
from .unitdocs import decode_machine_units
from .wishes import Outcome, Request

Document = Mapping[str, Any]


def decode_core_node(obj: Document) -> CoreNode:
    """A core/v1 Node."""
    meta, status = obj["metadata"], obj.get("status") or {}
    info = status.get("nodeInfo") or {}
    created = parse_instant(meta.get("creationTimestamp"))
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ())
    return CoreNode(
        name=meta["name"],
        uid=meta["uid"],
        resource_version=meta["resourceVersion"],
        labels=meta.get("labels") or {},
        ready=ready,
        unschedulable=bool((obj.get("spec") or {}).get("unschedulable")),
        boot_id=info.get("bootID") or "",
        machine_id=info.get("machineID") or "",
        cordoned_for=(meta.get("annotations") or {}).get(CORDONED_ANNOTATION),
        created=inf if created is None else created,
    )


def decode_pod(obj: Document) -> Pod | None:
    """A pod that a drain has to move; None for DaemonSet, mirror, finished and unscheduled ones."""
    meta, spec = obj["metadata"], obj.get("spec") or {}
    if not spec.get("nodeName") or (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return None
    if "kubernetes.io/config.mirror" in (meta.get("annotations") or {}):
        return None
    if any(owner.get("kind") == "DaemonSet" and owner.get("controller") for owner in meta.get("ownerReferences") or ()):
        return None
    return Pod(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        node=spec["nodeName"],
        deleting="deletionTimestamp" in meta,
    )


def decode_machine(obj: Document) -> Machine:
    """A careen Node."""
    meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    core = spec.get("coreNode") or {}
    slots = {
        letter: Slot(
            bool(slot.get("successful")),
            slot.get("version"),
            slot.get("digest"),
            slot.get("priority") or 0,
            slot.get("tries") or 0,
        )
        for letter, slot in (status.get("slots") or {}).items()
    }
    return Machine(
        name=meta["name"],
        uid=meta["uid"],
        resource_version=meta["resourceVersion"],
        generation=meta.get("generation", 0),
        created=parse_instant(meta.get("creationTimestamp")) or 0.0,
        labels=meta.get("labels") or {},
        core_uid=core.get("uid") or "",
        core_machine_id=core.get("machineID") or "",
        paused=bool(spec.get("paused")),
        boot_method=(spec.get("boot") or {}).get("method"),
        retry=spec.get("retry") or 0,
        abort=spec.get("abort") or None,
        request=_decode_request(spec.get("request")),
        outcome=_decode_outcome(status.get("request")),
        deadman=(status.get("bootDecision") or {}).get("deadman"),
        order=decode_order(spec["assignment"]) if spec.get("assignment") else None,
        booted=status.get("booted"),
        boot_id=status.get("bootID") or "",
        protocol=status.get("protocol"),
        architecture=status.get("architecture"),
        last_boot=status.get("bootMethod"),
        agent_version=status.get("agentVersion"),
        slots=slots,
        step=_decode_step(status.get("step") or {}),
        rejected=tuple((entry["digest"], entry.get("retry", 0)) for entry in status.get("rejected") or ()),
        note=_decode_note(status.get("orchestration")),
        units=decode_machine_units(spec, status),
        conditions=decode_conditions(status),
    )


def decode_order(spec: Document) -> Order:
    """A Node's spec.assignment."""
    release, terms, policy = spec.get("release"), spec["terms"], spec.get("policy") or {}
    return Order(
        id=spec["id"],
        attempt=spec.get("attempt", 0),
        lost_attempts=spec.get("lostAttempts", 0),
        retry=spec.get("retry", 0),
        policy=policy.get("name", ""),
        policy_uid=policy.get("uid", ""),
        rollout=spec.get("rollout", ""),
        release=_decode_release(release) if release else NO_RELEASE,
        goal=spec["goal"],
        cause=spec.get("cause"),
        from_boot_id=spec.get("fromBootID"),
        terms=Terms(
            lock=terms["lock"],
            ready_seconds=terms["readySeconds"],
            verify_timeout_seconds=terms["verifyTimeoutSeconds"],
            commit_timeout_seconds=terms["commitTimeoutSeconds"],
            on_silence=terms["onSilence"],
            boot_method=terms["bootMethod"],
            drain_timeout_seconds=terms["drainTimeoutSeconds"],
            allow_no_deadman=bool(terms.get("allowNoDeadman")),
            allow_downgrade=bool(terms.get("allowDowngrade")),
            bytes_per_second=terms.get("bytesPerSecond"),
        ),
        request=_decode_request(spec.get("request")),
    )


def _decode_request(request: Document | None) -> Request | None:
    return Request(request["action"], request["id"]) if request else None


def _decode_outcome(told: Document | None) -> Outcome | None:
    if not told:
        return None
    request = Request(told["action"], told["id"])
    return Outcome(request, told["outcome"], told.get("cause"), told.get("message") or "", told["order"])


def _decode_release(release: Document) -> Release:
    return Release(
        repository=release["repository"],
        version=release["version"],
        digest=release["digest"],
        size_bytes=release["sizeBytes"],
        path=release["path"],
        mirrors=tuple(release.get("mirrors") or ()),
        min_version=release.get("minVersion"),
        capabilities=tuple(release.get("capabilities") or ()),
        architectures=tuple(release.get("architectures") or ()),
    )


def _decode_step(step: Document) -> Step:
    error = step.get("error") or {}
    return Step(
        id=step.get("id") or "",
        observed_goal=step.get("observedGoal"),
        phase=step.get("phase") or "Idle",
        cause=step.get("cause"),
        error_class=error.get("class"),
        error_message=error.get("message") or "",
    )


def _decode_note(note: Document | None) -> Note | None:
    if not note:
        return None
    return Note(
        state=note["state"],
        reason=note["reason"],
        message=note.get("message") or "",
        since=parse_instant(note.get("since")) or 0.0,
        settled_since=parse_instant(note.get("settledSince")),
        settled_boot=note.get("settledBootID"),
    )


def decode_lock(obj: Document) -> Lock:
    """A RebootLock."""
    meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    return Lock(
        name=meta["name"],
        uid=meta["uid"],
        resource_version=meta["resourceVersion"],
        generation=meta.get("generation", 0),
        max=spec.get("max", 0),
        paused=bool(spec.get("paused")),
        term=status.get("term") or 0,
        observed_generation=status.get("observedGeneration") or 0,
        holders=tuple(
            Holder(
                id=entry["id"],
                since=parse_instant(entry.get("since")) or 0.0,
                order=entry.get("order"),
                node_uid=entry.get("nodeUID"),
                core_node_uid=entry.get("coreNodeUID"),
                machine_id=entry.get("machineID"),
                by=entry.get("by"),
                reason=entry.get("reason"),
                unavailable_at_grant=bool(entry.get("unavailableAtGrant")),
            )
            for entry in status.get("holders") or ()
        ),
        conditions=decode_conditions(status),
    )


def decode_policy(obj: Document) -> Policy:
    """An UpdatePolicy."""
    meta, spec, status = obj["metadata"], obj["spec"], obj.get("status") or {}
    strategy, release, drain = spec.get("strategy") or {}, spec["release"], spec.get("drain") or {}
    boot = spec.get("boot") or {}
    return Policy(
        name=meta["name"],
        uid=meta["uid"],
        resource_version=meta["resourceVersion"],
        generation=meta.get("generation", 0),
        selector=decode_selector(spec.get("selector") or {}),
        repository=release["repository"],
        version=release.get("version"),
        digest=release.get("digest"),
        channel=release.get("channel"),
        mirrors=tuple(release.get("mirrors") or ()),
        terms=Terms(
            lock=strategy.get("lock", "default"),
            ready_seconds=spec.get("readySeconds", 0),
            verify_timeout_seconds=spec.get("verifyTimeoutSeconds", 600),
            commit_timeout_seconds=boot.get("commitTimeoutSeconds", 600),
            on_silence=boot.get("onSilence", "Rollback"),
            boot_method=boot.get("method", "Auto"),
            drain_timeout_seconds=drain.get("timeoutSeconds", 3600),
            allow_no_deadman=bool(boot.get("allowNoDeadman")),
            allow_downgrade=bool(release.get("allowDowngrade")),
            bytes_per_second=release.get("bytesPerSecond"),
        ),
        paused=bool(spec.get("paused")),
        max_unavailable=strategy.get("maxUnavailable", 1),
        topology=tuple((t["key"], t["maxUnavailable"]) for t in strategy.get("topology") or ()),
        max_staging=strategy.get("maxStaging", 10),
        waves=tuple(_decode_wave(wave) for wave in strategy.get("waves") or ()),
        drain_retry_seconds=drain.get("retrySeconds", 300),
        max_failed=(spec.get("failure") or {}).get("maxFailed", 0),
        resume=_decode_resume((meta.get("annotations") or {}).get(RESUME_ANNOTATION)),
        resolved=_decode_resolved(status["release"]) if status.get("release") else None,
        rollout=_decode_rollout(status["rollout"], meta["uid"]) if status.get("rollout") else None,
        observed_generation=status.get("observedGeneration") or 0,
        conditions=decode_conditions(status),
        counts=status.get("counts") or {},
    )


def decode_selector(selector: Document) -> tuple[Requirement, ...]:
    """A label selector as requirements."""
    labels = tuple(
        Requirement(key, "In", (value,)) for key, value in sorted((selector.get("matchLabels") or {}).items())
    )
    expressions = tuple(
        Requirement(e["key"], e["operator"], tuple(e.get("values") or ()))
        for e in selector.get("matchExpressions") or ()
    )
    return labels + expressions


def _decode_wave(wave: Document) -> Wave:
    return Wave(
        name=wave["name"],
        count=wave.get("count"),
        percent=wave.get("percent"),
        node_names=tuple(wave.get("nodeNames") or ()),
        soak_seconds=wave.get("soakSeconds", 0),
    )


def _decode_resume(value: str | None) -> tuple[str, int] | None:
    """The annotation ROLLOUT/N; anything else is as if it were not there.

    People write it by hand: whatever int() takes offence at (other alphabets' digits, thousands of them) must not end
    the operator.
    """
    rollout, _, number = (value or "").rpartition("/")
    return (rollout, int(number)) if rollout and re.fullmatch(r"[0-9]{1,9}", number) else None


def _decode_resolved(release: Document) -> Resolved:
    return Resolved(
        repository=release["repository"],
        channel=release.get("channel"),
        version=release["version"],
        digest=release["digest"],
        resolved_at=parse_instant(release.get("resolvedAt")) or 0.0,
    )


def _decode_rollout(rollout: Document, policy_uid: str) -> Rollout:
    return Rollout(
        id=rollout["id"],
        number=rollout["number"],
        release=_decode_release(rollout),
        started_at=parse_instant(rollout["startedAt"]) or 0.0,
        wave=rollout.get("wave", 0),
        wave_names=tuple(rollout["waveNames"]),
        wave_bounds=tuple(rollout["waveBounds"]),
        wave_done_at=parse_instant(rollout.get("waveDoneAt")),
        failures=tuple(
            Failure(entry["node"], entry["nodeUID"], entry["order"], entry["cause"])
            for entry in rollout.get("failures") or ()
        ),
        failed=rollout.get("failed", 0),
        forgiven=rollout.get("forgiven", 0),
        halted_at=parse_instant(rollout.get("haltedAt")),
        policy_uid=policy_uid,
    )
