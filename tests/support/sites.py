"""Two fleets with one face for the end-to-end tests: the sandbox's, and one that the chart was installed for."""

from __future__ import annotations

import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import careen
from careen.api.meta import AGENT_ACCOUNT, GROUP, NAMESPACE, OPERATOR_ACCOUNT
from careen.sandbox.accounts import DAEMONSETS, mint_agent_token
from careen.sandbox.client import Api, wait_until
from careen.sandbox.firmware import Fault
from careen.sandbox.machine import MachineSettings, machine_id_of
from careen.sandbox.nodes import NODES, ZONE_LABEL, create_nodes, is_ready, node_manifest
from careen.sandbox.processes import stop
from careen.sandbox.releases import Repository
from careen.sandbox.up import OUR_LOCKS, OUR_NODES, OUR_POLICIES, Sandbox, SandboxOptions

Document = dict[str, Any]

MARK = "careen.dev/cordoned"
SWITCH = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
BINDINGS = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
POLICY = "os"
BOOT_UNITS = ("careen-boot.path", "careen-boot.service")
"""Of a kind node: they restart its kubelet when its machine boots; the first starts the second."""


class Site(ABC):
    """A fleet and how a test acts on it. What differs between fleets is below `The fleet's own ways`."""

    api: Api
    names: list[str]
    """The machines."""
    url: str
    """The release repository, as a policy names it."""
    repository: Repository
    kubeconfig: Path
    patience: float
    """Seconds that anything may take."""

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(self, *_: object) -> None: ...

    @abstractmethod
    def lose(self, name: str) -> None:
        """The machine is gone for good: its core Node is deleted, and nothing of it runs."""

    @abstractmethod
    def restore(self, name: str) -> None:
        """It comes back under its name, as a new Node with the disk that it had."""

    @abstractmethod
    def uninstall(self) -> None:
        """Take operator and agents away as an uninstall does; the kinds and their objects stay."""

    def core(self, name: str) -> Document:
        """The core Node; empty if there is none."""
        return self.api.find(f"{NODES}/{name}") or {}

    def node(self, name: str) -> Document:
        """The careen Node; empty if there is none."""
        return self.api.find(f"{OUR_NODES}/{name}") or {}

    def status(self, name: str) -> Document:
        """What the machine's agent and the operator say."""
        return self.node(name).get("status") or {}

    def version(self, name: str) -> str:
        """Version that runs and is marked good; empty on trial."""
        status = self.status(name)
        slot = status.get("slots", {}).get(status.get("booted"), {})
        return slot.get("version", "") if slot.get("successful") else ""

    def versions(self) -> dict[str, str]:
        """Versions that run and are marked good, by machine."""
        return {name: self.version(name) for name in self.names}

    def boots(self) -> dict[str, str]:
        """Boot ids by machine."""
        return {name: self.status(name).get("bootID", "") for name in self.names}

    def holders(self) -> list[str]:
        """Who holds a place in the default lock."""
        lock = self.api.get(f"{OUR_LOCKS}/default")
        return [holder["id"] for holder in lock.get("status", {}).get("holders") or ()]

    def condition(self, kind: str) -> Document:
        """The policy's condition for its present generation; empty if there is none."""
        policy = self.api.find(f"{OUR_POLICIES}/{POLICY}") or {}
        generation = policy.get("metadata", {}).get("generation")
        found = policy.get("status", {}).get("conditions") or ()
        return next((c for c in found if c["type"] == kind and c.get("observedGeneration") == generation), {})

    def holds_true(self, kind: str) -> bool:
        """Whether a condition of the policy is True."""
        return self.condition(kind).get("status") == "True"

    def cordoned(self) -> list[str]:
        """Core Nodes that are cordoned, or bear our mark."""
        nodes = self.api.items(NODES)
        return [
            node["metadata"]["name"]
            for node in nodes
            if node["spec"].get("unschedulable") or MARK in (node["metadata"].get("annotations") or {})
        ]

    def until(self, check: Callable[[], Any], what: str, seconds: float | None = None) -> Any:
        """Wait for it; AssertionError with the state of the fleet if it does not come."""
        try:
            return wait_until(check, what, seconds or self.patience, pause=0.1)
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{self.describe()}") from None

    def describe(self) -> str:
        """The fleet in some lines."""
        lines = [f"lock: {self.holders()}, cordoned: {self.cordoned()}"]
        for name in self.names:
            status = self.status(name)
            lines.append(f"{name}: {self.version(name)} {status.get('step')} {status.get('orchestration')}")
        policy = self.api.find(f"{OUR_POLICIES}/{POLICY}") or {}
        return "\n".join([*lines, str(policy.get("status", {}).get("conditions"))])

    def publish(self, fault: Fault | None = None) -> str:
        """Publish a release newer than all before; its version."""
        newest = max(int(version.partition(".")[0]) for version in self.repository.releases)
        version = f"{newest + 1}.0.0"
        self.repository.publish(version, fault)
        return version

    def apply(self, version: str, **spec: Any) -> None:
        """Make the policy; `spec` adds to it."""
        strategy = {"maxUnavailable": 1, "topology": [{"key": ZONE_LABEL, "maxUnavailable": 1}]}
        body = {
            "release": {"repository": self.url, "version": version},
            "strategy": strategy,
            "drain": {"timeoutSeconds": 60},
            **spec,
        }
        kind = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "UpdatePolicy", "metadata": {"name": POLICY}}
        self.api.create(OUR_POLICIES, {**kind, "spec": body})

    def careen(self, *arguments: str) -> str:
        """Run a verb of the command line as a person does; what it printed."""
        source = str(Path(careen.__file__).parents[1])
        path = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH"))))
        environment = os.environ | {"KUBECONFIG": str(self.kubeconfig), "PYTHONPATH": path}
        command = [sys.executable, "-m", "careen", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)
        assert done.returncode == 0, f"careen {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def settle(self) -> None:
        """Take the policy away, and wait until the fleet is at rest."""
        self.api.delete(f"{OUR_POLICIES}/{POLICY}")
        self.api.delete(f"{SWITCH}/careen-switch")
        self.until(self._is_at_rest, "the fleet is at rest")

    def _is_at_rest(self) -> bool:
        cores = [self.core(name) for name in self.names]
        return not self.holders() and not self.cordoned() and all(map(is_ready, cores)) and all(self.boots().values())


