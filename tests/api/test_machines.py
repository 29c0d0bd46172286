"""Simulated machines on the real API server. The test plays the operator: it gives orders and nothing else."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from careen.agent.imagehost import MachineFolder
from careen.disk.boot import preview
from careen.disk.ext4 import read_ext4_file
from careen.sandbox.accounts import mint_agent_token
from careen.sandbox.audit import AuditReader
from careen.sandbox.client import JSON_PATCH, Api
from careen.sandbox.controlplane import ControlPlane
from careen.sandbox.firmware import OS_RELEASE, Fault
from careen.sandbox.machine import Machine, MachineSettings, create_machine, machine_id_of
from careen.sandbox.nodes import NODES, create_nodes, node_manifest
from careen.sandbox.processes import kill, spawn
from careen.sandbox.releases import ReleaseServer, Repository

OUR_NODES = "/apis/careen.dev/v1alpha1/nodes"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/careen-system/leases"
PATIENCE = 60.0
NAME = "machine-1"


@dataclass
class World:
    """One machine, its Node, and the releases."""

    api: Api
    operator: Api
    machine: Machine
    server: ReleaseServer
    life: asyncio.Task[None]
    orders: int = 0

    @property
    def node(self) -> dict[str, Any]:
        return self.api.get(f"{OUR_NODES}/{NAME}")

    @property
    def step(self) -> dict[str, Any]:
        step: dict[str, Any] = self.node.get("status", {}).get("step", {})
        return step

    async def until(self, check: Callable[[], Any], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not await asyncio.to_thread(check):
            assert time.monotonic() < deadline, f"not within {PATIENCE} s: {what}; {self.node}"
            await asyncio.sleep(0.05)

    def give(self, goal: str, **changes: Any) -> None:
        """Set the goal of the current order."""
        order = {**self.node["spec"]["assignment"], "goal": goal, **changes}
        self.operator.patch(
            f"{OUR_NODES}/{NAME}", [{"op": "add", "path": "/spec/assignment", "value": order}], JSON_PATCH
        )

    def order(self, version: str) -> None:
        """A new order, with goal Stage."""
        self.orders += 1
        entry = self.server.repository.find(version)
        release = {
            "repository": self.server.url,
            "version": version,
            "digest": entry.digest,
            "sizeBytes": entry.size_bytes,
            "path": entry.path,
        }
        terms = {
            "lock": "default",
            "readySeconds": 0,
            "verifyTimeoutSeconds": 60,
            "commitTimeoutSeconds": 3,
            "onSilence": "Rollback",
            "bootMethod": "Auto",
            "drainTimeoutSeconds": 60,
            # Orders go to and fro between two versions.
            "allowDowngrade": True,
        }
        order = {
            "id": f"order-{self.orders}",
            "policy": {"name": "p", "uid": "p"},
            "rollout": "1-x",
            "release": release,
            "goal": "Stage",
            "terms": terms,
        }
        self.operator.patch(
            f"{OUR_NODES}/{NAME}", [{"op": "add", "path": "/spec/assignment", "value": order}], JSON_PATCH
        )

    def ask(self, action: str, **terms: Any) -> None:
        """A new order that is a request, with goal Stage; its terms are those of the order before, but for `terms`."""
        self.orders += 1
        order = {
            "id": f"order-{self.orders}",
            "request": {"action": action, "id": f"r-{self.orders}"},
            "goal": "Stage",
            "terms": {**self.node["spec"]["assignment"]["terms"], **terms},
        }
        self.operator.patch(
            f"{OUR_NODES}/{NAME}", [{"op": "add", "path": "/spec/assignment", "value": order}], JSON_PATCH
        )

    async def phase(self, phase: str) -> None:
        await self.until(
            lambda: (self.step.get("id"), self.step.get("phase")) == (f"order-{self.orders}", phase), phase
        )

    async def activate(self) -> None:
        """Order the boot of what is staged."""
        await self.phase("Staged")
        self.give("Activate", fromBootID=self.node["status"]["bootID"])

    async def update(self) -> None:
        """The whole ladder."""
        await self.activate()
        await self.phase("Verifying")
        self.give("Commit")


@pytest.fixture
def start(own_plane: ControlPlane, admin: Api, operator_api: Api, tmp_path: Path) -> Callable[..., Any]:
    @asynccontextmanager
    async def make(**changes: Any) -> AsyncIterator[World]:
        repository = Repository.create(tmp_path / "releases")
        for version, fault in (("1.0.0", None), ("2.0.0", None), *((f"2.0.0-{each}", each) for each in Fault)):
            repository.publish(version, fault)
        folder = tmp_path / NAME
        create_machine(folder, repository.find("1.0.0"), machine_id=machine_id_of(NAME))
        create_nodes(admin, [node_manifest(NAME, "zone-a")])
        operator_api.create(
            OUR_NODES,
            {
                "apiVersion": "careen.dev/v1alpha1",
                "kind": "Node",
                "metadata": {"name": NAME},
                "spec": {},
            },
        )
        settings = MachineSettings(
            name=NAME,
            folder=str(folder),
            kubeconfig=str(own_plane.kubeconfig_with_token(mint_agent_token(admin, NAME))),
            trust_root=str(repository.trust_root),
            kubelet_kubeconfig=str(own_plane.kubeconfig_for(f"system:node:{NAME}", ["system:nodes"])),
            boot_seconds=0.2,
            hang_seconds=0.5,
            trial_seconds=1.0,
            restart_seconds=0.2,
            in_process=True,
        )
        server = ReleaseServer(repository)
        machine = Machine(replace(settings, **changes))
        async with server.running():
            life = asyncio.create_task(machine.run())
            try:
                world = World(admin, operator_api, machine, server, life)
                await world.until(lambda: life.done() or world.node.get("status", {}).get("bootID"), "first status")
                yield world
            finally:
                life.cancel()
                await asyncio.gather(life, return_exceptions=True)

    return make


async def test_a_lease_goes_with_its_node(start: Any, admin: Api) -> None:
    async with start() as world:
        lease = f"{LEASES}/agent-{NAME}"
        await world.until(lambda: owners(admin, lease) == [world.node["metadata"]["uid"]], "the Lease is the Node's")
        document = {key: world.node[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": {"name": NAME}}
        admin.delete(f"{OUR_NODES}/{NAME}")
        await world.until(lambda: not owners(admin, lease), "the Lease is gone")
        made = await asyncio.to_thread(world.operator.create, OUR_NODES, document)
        await world.until(lambda: owners(admin, lease) == [made["metadata"]["uid"]], "it is the new Node's")


def owners(api: Api, lease: str) -> list[str]:
    found = api.find(lease) or {"metadata": {}}
    return [owner["uid"] for owner in found["metadata"].get("ownerReferences", ())]


async def test_a_machine_climbs_the_ladder(start: Any, admin: Api, own_plane: ControlPlane) -> None:
    async with start() as world:
        before = world.node["status"]
        audit = AuditReader(own_plane.audit_log)
        assert (before["booted"], before["step"]["phase"]) == ("A", "Idle")
        world.order("2.0.0")
        await world.update()
        await world.phase("Committed")
        status = world.node["status"]
        assert (status["booted"], status["bootMethod"], status["slots"]["B"]["version"]) == ("B", "Kexec", "2.0.0")
        assert status["slots"]["B"]["successful"] is True
        assert status["bootID"] != before["bootID"]
        core = admin.get(f"{NODES}/{NAME}")["status"]
        assert core["nodeInfo"]["bootID"] == status["bootID"]
        assert admin.get(f"{LEASES}/agent-{NAME}")["spec"]["renewTime"]
        await asyncio.sleep(1.0)
        theirs = [request for request in audit.read() if request.user.endswith(":careen-agent")]
        writes = [request for request in theirs if request.is_write and "leases" not in request.resource]
        assert {(request.resource, request.subresource) for request in writes} == {("nodes", "status")}
        assert len(writes) <= 6, [str(request) for request in writes]
        assert sum(request.verb == "list" for request in theirs) == 1, "one list for the one new agent"


@pytest.mark.parametrize(("action", "method"), [("Reboot", "Kexec"), ("Reset", "Firmware")])
async def test_a_machine_boots_the_same_slot_again_when_people_ask(start: Any, action: str, method: str) -> None:
    async with start() as world:
        world.order("2.0.0")
        await world.phase("Staged")
        before, files = world.node["status"], world.machine.folder
        litter = files.root / "var" / "litter"
        litter.parent.mkdir()
        litter.write_text("x")
        world.ask(action, bootMethod="Auto" if method == "Kexec" else "Firmware")
        await world.update()
        await world.phase("Committed")
        status = world.node["status"]
        assert status["bootID"] != before["bootID"]
        assert (status["booted"], status["slots"], status["bootMethod"]) == ("A", before["slots"], method)
        assert litter.exists() is (action == "Reboot")
        assert status["machineID"] == before["machineID"]
        world.order("2.0.0")
        await world.phase("Staged")


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (Fault.PANIC, "Panic"),
        (Fault.HANG, "Watchdog"),
        (Fault.NO_AGENT, "TrialLost"),
        (Fault.UNHEALTHY, "LocalGate"),
    ],
)
async def test_a_bad_release_brings_the_old_one_back(start: Any, fault: Fault, cause: str) -> None:
    async with start() as world:
        world.order(f"2.0.0-{fault}")
        await world.activate()
        await world.phase("RolledBack")
        status = world.node["status"]
        assert status["step"]["cause"] == cause
        assert status["booted"] == "A"
        assert status["slots"]["B"]["priority"] == 0
        rejected = [entry["cause"] for entry in status.get("rejected", [])]
        assert rejected == ([] if cause == "TrialLost" else [cause])


async def test_an_abort_on_trial_brings_the_old_one_back(start: Any) -> None:
    async with start() as world:
        world.order("2.0.0")
        await world.activate()
        await world.phase("Verifying")
        world.give("Abort", cause="People")
        await world.phase("RolledBack")
        assert (world.step["cause"], world.step["observedGoal"]) == ("People", "Abort")
        assert world.node["status"]["rejected"][0]["cause"] == "People"


async def test_an_agent_process_that_is_killed_goes_on(start: Any) -> None:
    async with start(in_process=False, trial_seconds=30.0) as world:
        world.order("2.0.0")
        await world.phase("Staged")
        await world.until(lambda: world.machine.agent, "an agent")
        os.kill(world.machine.agent.process.pid, signal.SIGKILL)
        await world.update()
        await world.phase("Committed")


async def test_a_release_that_is_well_on_the_second_try_only(start: Any, admin: Api) -> None:
    version = f"2.0.0-{Fault.UNHEALTHY_ONCE}"
    async with start() as world:
        world.order(version)
        await world.activate()
        await world.phase("RolledBack")
        world.order(version)
        await world.phase("Failed")
        assert world.step["error"]["class"] == "Refused"
        admin.patch(f"{OUR_NODES}/{NAME}", {"spec": {"retry": 1}})
        await world.update()
        await world.phase("Committed")


async def test_power_cuts_at_any_moment_end_on_a_complete_slot(start: Any, tmp_path: Path) -> None:
    rng = random.Random(7)
    async with start(in_process=False, trial_seconds=30.0, boot_seconds=0.1) as world:
        world.life.cancel()
        await asyncio.gather(world.life, return_exceptions=True)
        settings = tmp_path / "settings.json"
        world.machine.settings.save(settings)
        command = [sys.executable, "-m", "careen.sandbox.machine", str(settings)]
        operator = asyncio.create_task(climb_for_ever(world))
        for _ in range(6):
            power = await asyncio.to_thread(spawn, "machine", command, tmp_path / "machine.log")
            await asyncio.sleep(rng.uniform(0.5, 4.0))
            await asyncio.to_thread(kill, [power])
            await world.until(lambda: is_unused(world.machine.folder), "the agent's end")
            chosen = preview(world.machine.folder.disk)
            assert chosen is not None
            assert read_ext4_file(world.machine.folder.disk, chosen.start, OS_RELEASE)
        power = await asyncio.to_thread(spawn, "machine", command, tmp_path / "machine.log")
        try:
            seen = world.orders
            await world.until(lambda: world.orders > seen + 1, "orders end again when the power stays on")
        finally:
            operator.cancel()
            await asyncio.gather(operator, return_exceptions=True)
            await asyncio.to_thread(kill, [power])


async def climb_for_ever(world: World) -> None:
    """Order one release after the other, each as far as it goes."""
    world.order("2.0.0")
    while True:
        await asyncio.sleep(0.05)
        node = await asyncio.to_thread(lambda: world.node)
        order, status = node["spec"]["assignment"], node["status"]
        step = status.get("step", {})
        if step.get("id") != order["id"]:
            continue
        if order["goal"] == "Stage" and step["phase"] == "Staged":
            world.give("Activate", fromBootID=status["bootID"])
        elif order["goal"] == "Activate" and step["phase"] == "Verifying":
            world.give("Commit")
        elif step["phase"] in ("Committed", "RolledBack"):
            world.order("1.0.0" if order["release"]["version"] == "2.0.0" else "2.0.0")


def is_unused(folder: MachineFolder) -> bool:
    """Whether no agent has the machine open."""
    with (folder.state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
