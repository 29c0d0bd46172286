"""A fleet of machines in memory on a real control plane, driven by the real operator in a process of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from careen.agent.runner import Settings
from careen.kube.session import Session
from careen.release.index import INDEX_NAME, ReleaseEntry, ReleaseIndex
from careen.sandbox.accounts import install, mint_agent_token, mint_operator_token
from careen.sandbox.controlplane import ControlPlane
from careen.sandbox.memory import MemoryHost, MemoryMachine
from careen.sandbox.nodes import create_nodes, node_manifests

SIZE = 4096


def digest_of(number: int) -> str:
    """A digest that stands for release number.0.0; nothing is fetched in memory."""
    return "sha256:" + f"{number:064x}"


def make_index(numbers: range) -> bytes:
    """An index with releases 1.0.0, 2.0.0, …"""
    entries = {
        f"{number}.0.0": ReleaseEntry(
            digest=digest_of(number),
            size_bytes=SIZE,
            sha256=digest_of(number).removeprefix("sha256:"),
            path=f"images/{number}",
        )
        for number in numbers
    }
    return ReleaseIndex(format_version=1, releases=entries).dump()


@dataclass
class Fleet:
    """What a benchmark drives."""

    plane: ControlPlane
    admin: Session
    machines: list[MemoryMachine]
    repository: str
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    operators: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_operator(self, *, lease_seconds: float = 15.0, identity: str = "bench") -> subprocess.Popen[bytes]:
        """Start an operator process under the operator's own account."""
        config = self.plane.kubeconfig_with_token(mint_operator_token(self.plane.api()))
        command = [sys.executable, "-m", "careen", "operator", "--kubeconfig", str(config)]
        command += ["--identity", identity, "--lease-seconds", str(lease_seconds), "--log-level", "warning"]
        with Path(self.plane.logs, f"operator-{identity}.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ)
        self.operators.append(process)
        return process


@asynccontextmanager
async def run_fleet(count: int, zones: int = 4, *, boot_seconds: float = 5.0) -> AsyncIterator[Fleet]:
    """A control plane, `count` machines in this process, and a repository; ends all of it."""
    async with AsyncExitStack() as stack:
        plane = await asyncio.to_thread(ControlPlane().start)
        stack.callback(plane.stop)
        await asyncio.to_thread(install, plane)
        api = plane.api()
        stack.callback(api.close)
        await asyncio.to_thread(create_nodes, api, node_manifests(count, zones))
        repository = await stack.enter_async_context(serve_index(make_index(range(1, 10))))
        admin = await stack.enter_async_context(Session.connect(plane.kubeconfig, user_agent="bench-kubelet"))
        fleet = Fleet(plane, admin, [], repository)
        for index in range(count):
            name = f"node-{index + 1}"
            token = await asyncio.to_thread(mint_agent_token, api, name)
            config = plane.kubeconfig_with_token(token)
            session = await stack.enter_async_context(Session.connect(config, user_agent="careen-agent/bench"))
            machine_id = (await asyncio.to_thread(api.get, f"/api/v1/nodes/{name}"))["status"]["nodeInfo"]["machineID"]
            host = MemoryHost.install(machine_id, "1.0.0", digest_of(1))
            fleet.machines.append(MemoryMachine(name, host, session, admin, boot_seconds=boot_seconds))
        try:
            fleet.tasks = [asyncio.create_task(machine.run(Settings())) for machine in fleet.machines]
            yield fleet
        finally:
            for process in fleet.operators:
                process.terminate()
            for task in fleet.tasks:
                task.cancel()
            await asyncio.gather(*fleet.tasks, return_exceptions=True)
            await asyncio.gather(*(asyncio.to_thread(process.wait, 20) for process in fleet.operators))


@asynccontextmanager
async def serve_index(index: bytes) -> AsyncIterator[str]:
    """A repository with nothing but an index on a free loopback port; its URL."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=index, content_type="application/json")

    app = web.Application()
    app.router.add_get(f"/{INDEX_NAME}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port: Any = runner.addresses[0][1]
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()