class SandboxSite(Site):
    """Three machines of the sandbox: real disk images, a simulated firmware, processes for agents and operator."""

    patience = 120.0

    def __init__(self) -> None:
        self._sandbox = Sandbox(SandboxOptions(machines=3, zones=3, lock_max=1, boot_seconds=0.5, in_process=True))
        self.names = self._sandbox.names

    def __enter__(self) -> Self:
        self._sandbox.start()
        self.api, self.repository = self._sandbox.api, self._sandbox.repository
        self.url, self.kubeconfig = self._sandbox.releases, self._sandbox.cluster.kubeconfig
        return self

    def __exit__(self, *_: object) -> None:
        self._sandbox.stop()

    def settle(self) -> None:
        if not self._sandbox.process("operator").ended:
            super().settle()

    def lose(self, name: str) -> None:
        self._zone = self.core(name)["metadata"]["labels"][ZONE_LABEL]
        self._sandbox.cut_power(name)
        self.api.delete(f"{NODES}/{name}")
        # What the collector of pods would do after a minute: the agent's next token must not be bound to the old pod.
        for namespace in (NAMESPACE, "default"):
            pods = f"/api/v1/namespaces/{namespace}/pods"
            self.api.delete(pods, fieldSelector=f"spec.nodeName={name}", gracePeriodSeconds="0")

    def restore(self, name: str) -> None:
        create_nodes(self.api, [node_manifest(name, self._zone, machine_id=machine_id_of(name))])
        token = self._sandbox.cluster.kubeconfig_with_token(mint_agent_token(self.api, name))
        path = self._sandbox.folder_of(name) / "settings.json"
        replace(MachineSettings.load(path), kubeconfig=str(token)).save(path)
        self._sandbox.power_on(name)

    def uninstall(self) -> None:
        stop([self._sandbox.process("operator")], 10.0)
        self.api.delete(f"{DAEMONSETS}/{AGENT_ACCOUNT}")
        for account in (OPERATOR_ACCOUNT, AGENT_ACCOUNT):
            self.api.delete(f"{BINDINGS}/{account}")


class ClusterSite(Site):
    """A cluster that the chart is installed in, with agents of host image, as `make kind-demo` leaves it.

    The releases are published into the folder of $CAREEN_E2E_RELEASES; the cluster serves it.
    """

    patience = 600.0

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self.url = os.environ.get("CAREEN_E2E_REPOSITORY", "http://releases.careen-demo.svc")
        self.repository = Repository(Path(os.environ.get("CAREEN_E2E_RELEASES", "/var/tmp/careen/releases")))

    def __enter__(self) -> Self:
        assert self.repository.releases, f"no releases in {self.repository.folder}: run make kind-up"
        self.api = Api(self.kubeconfig)
        self.names = [node["metadata"]["name"] for node in self.api.items(OUR_NODES)]
        assert len(self.names) >= 3, f"the tests need three machines; there are {self.names}"
        return self

    def __exit__(self, *_: object) -> None:
        self.api.close()

    def settle(self) -> None:
        if self.api.find(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{OPERATOR_ACCOUNT}"):
            super().settle()

    def lose(self, name: str) -> None:
        # Before its Node: a kubelet that starts registers again, and careen-boot starts it when the machine boots.
        self._run("docker", "exec", name, "systemctl", "stop", *BOOT_UNITS, "kubelet")
        # Containers outlive their kubelet.
        agents = "crictl ps --quiet --name '^agent$' | xargs --no-run-if-empty crictl stop --timeout 0"
        self._run("docker", "exec", name, "sh", "-c", agents)
        self.api.delete(f"{NODES}/{name}")

    def restore(self, name: str) -> None:
        self._run("docker", "exec", name, "systemctl", "start", BOOT_UNITS[0], "kubelet")
        self.until(lambda: is_ready(self.core(name)), f"{name} is Ready again")

    def uninstall(self) -> None:
        self._run("helm", "uninstall", "careen", f"--namespace={NAMESPACE}", "--wait", "--timeout=3m")

    def publish(self, fault: Fault | None = None) -> str:
        version = super().publish(fault)
        make_readable(self.repository.public)
        return version

    def _run(self, *command: str) -> None:
        environment = os.environ | {"KUBECONFIG": str(self.kubeconfig)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


def make_readable(folder: Path) -> None:
    """Let the user of the serving container read a repository."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
