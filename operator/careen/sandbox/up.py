"""A whole fleet on this computer: a control plane, the operator, and machines with real disk images, as processes."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import careen
from careen.api.meta import AGENT_ACCOUNT, AGENT_LEASE_PREFIX, GROUP, NAMESPACE, VERSION
from careen.sandbox.accounts import DAEMONSETS, install, mint_agent_token, mint_operator_token
from careen.sandbox.binaries import SandboxError
from careen.sandbox.client import Api, wait_until
from careen.sandbox.cluster import Cluster
from careen.sandbox.controlplane import ControlPlane
from careen.sandbox.firmware import Fault
from careen.sandbox.machine import MachineSettings, create_machine, machine_id_of
from careen.sandbox.nodes import NODES, create_nodes, create_workload, node_manifest, workload_manifests, zone_of
from careen.sandbox.processes import Child, kill, spawn, stop
from careen.sandbox.releases import Repository, SandboxRelease
from careen.sandbox.running import Running
from careen.sandbox.serving import ServerThread

OUR_NODES = f"/apis/{GROUP}/{VERSION}/nodes"
OUR_LOCKS = f"/apis/{GROUP}/{VERSION}/rebootlocks"
OUR_POLICIES = f"/apis/{GROUP}/{VERSION}/updatepolicies"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
BUDGETS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
FIRST_VERSION, NEXT_VERSION = "1.0.0", "2.0.0"
WORKLOAD = "web"
READY_SECONDS = 120.0
STOP_SECONDS = 3.0
PODS_PER_MACHINE = 2
THREADS = 8


@dataclass(frozen=True)
class SandboxOptions:
    """What a sandbox is made of. All times are in seconds."""

    machines: int = 6
    """Simulated machines, named machine-1 and so on."""
    zones: int = 3
    """Zones that they are spread over by turns: zone-a, zone-b, …"""
    operator: bool = True
    """Whether an operator runs."""
    lease_seconds: float = 15.0
    """How long a silent leader keeps another operator out."""
    boot_seconds: float = 1.0
    """From a machine's request for a reboot until its OS is up."""
    trial_seconds: float = 20.0
    """How long the timer of a trial boot waits for an agent that never starts."""
    renew_seconds: float = 60.0
    """From one renewal of an agent's Lease to the next."""
    in_process: bool = False
    """Run each agent inside its machine's process: half the memory, but no agent can be killed alone."""
    workload: bool = True
    """Whether there are pods to drain: a Deployment with a disruption budget."""
    lock_max: int = 2
    """max of the default RebootLock."""
    installed: bool = False
    """Whether Careen is on the cluster already, by its chart; the chart's accounts and its DaemonSet are used then."""
    log_level: str = "INFO"
    """Level of the operator's, the machines' and the agents' logs."""


