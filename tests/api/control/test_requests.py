"""What one machine's whole update costs the API server, by its own audit log."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from datetime import datetime

from careen.api.meta import AGENT_USER, OPERATOR_USER
from careen.kube.resources import EVENTS, NODES
from careen.sandbox.audit import AuditReader
from careen.sandbox.controlplane import ControlPlane

PODS = ("app-1", "app-2")


def count(requests, user: str) -> Counter[str]:
    """Accepted and refused requests of one account: `VERB GROUP/RESOURCE/SUBRESOURCE`."""
    mine = (r for r in requests if r.user == user)
    return Counter(f"{r.verb} {r.group}/{r.resource}/{r.subresource}" for r in mine)


async def test_one_update_stays_within_its_requests(stage, own_plane: ControlPlane, make_pod):
    async with stage(1) as scene:
        for name in PODS:
            await make_pod(scene, name, "node-1")
        await asyncio.sleep(1.0)
        audit = AuditReader(own_plane.audit_log)
        await scene.policy(readySeconds=1)
        await scene.complete()
        await asyncio.sleep(2.0)
        requests = audit.read()
        assert scene.version("node-1") == "2.0.0"
        events = (await scene.fleet.admin.request("GET", EVENTS.path("default"))).body["items"]
    operator, agent = count(requests, OPERATOR_USER), count(requests, AGENT_USER)
    print(operator, agent)
    notes = [node.get("status", {}).get("orchestration") for node in scene.witness.history(NODES, "node-1")]
    writes = ("patch careen.dev/nodes/", "patch careen.dev/rebootlocks/status", "patch /nodes/")
    assert sum(operator[write] for write in writes) <= 8, operator
    assert operator["patch careen.dev/nodes/status"] <= 5, [note for note, _ in itertools.groupby(notes)]
    assert operator["create /pods/eviction"] == len(PODS), operator
    assert sum(number for key, number in operator.items() if key.startswith("list ")) <= 2, operator
    assert agent["patch careen.dev/nodes/status"] <= 8, agent
    ours = [event for event in events if event["reportingController"] == "careen.dev/operator"]
    told = [event["reason"] for event in ours if event["regarding"]["kind"] == "Node"]
    assert sorted(told) == ["Activating", "Updated"]
    policy = [r for r in requests if (r.user, r.resource, r.subresource) == (OPERATOR_USER, "updatepolicies", "status")]
    instants = [datetime.fromisoformat(request.completed).timestamp() for request in policy]
    # The very first one, which begins the rollout and which orders wait for, may follow at once on another.
    gaps = [after - before for before, after in itertools.pairwise(instants[1:])]
    assert min(gaps, default=1.0) > 0.9, gaps
