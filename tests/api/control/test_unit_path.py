"""One unit's whole way: the verbs, the operator, the machine's own books, and what it costs the API server."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import datetime
from pathlib import Path

from careen.api.meta import AGENT_USER, OPERATOR_USER
from careen.kube.resources import UNITS
from careen.sandbox.audit import AuditReader, Request
from careen.sandbox.controlplane import ControlPlane
from unit_fleets import CONTENT, create_units, make_unit
from unit_ledger import count_jobs, keep_ledger

SETTLED_SECONDS = 4.0
"""After it nothing more is written: agents and operator gather news for a second or two."""


async def careen(scene, *words: str) -> tuple[int, str, str]:
    """`careen unit …` as a user runs it: exit code, standard output, standard error."""
    command = [sys.executable, "-m", "careen", "--kubeconfig", str(scene.fleet.plane.kubeconfig), "unit", *words]
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=os.environ | {"NO_COLOR": "1"})
    out, err = await asyncio.wait_for(child.communicate(), 90)
    assert child.returncode is not None
    return child.returncode, out.decode(), err.decode()


async def test_a_unit_is_started_shown_stopped_and_destroyed(stage, own_plane: ControlPlane, tmp_path: Path) -> None:
    path = tmp_path / "web@1.service"
    path.write_text(CONTENT)
    async with stage(2) as scene, keep_ledger(scene.fleet.machines) as ledger:
        code, out, err = await careen(scene, "start", str(path))
        assert (code, err) == (0, ""), (code, out, err)
        # Who waits for the verb may rely on it: the unit runs when it ends.
        machine = ledger.place("web@1.service")
        assert out == f"Unit web@1.service launched on {machine}\n"
        code, out, err = await careen(scene, "status", "--via", "none", "web@1")
        assert (code, err) == (0, ""), (code, out, err)
        assert f"Machine: {machine}" in out
        assert f"loaded, active (running) on {machine}" in out
        code, out, _ = await careen(scene, "list-units", "--no-legend", "--fields", "unit,active,sub")
        assert (code, out.split()) == (0, ["web@1.service", "active", "running"])
        assert await careen(scene, "stop", "web@1") == (0, "", "Successfully stopped units [web@1.service].\n")
        assert not ledger.find("web@1.service")
        assert count_jobs(scene.fleet.machines) == {(machine, "web@1.service"): (1, 1, "inactive")}
        assert (await careen(scene, "start", "web@1"))[0] == 0
        assert ledger.place("web@1.service") == machine
        code, out, err = await careen(scene, "destroy", "web@1")
        assert (code, out, err) == (0, "Destroyed web@1.service\n", "")
        await ledger.until(lambda: count_jobs(scene.fleet.machines) == {}, "systemd has forgotten it", 5)
        assert (await scene.fleet.admin.request("GET", UNITS.path())).body["items"] == []
        assert (await careen(scene, "status", "--via", "none", "web@1"))[0] == 1
        await scene.until(lambda: not scene.node(machine)["spec"].get("units"), "the order is gone", 10)
        await scene.until(lambda: not scene.node(machine)["status"].get("units"), "the report is gone", 10)


async def test_placing_one_unit_takes_few_writes(stage, own_plane: ControlPlane) -> None:
    async with stage(3) as scene, keep_ledger(scene.fleet.machines) as ledger:
        # The first unit of a cluster is no exception, but the machines' first reports are not its costs.
        await asyncio.sleep(SETTLED_SECONDS)
        audit = AuditReader(own_plane.audit_log)
        await create_units(scene.fleet.admin, [make_unit("web.service")])
        await ledger.until(lambda: ledger.place("web.service"), "it runs", 30)
        machine = ledger.place("web.service")
        await asyncio.sleep(SETTLED_SECONDS)
        requests = [request for request in audit.read() if request.is_write and request.group == "careen.dev"]
        unit = (await scene.fleet.admin.request("GET", UNITS.path(name="web.service"))).body
    assert unit["status"]["currentState"] == "launched"
    assert unit["status"]["counts"]["active"] == 1
    operator = [request for request in requests if request.user == OPERATOR_USER]
    agent = [request for request in requests if request.user == AGENT_USER]
    told = [describe(request) for request in operator]
    print(told, [describe(request) for request in agent])
    # The decision, then the order; the third tells what the machine reports.
    assert told[:2] == ["patch units/web.service/status 200", f"patch nodes/{machine} 200"]
    assert told[2:] in ([], ["patch units/web.service/status 200"], ["patch units/web.service/status 200"] * 2)
    assert 1 <= len(agent) <= 3
    assert {describe(request) for request in agent} == {f"patch nodes/{machine}/status 200"}
    ordered = next(request for request in operator if request.resource == "nodes")
    print(f"from the unit's creation to the order: {instant(ordered) - instant(requests[0]):.3f} s")


def describe(request: Request) -> str:
    below = f"/{request.subresource}" if request.subresource else ""
    return f"{request.verb} {request.resource}/{request.name}{below} {request.code}"


def instant(request: Request) -> float:
    return datetime.fromisoformat(request.completed).timestamp()
