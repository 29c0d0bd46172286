"""A cluster of two real nodes: a control plane and an operator on this host, kubelets and agents' pods in machines."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import careen
from careen.api.meta import NAMESPACE
from careen.release.keys import load_keys
from careen.release.repository import publish_release
from careen.sandbox.accounts import mint_operator_token
from careen.sandbox.client import Api, Manifest, wait_until
from careen.sandbox.components import free_ports
from careen.sandbox.controlplane import ControlPlane
from careen.sandbox.nodes import NODES, ZONE_LABEL
from careen.sandbox.processes import spawn, stop
from careen.sandbox.releases import Repository
from careen.sandbox.serving import ServerThread
from careen.sandbox.workspace import Workspace
from ociimage.settings import REFERENCE
from testos.cache import print_report
from testos.fleet import Fleet
from testos.image import OsImage, build_loader
from testos.machine import Machine

from .chart import Chart
from .egress import Egress
from .evidence import NodeSeen
from .golden import Golden, describe_node
from .identity import NodeIdentity, write_identity

AGENT_LABELS = {"app.kubernetes.io/name": "careen", "app.kubernetes.io/component": "agent"}
PODS = "/api/v1/pods"
FIRST_ADDRESS = 15
ROOT_FILE = "etc/careen/root.json"
"""The trust root on a node, as the agent's settings name it."""
GREET_SECONDS = 60.0
STOP_SECONDS = 5.0