class Sandbox:
    """A fleet, from `start` to `stop`; also a context manager. Nothing is left when this process ends in any way.

    Everything but the logs lies in the control plane's folder and goes with it; all processes die with this one. On a
    cluster that stays, the objects are deleted by `stop`, and left there when this process is killed.
    Synchronous: a caller inside an event loop uses asyncio.to_thread.
    """

    cluster: Cluster
    """The control plane."""
    api: Api
    """A client with the administrator's rights."""
    repository: Repository
    """The release repository; 1.0.0 is installed on all machines, 2.0.0 published."""
    operator_kubeconfig: Path
    """The operator's own account."""

    def __init__(
        self,
        options: SandboxOptions | None = None,
        *,
        cluster: Cluster | None = None,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        """cluster: one that is started already and stays when the sandbox stops; None makes a control plane.

        `report` hears what is being done.
        """
        self.options = options or SandboxOptions()
        self.names = [f"machine-{index + 1}" for index in range(self.options.machines)]
        self._given = cluster
        self._report = report
        self._undo = ExitStack()
        self._children: dict[str, Child] = {}

    def start(self) -> Self:
        """Start everything and wait until each machine has reported. Raises SandboxError, ApiError, TimeoutError."""
        with ExitStack() as undo:
            undo.callback(self.stop)
            self._start_cluster()
            self._report("installing Careen")
            with ThreadPoolExecutor(1) as beside:
                prepared = beside.submit(self._prepare)
                if not self.options.installed:
                    install(self.cluster)
                prepared.result()
            self.api.patch(f"{OUR_LOCKS}/default", {"spec": {"max": self.options.lock_max}})
            self._report(f"making {len(self.names)} machines in {self.options.zones} zones")
            self.operator_kubeconfig = self.cluster.kubeconfig_with_token(mint_operator_token(self.api))
            if self.options.operator:
                self.start_operator()
            self._make_machines()
            if self.options.workload:
                self._wait_for_workload()
            if self.options.operator:
                self.wait_for_reports()
            self._announce()
            undo.pop_all()
        return self

    def stop(self) -> None:
        """End all processes and remove all but the logs. Safe to call twice."""
        children, self._children = list(self._children.values()), {}
        # A machine's SIGKILL is a power cut, and the fleet will not be powered on again.
        kill(child for child in children if not child.name.startswith("operator"))
        stop(children, STOP_SECONDS)
        self._undo.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def releases(self) -> str:
        """URL of the release repository, as a policy names it."""
        return self._server.url

    @property
    def logs(self) -> Path:
        """Folder of all logs."""
        return self._logs

    def describe(self) -> dict[str, Any]:
        """What `careen sandbox up --json` prints."""
        log = self.cluster.audit_log
        return {
            "kubeconfig": str(self.cluster.kubeconfig),
            "auditLog": str(log) if log is not None else None,
            "releases": self.releases,
            "machines": self.names,
        }

    def publish(self, version: str, fault: Fault | None = None) -> SandboxRelease:
        """Build a release with this fault, sign it, and put it into the repository."""
        return self.repository.publish(version, fault)

    def start_operator(self, name: str = "operator", *arguments: str, kubeconfig: Path | None = None) -> Child:
        """Start one more operator process; `arguments` are further options of `careen operator`.

        Names begin with `operator`. `kubeconfig`: another way to the API server, such as through a Proxy.
        """
        command = [
            *(sys.executable, "-m", "careen", "operator", "--identity", name),
            *("--kubeconfig", str(kubeconfig or self.operator_kubeconfig)),
            *("--lease-seconds", str(self.options.lease_seconds), "--log-level", self.options.log_level),
            *arguments,
        ]
        return self._spawn(name, command)

    def kill_operator(self, name: str = "operator") -> None:
        """SIGKILL an operator."""
        kill([self._children.pop(name)])

    def process(self, name: str) -> Child:
        """The process of a machine or of an operator."""
        return self._children[name]

    def cut_power(self, name: str) -> None:
        """SIGKILL a machine; its agent dies with it."""
        kill([self._children.pop(name)])

    def power_on(self, name: str) -> Child:
        """Start a machine; its firmware boots from what is on its disk."""
        command = [sys.executable, "-m", "careen.sandbox.machine", str(self.folder_of(name) / "settings.json")]
        return self._spawn(name, command)

    def folder_of(self, name: str) -> Path:
        """The folder of a machine, with its disk."""
        return self._folder / "machines" / name

    def find_agent(self, name: str) -> int | None:
        """Process id of a machine's agent; None while it has none."""
        # A booting machine has other children, that read its disk; without them it would not boot.
        found = (pid for pid in _children_of(self._children[name].process.pid) if _is_agent(pid))
        return next(found, None)

    def kill_agent(self, name: str) -> bool:
        """SIGKILL the agent's process of a machine, which starts another one; False when there is none just now."""
        pid = self.find_agent(name)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        return pid is not None

    def find_ended(self) -> list[Child]:
        """Processes that have ended although nobody asked them to."""
        return [child for child in self._children.values() if child.ended]

    def _start_cluster(self) -> None:
        self._report("starting the control plane")
        if self._given is not None:
            self.cluster = self._given
        else:
            self.cluster = ControlPlane()
            self.cluster.start()
            self._undo.callback(self.cluster.stop)
        self.api = self.cluster.api()
        self._undo.callback(self.api.close)
        self._folder = Path(tempfile.mkdtemp(prefix="sandbox-", dir=self.cluster.scratch))
        self._undo.callback(shutil.rmtree, self._folder, ignore_errors=True)
        if self._given is not None:
            self._undo.callback(self._delete_objects)
        self._logs = self.cluster.logs

    def _delete_objects(self) -> None:
        """Take away from a cluster that stays what was made on it: all but Careen's kinds, accounts and policies."""
        self.api.delete(OUR_POLICIES)
        ours = [f"{DEPLOYMENTS}/{WORKLOAD}", f"{BUDGETS}/{WORKLOAD}"]
        if not self.options.installed:
            ours.append(f"{DAEMONSETS}/{AGENT_ACCOUNT}")
        for path in ours:
            self.api.delete(path)
        for name in self.names:
            self.api.delete(f"{OUR_NODES}/{name}")
            self.api.delete(f"{NODES}/{name}")
            self.api.delete(f"{LEASES}/{AGENT_LEASE_PREFIX}{name}")

    def _prepare(self) -> None:
        """Make what does not need Careen's kinds: releases, core Nodes, and pods to drain."""
        self.repository = Repository.create(self._folder / "releases")
        for version in (FIRST_VERSION, NEXT_VERSION):
            self.repository.publish(version)
        self._server = ServerThread(self.repository).start()
        self._undo.callback(self._server.stop)
        zones = [zone_of(index, self.options.zones) for index in range(len(self.names))]
        nodes = [
            node_manifest(*pair, machine_id=machine_id_of(pair[0])) for pair in zip(self.names, zones, strict=True)
        ]
        create_nodes(self.api, nodes)
        if self.options.workload:
            create_workload(self.api, workload_manifests(WORKLOAD, self._replicas, self._replicas - PODS_PER_MACHINE))

    @property
    def _replicas(self) -> int:
        return PODS_PER_MACHINE * len(self.names)

    def _make_machines(self) -> None:
        release = self.repository.find(FIRST_VERSION)
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(lambda name: self._make_machine(name, release), self.names))

    def _make_machine(self, name: str, release: SandboxRelease) -> None:
        folder = self.folder_of(name)
        create_machine(folder, release, machine_id=machine_id_of(name))
        (folder / "agent.log").symlink_to(self._logs / f"{name}-agent.log")
        options = self.options
        MachineSettings(
            name=name,
            folder=str(folder),
            kubeconfig=str(self.cluster.kubeconfig_with_token(mint_agent_token(self.api, name))),
            trust_root=str(self.repository.trust_root),
            kubelet_kubeconfig=str(self.cluster.kubeconfig),
            boot_seconds=options.boot_seconds,
            trial_seconds=options.trial_seconds,
            renew_seconds=options.renew_seconds,
            in_process=options.in_process,
            log_level=options.log_level,
        ).save(folder / "settings.json")
        self.power_on(name)

    def _wait_for_workload(self) -> None:
        wait_until(
            lambda: self.api.get(f"{DEPLOYMENTS}/{WORKLOAD}").get("status", {}).get("readyReplicas") == self._replicas,
            f"{self._replicas} pods of {WORKLOAD} ready",
            READY_SECONDS,
        )

    def wait_for_reports(self) -> None:
        """Wait until each machine has reported; only with an operator, which makes their Nodes, do they."""
        deadline = time.monotonic() + READY_SECONDS
        wanted = set(self.names)
        while wanted:
            self._check_alive()
            reported = {n["metadata"]["name"] for n in self.api.items(OUR_NODES) if n.get("status", {}).get("bootID")}
            wanted = set(self.names) - reported
            if time.monotonic() > deadline:
                raise SandboxError(f"no report from {', '.join(sorted(wanted))} (logs: {self._logs})")
            time.sleep(0.1)

    def _check_alive(self) -> None:
        for child in self.find_ended():
            code = child.process.returncode
            raise SandboxError(f"{child.name} ended with code {code} (log: {child.log})\n{child.log_tail()}")

    def _announce(self) -> None:
        Running(
            kubeconfig=str(self.cluster.kubeconfig),
            releases=self.releases,
            repository=str(self.repository.folder),
            pid=os.getpid(),
        ).save(self._folder)

    def _spawn(self, name: str, command: list[str]) -> Child:
        child = spawn(name, command, self._logs / f"{name}.log", self._environment())
        self._children[name] = child
        return child

    def _environment(self) -> dict[str, str]:
        """Our environment, in which children find the package that we were loaded from."""
        source = str(Path(careen.__file__).parent.parent)
        path = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH"))))
        found = os.environ | {
            "PYTHONPATH": path,
            "CAREEN_NAMESPACE": NAMESPACE,
            "CAREEN_TRUST_ROOT": str(self.repository.trust_root),
            "CAREEN_RELEASE_CACHE": str(self.repository.folder / "cache"),
        }
        # Reading the system's authorities takes a sixth of each process's start, and our own API server needs none.
        return found if self._given is not None else found | {"SSL_CERT_FILE": os.devnull}


def _children_of(pid: int) -> list[int]:
    """Process ids of the direct children."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += map(int, task.read_text().split())
    return found


def _is_agent(pid: int) -> bool:
    """Whether a process is a machine's agent; False if it has ended."""
    try:
        return b"agent" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
