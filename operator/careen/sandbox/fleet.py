"""A fleet of machines in memory on a real control plane, driven by real operators in processes of their own."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

import careen
from careen.agent.settings import Settings
from careen.api.meta import NAMESPACE
from careen.kube.session import Session
from careen.sandbox.accounts import install, mint_agent_token, mint_operator_token
from careen.sandbox.client import Api, Manifest
from careen.sandbox.cluster import Cluster
from careen.sandbox.controlplane import ControlPlane
from careen.sandbox.documents import digest_of, sign_documents
from careen.sandbox.memory import MemoryHost, MemoryMachine
from careen.sandbox.nodes import create_nodes, node_manifests
from careen.sandbox.processes import Child, spawn, stop

STOP_SECONDS = 10.0


@dataclass
class Fleet:
    """Machines in this process, and the operators that were started for them."""

    plane: Cluster
    admin: Session
    """A session with the administrator's rights; the machines' kubelets use it too."""
    api: Api
    """The same rights for synchronous callers."""
    machines: list[MemoryMachine]
    repository: str
    """URL of a repository with releases 1.0.0 (which the machines run) to 99.0.0."""
    trust_root: Path
    """File with the root.json that signs them."""
    renew_seconds: float = 60.0
    """From one renewal of an agent's Lease to the next."""
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    """The running machines by name."""
    operators: list[Child] = field(default_factory=list)
    """All operators that were started, ended ones included."""
    _accounts: dict[str | None, Path] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The machines' names."""
        return [machine.name for machine in self.machines]

    def __getitem__(self, name: str) -> MemoryMachine:
        """The machine of this name; KeyError if there is none."""
        return {machine.name: machine for machine in self.machines}[name]

    def power_on(self, name: str) -> None:
        """Let the machine live."""
        self.tasks[name] = asyncio.create_task(self[name].run(Settings(renew_seconds=self.renew_seconds)), name=name)

    async def power_off(self, name: str) -> None:
        """End the machine between two steps, for good or until `power_on`. Nobody reports that it is down."""
        task = self.tasks.pop(name)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def operator_account(self, server: str | None = None) -> Path:
        """A kubeconfig of the operator's own account; `server`: another address of the API server, as a Proxy's."""
        if server not in self._accounts:
            self._accounts[server] = self.plane.kubeconfig_with_token(mint_operator_token(self.api), server)
        return self._accounts[server]

    def start_operator(
        self,
        *,
        lease_seconds: float = 15.0,
        identity: str = "bench",
        server: str | None = None,
        program: Sequence[str] = ("-m", "careen", "operator"),
        log_level: str = "warning",
    ) -> Child:
        """Start an operator process under the operator's own account; it does not outlive this process.

        server: see `operator_account`. program: what Python runs instead of `careen operator`, with its options.
        """
        command = [sys.executable, *program, "--kubeconfig", str(self.operator_account(server))]
        command += ["--identity", identity, "--lease-seconds", str(lease_seconds), "--log-level", log_level]
        source = str(Path(careen.__file__).parents[1])
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")]),
            "CAREEN_NAMESPACE": NAMESPACE,
            "CAREEN_TRUST_ROOT": str(self.trust_root),
            "CAREEN_RELEASE_CACHE": str(self.trust_root.parent / "cache"),
        }
        child = spawn(identity, command, self.plane.logs / f"operator-{identity}.log", environment)
        self.operators.append(child)
        return child


@asynccontextmanager
async def run_fleet(
    count: int,
    zones: int = 4,
    *,
    boot_seconds: float = 5.0,
    renew_seconds: float = 60.0,
    cluster: Cluster | None = None,
    change: Callable[[Manifest], None] | None = None,
) -> AsyncIterator[Fleet]:
    """`count` machines in this process (node-1 and so on) and a repository; ends all of it.

    cluster: where the kinds are installed already; default a control plane of one's own. change: alters the manifest
    of each core Node before it is made.
    """
    async with AsyncExitStack() as stack:
        if cluster is None:
            cluster = await asyncio.to_thread(ControlPlane().start)
            stack.callback(cluster.stop)
            await asyncio.to_thread(install, cluster)
        api = cluster.api()
        stack.callback(api.close)
        manifests = node_manifests(count, zones)
        for manifest in manifests:
            if change is not None:
                change(manifest)
        tokens = await asyncio.to_thread(_make_nodes, api, manifests)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        trust_root = await asyncio.to_thread(sign_documents, folder, range(1, 100))
        repository = await stack.enter_async_context(serve_folder(folder / "public"))
        admin = await stack.enter_async_context(Session.connect(cluster.kubeconfig, user_agent="sandbox-kubelet"))
        fleet = Fleet(cluster, admin, api, [], repository, trust_root, renew_seconds)
        for manifest in manifests:
            name = manifest["metadata"]["name"]
            config = cluster.kubeconfig_with_token(tokens[name])
            session = await stack.enter_async_context(Session.connect(config, user_agent="careen-agent/memory"))
            host = MemoryHost.install(manifest["status"]["nodeInfo"]["machineID"], "1.0.0", digest_of(1))
            fleet.machines.append(MemoryMachine(name, host, session, admin, boot_seconds=boot_seconds))
        try:
            for name in fleet.names:
                fleet.power_on(name)
            yield fleet
        finally:
            await _end(fleet)


def _make_nodes(api: Api, manifests: Sequence[Manifest]) -> dict[str, str]:
    """Make core Nodes; the tokens of the agents on them, by name."""
    create_nodes(api, manifests)
    names = [manifest["metadata"]["name"] for manifest in manifests]
    # The first makes the agents' DaemonSet.
    first = mint_agent_token(api, names[0])
    with ThreadPoolExecutor(max_workers=4) as threads:
        others = threads.map(lambda name: mint_agent_token(api, name), names[1:])
        return dict(zip(names, [first, *others], strict=True))


async def _end(fleet: Fleet) -> None:
    """End operators and machines; an operator that is stopped or hangs is killed."""
    await asyncio.to_thread(stop, fleet.operators, STOP_SECONDS)
    tasks = list(fleet.tasks.values())
    fleet.tasks.clear()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def serve_folder(folder: Path) -> AsyncIterator[str]:
    """Serve a folder's files on a free loopback port; its URL."""
    app = web.Application()
    app.router.add_static("/", folder)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port: Any = runner.addresses[0][1]
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()
