"""A fleet that has nothing to do costs its Leases and nothing else."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from careen.api.meta import AGENT_USER, OPERATOR_USER
from careen.sandbox.audit import AuditReader
from careen.sandbox.controlplane import ControlPlane

MACHINES, SECONDS = 50, 60.0


@pytest.mark.slow
async def test_an_idle_fleet_renews_its_leases_and_writes_nothing_else(stage, own_plane: ControlPlane):
    async with stage(MACHINES, lock=10) as scene:
        await scene.policy(version="1.0.0")
        await scene.complete()
        await asyncio.sleep(5.0)
        audit = AuditReader(own_plane.audit_log)
        await asyncio.sleep(SECONDS)
        ours = [request for request in audit.read() if request.user in (OPERATOR_USER, AGENT_USER)]
    counted = Counter(f"{r.verb} {r.resource}/{r.subresource}" for r in ours)
    print(counted)
    assert [str(r) for r in ours if r.verb == "list" or (r.is_write and r.resource != "leases")] == []
    renewals = Counter(r.name for r in ours if r.is_write and r.user == AGENT_USER)
    assert len(renewals) >= MACHINES * 0.8, "the agents live"
    assert max(renewals.values()) <= 2
