"""What vanished while the operator could not look must not hold its place for ever."""

from __future__ import annotations

import asyncio
from datetime import datetime

import pytest

from careen.api.meta import OPERATOR_USER
from careen.kube.resources import CORE_NODES, LOCKS, NODES
from careen.kube.write import delete
from careen.sandbox.audit import AuditReader, Request
from careen.sandbox.controlplane import ControlPlane

KINDS = (("", "nodes"), ("careen.dev", "nodes"))


@pytest.mark.slow
async def test_a_machine_that_vanished_unseen_gives_its_lock_back(stage, own_plane: ControlPlane):
    with own_plane.proxy() as proxy:
        async with stage(2, operator=False) as scene:
            scene.fleet.start_operator(identity="far", server=proxy.url, lease_seconds=120.0)
            for machine in scene.fleet.machines:
                machine.may_boot.clear()
            await scene.policy()
            await scene.until(scene.holders, "one machine holds the lock")
            (name,) = scene.holders()
            await scene.until(lambda: scene.step(name).get("phase") == "Activating", "it goes down")
            await scene.fleet.power_off(name)
            proxy.cut()
            scene.witness.dismissed = True
            await delete(scene.fleet.admin, CORE_NODES, name)
            await delete(scene.fleet.admin, NODES, name)
            await asyncio.to_thread(forget_history, own_plane)
            audit = AuditReader(own_plane.audit_log)
            assert await read_holders(scene) == [name]
            proxy.restore()
            requests: list[Request] = []
            async with asyncio.timeout(60):
                while name in await read_holders(scene) or not all(find(requests, *kind) for kind in KINDS):
                    # A list says that the history was not there: a mere reconnection makes none.
                    await asyncio.sleep(0.05)
                    requests += [request for request in audit.read() if request.user == OPERATOR_USER]
            requests += [request for request in audit.read() if request.user == OPERATOR_USER]
    returned = max(find(requests, *kind) for kind in KINDS)
    freed = next(instant(r) for r in requests if r.is_write and r.resource == "rebootlocks" and r.code == 200)
    print(f"freed {freed - returned:.3f} s after the watch's return")
    assert freed - returned < 2.0


def forget_history(plane: ControlPlane) -> None:
    """Make a watch from before impossible: the operator's next one is answered with 410."""
    plane.compact_etcd()
    plane.restart_apiserver()


def find(requests: list[Request], group: str, plural: str) -> float:
    """When the operator's watch of a kind was open again, behind a new list of it; 0: not yet."""
    mine = [r for r in requests if (r.group, r.resource, r.code) == (group, plural, 200)]
    listed = min((instant(r) for r in mine if r.verb == "list"), default=float("inf"))
    return min((instant(r) for r in mine if r.verb == "watch" and instant(r) > listed), default=0.0)


def instant(request: Request) -> float:
    return datetime.fromisoformat(request.completed).timestamp()


async def read_holders(scene) -> list[str]:
    status = (await scene.fleet.admin.request("GET", LOCKS.path(name="default"))).body["status"]
    return [holder["id"] for holder in status["holders"]]
