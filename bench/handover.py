"""Hand-over: from the status write that frees the lock to the accepted write of the next goal Activate."""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from careen.api.meta import AGENT_USER, GROUP, OPERATOR_USER
from careen.kube.resources import LOCKS, NODES, POLICIES
from careen.kube.session import Session
from careen.kube.write import create, patch_merge
from careen.sandbox.audit import AuditReader
from careen.sandbox.fleet import Fleet, run_fleet

MACHINES, AT_ONCE, BOOT_SECONDS = 100, 10, 5.0


@dataclass(frozen=True)
class Handover:
    """Figures of one run."""

    p50_ms: float
    p99_ms: float
    count: int
    seconds: float
    efficiency: float


async def measure(machines: int = MACHINES, at_once: int = AT_ONCE, boot_seconds: float = BOOT_SECONDS) -> Handover:
    """Roll a pre-staged fleet and measure it, from the instants at which the API server answered the writes."""
    async with run_fleet(machines, boot_seconds=boot_seconds) as fleet:
        fleet.start_operator()
        # Nobody gets the lock, but everybody may stage.
        await patch_merge(fleet.admin, LOCKS, "default", {"spec": {"max": 0}})
        policy = make_policy(fleet.repository, at_once)
        await create(fleet.admin, POLICIES, policy)
        await wait_staged(fleet.admin, machines, 240.0)
        await asyncio.sleep(2.0)
        started, since = time.monotonic(), time.time()
        await patch_merge(fleet.admin, LOCKS, "default", {"spec": {"max": at_once}})
        await wait_complete(fleet, machines * boot_seconds / at_once * 4 + 60)
        seconds = time.monotonic() - started
        await asyncio.sleep(1.0)
        freed, activated = read_instants(fleet.plane.audit_log, since)
        return summarize(pair_handovers(freed, activated, at_once), seconds, machines, at_once, boot_seconds)


def make_policy(repository: str, at_once: int, version: str = "2.0.0") -> dict[str, Any]:
    """One wave, no drain to speak of, no waiting."""
    return {
        "metadata": {"name": "bench"},
        "spec": {
            "release": {"repository": repository, "version": version},
            "strategy": {"maxUnavailable": at_once, "maxStaging": 1000},
        },
    }


def read_instants(audit: Path, since: float) -> tuple[list[float], list[float]]:
    """When each machine's last status write and its goal Activate were answered, from the audit log.

    The log has no bodies, but the order of writes is the protocol: in a roll of staged machines the operator's
    first write of a Node's spec is Activate, and the agent's last write of its status is Committed.
    """
    activated: dict[str, float] = {}
    committed: dict[str, float] = {}
    for request in AuditReader(audit, from_end=False).read():
        instant = datetime.fromisoformat(request.completed).timestamp()
        ours = request.group == GROUP and request.resource == "nodes" and request.verb == "patch"
        if not ours or instant < since or request.code >= 300:
            continue
        if request.user == OPERATOR_USER and not request.subresource:
            activated.setdefault(request.name, instant)
        if request.user == AGENT_USER and request.subresource == "status":
            committed[request.name] = instant
    return list(committed.values()), list(activated.values())


def pair_handovers(freed: Iterable[float], activated: Iterable[float], at_once: int) -> list[float]:
    """Seconds from each freeing to the activation that it made possible: places are taken in order."""
    later = sorted(activated)[at_once:]
    return [max(0.0, start - end) for end, start in zip(sorted(freed), later, strict=False)]


def summarize(handovers: list[float], seconds: float, machines: int, at_once: int, boot_seconds: float) -> Handover:
    """The figures."""
    gaps = sorted(gap * 1000 for gap in handovers)
    ideal = math.ceil(machines / at_once) * boot_seconds
    return Handover(
        p50_ms=statistics.median(gaps),
        p99_ms=gaps[min(len(gaps) - 1, math.ceil(len(gaps) * 0.99) - 1)],
        count=len(gaps),
        seconds=seconds,
        efficiency=ideal / seconds,
    )


async def wait_staged(session: Session, count: int, timeout: float) -> None:
    """Wait until all machines are staged, by one list a second."""
    async with asyncio.timeout(timeout):
        while True:
            items = (await session.request("GET", NODES.path())).body["items"]
            if sum((item.get("status", {}).get("step") or {}).get("phase") == "Staged" for item in items) == count:
                return
            await asyncio.sleep(1.0)


async def wait_complete(fleet: Fleet, timeout: float) -> None:
    """Wait until the policy is Complete for its current generation."""
    async with asyncio.timeout(timeout):
        while True:
            policy = (await fleet.admin.request("GET", POLICIES.path(name="bench"))).body
            conditions = policy.get("status", {}).get("conditions", [])
            generation = policy["metadata"]["generation"]
            if any(
                c["type"] == "Complete" and c["status"] == "True" and c.get("observedGeneration") == generation
                for c in conditions
            ):
                return
            await asyncio.sleep(0.1)