class Cluster(Fleet):
    """A context manager: the nodes are joined and the chart is installed inside; only logs are left afterwards."""

    def __init__(
        self, golden: Golden, names: tuple[str, ...] = ("vm-1", "vm-2"), report: Callable[[str], None] = print_report
    ) -> None:
        self.names = names
        self._golden = golden
        self._report = report
        self._machines: dict[str, Machine] = {}
        self._undo = ExitStack()
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            self.workspace = Workspace()
            undo.callback(self.workspace.remove)
            self._egress = undo.enter_context(Egress(self.workspace.path / "egress"))
            self._report("starting the control plane")
            self.plane = undo.enter_context(ControlPlane(kwok=False, kubelets=self._egress.socket))
            self._api = self.plane.api()
            undo.callback(self._api.close)
            self._releases = Repository.create(self.workspace.path / "releases")
            self._server = ServerThread(self._releases).start()
            undo.callback(self._server.stop)
            undo.callback(self._cut_all)
            for index, name in enumerate(self.names):
                self._join(name, index)
            self.tell("installing the chart")
            self.chart = Chart(self.plane, self.workspace.path, trust_root=ROOT_FILE)
            self.chart.install(REFERENCE)
            self._start_operator(undo)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    @property
    def api(self) -> Api:
        return self._api

    @property
    def repository(self) -> str:
        # The same name means the host's loopback on this host and on the nodes; their pods have the nodes' /etc/hosts.
        return f"http://localhost:{urlsplit(self._server.url).port}"

    @property
    def logs(self) -> Path:
        """Where consoles and logs are, also afterwards."""
        return self.plane.logs

    def __getitem__(self, name: str) -> Machine:
        return self._machines[name]

    def tell(self, text: str) -> None:
        """Tell a person, and write it down with the logs."""
        self._report(text)
        with (self.logs / "story.log").open("a") as story:
            story.write(f"{time.monotonic() - self._began:7.1f} {text}\n")

    def publish(self, image: OsImage) -> None:
        """Sign a release and put it into the repository."""
        publish_release(self._releases.public, [image.folder], load_keys([self._releases.folder / "keys"]))

    def see(self, name: str) -> NodeSeen:
        """A node and the agent's pod on it, now."""
        agents = self.find_pods(AGENT_LABELS, name)
        living = [pod for pod in agents if "deletionTimestamp" not in pod["metadata"]]
        return NodeSeen.of(self.api.find(f"{NODES}/{name}") or {}, next(iter(living), None))

    def find_pods(self, labels: Mapping[str, str], node: str = "") -> list[Manifest]:
        """Pods with these labels, of one node or of all."""
        query = {"labelSelector": ",".join(f"{key}={value}" for key, value in labels.items())}
        return self.api.items(PODS, **query, **({"fieldSelector": f"spec.nodeName={node}"} if node else {}))

    def wait_works(self, name: str, seconds: float) -> NodeSeen:
        """Wait until a node takes pods and its agent runs."""
        return self._wait_seen(name, lambda seen: seen.works, "works", seconds)

    def wait_rebooted(self, name: str, before: NodeSeen, seconds: float) -> NodeSeen:
        """Wait until a node works in another boot than `before`, with its agent's pod started anew."""
        return self._wait_seen(name, lambda seen: seen.has_rebooted(before), f"is back after {before.boot_id}", seconds)

    def is_complete(self, version: str) -> bool:
        """Whether all nodes have this version. Raises AssertionError if its rollout has halted."""
        halted = self.halted(version)
        assert not halted, halted
        return bool(self._find_condition(version, "Complete"))

    def halted(self, version: str) -> str:
        """Why the rollout of this version has halted; empty when it has not."""
        return self._find_condition(version, "Halted")

    def _find_condition(self, version: str, kind: str) -> str:
        """Reason and message of a condition that is True; empty when it is not, or says it of another version."""
        status = self.policy().get("status", {})
        if status.get("rollout", {}).get("version") != version:
            return ""
        found = (entry for entry in status.get("conditions", []) if entry["type"] == kind and entry["status"] == "True")
        return next((f"{entry['reason']}: {entry['message']}" for entry in found), "")

    def read_log(self, name: str) -> str:
        """The log of a node's agent, which the API server gets from the kubelet."""
        agent = self.see(name).agent
        return self.plane.kubectl("logs", "--namespace", NAMESPACE, agent.name, "--tail=200") if agent else ""

    def _wait_seen(self, name: str, check: Callable[[NodeSeen], bool], what: str, seconds: float) -> NodeSeen:
        try:
            return wait_until(lambda: seen if check(seen := self.see(name)) else None, f"{name} {what}", seconds, 0.5)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.see(name)}\n{self[name].console.tail()}") from None

    def _join(self, name: str, index: int) -> None:
        """Copy the saved node, and tell the copy who it is."""
        (port,) = free_ports(1)
        trust = self._releases.trust_root.read_bytes()
        labels = {ZONE_LABEL: f"zone-{chr(ord('a') + index)}"}
        node = NodeIdentity(name, f"10.0.2.{FIRST_ADDRESS + index}", labels, {ROOT_FILE: trust})
        self._egress.ports[node.kubelet] = port
        disk, identity = self.workspace.path / f"{name}.img", self.workspace.path / f"{name}.identity"
        self._golden.copy_disk(disk)
        write_identity(identity, node, self.plane)
        options = describe_node(node.address, identity, self._golden.images, port)
        folder, logs = self.workspace.path, self.logs
        machine = Machine(name, disk, build_loader(), folder=folder, logs=logs, options=options)
        self._machines[name] = machine
        self.tell(f"starting {name}")
        machine.start(self._golden.memory)
        # Its clock stood still since it was saved, and all copies would draw the same random numbers.
        machine.shell.run(f"date -s @{time.time():.3f} && echo {os.urandom(32).hex()} > /dev/urandom", GREET_SECONDS)
        machine.shell.run("systemctl restart testos-identity && systemctl --no-block start kubelet", GREET_SECONDS)

    def _start_operator(self, undo: ExitStack) -> None:
        """The operator under the chart's account, beside the cluster: the nodes have no network for pods."""
        kubeconfig = self.plane.kubeconfig_with_token(mint_operator_token(self.api))
        command = [sys.executable, "-m", "careen", "operator", "--kubeconfig", str(kubeconfig), "--identity", "host"]
        environment = os.environ | {
            "PYTHONPATH": str(Path(careen.__file__).parent.parent),
            "CAREEN_NAMESPACE": NAMESPACE,
            "CAREEN_TRUST_ROOT": str(self._releases.trust_root),
            "CAREEN_RELEASE_CACHE": str(self.workspace.path / "release-cache"),
            "SSL_CERT_FILE": os.devnull,
        }
        child = spawn("operator", command, self.logs / "operator.log", environment)
        undo.callback(stop, [child], STOP_SECONDS)

    def _cut_all(self) -> None:
        for machine in self._machines.values():
            machine.cut_power()
