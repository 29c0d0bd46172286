"""Virtual machines that belong to a cluster: a real control plane, an operator and signed releases on this host."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from careen.api.meta import API_VERSION
from careen.disk.types import SlotName
from careen.release.keys import load_keys
from careen.release.repository import publish_release
from careen.sandbox.accounts import mint_agent_token
from careen.sandbox.client import Api, ApiError, Manifest, wait_until
from careen.sandbox.cluster import current_cluster
from careen.sandbox.nodes import create_nodes, node_manifest
from careen.sandbox.up import OUR_NODES, OUR_POLICIES, Sandbox, SandboxOptions
from careen.sandbox.workspace import Workspace

from .cache import print_report
from .disk import Identity, install, make_disk
from .image import OsImage, build_loader
from .kubelet import ConsoleKubelet
from .machine import HOST_ADDRESS, WORDS, Machine, MachineOptions

POLICY = "os"
RENEW_SECONDS = 20.0


@dataclass(frozen=True)
class _Member:
    """A machine of the site, with what plays its kubelet."""

    machine: Machine
    kubelet: ConsoleKubelet


class Site:
    """A context manager: everything is up inside, and nothing is left afterwards but the logs."""

    def __init__(self, report: Callable[[str], None] = print_report, *, log_level: str = "INFO") -> None:
        self._report = report
        self._options = SandboxOptions(machines=0, workload=False, log_level=log_level)
        self._members: dict[str, _Member] = {}
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            self.workspace = Workspace()
            undo.callback(self.workspace.remove)
            self.sandbox = Sandbox(self._options, report=self._report)
            undo.enter_context(self.sandbox)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        for member in self._members.values():
            member.kubelet.stop()
            member.machine.cut_power()
        self._undo.close()

    @property
    def api(self) -> Api:
        """A client with the administrator's rights."""
        return self.sandbox.api

    @property
    def repository(self) -> str:
        """URL of the releases, as both this host and the machines reach it."""
        port = urlsplit(self.sandbox.releases).port
        # A machine's /etc/hosts gives its host this name: one URL is good on both sides.
        return f"http://localhost:{port}"

    @property
    def logs(self) -> Path:
        """Where consoles and logs are, also afterwards."""
        return self.sandbox.logs

    @property
    def names(self) -> list[str]:
        """Names of the machines."""
        return list(self._members)

    def __getitem__(self, name: str) -> Machine:
        """A machine by its name."""
        return self._members[name].machine

    def publish(self, image: OsImage, *channels: str) -> None:
        """Sign a release and put it into the repository."""
        folder = self.sandbox.repository
        publish_release(folder.public, [image.folder], load_keys([folder.folder / "keys"]), channels=channels)

    def add_machine(
        self,
        name: str,
        image: OsImage,
        options: MachineOptions | None = None,
        *,
        settings: dict[str, str] | None = None,
        passive: OsImage | None = None,
    ) -> Machine:
        """Make a machine with `image` in slot A, and its core Node; it is not switched on yet.

        settings: more of the agent's environment, such as CAREEN_AGENT_KEXEC.
        """
        options = options or MachineOptions()
        machine_id = hashlib.sha256(name.encode()).hexdigest()[:32]
        create_nodes(self.api, [node_manifest(name, "zone-a", machine_id=machine_id)])
        disk = self.workspace.path / f"{name}.img"
        words = f"{WORDS} {options.words}" if options.uefi else None
        make_disk(disk, image, Identity(machine_id, self._identify(name, settings or {})), uefi_words=words)
        if passive is not None:
            install(disk, SlotName.B, passive)
        machine = Machine(name, disk, build_loader(), folder=self.workspace.path, logs=self.logs, options=options)
        kubelet = ConsoleKubelet(self.sandbox.cluster.api, machine.console, name, machine_id)
        kubelet.start()
        self._members[name] = _Member(machine, kubelet)
        return machine

    def ask_for(self, version: str, **spec: Any) -> None:
        """Let the policy ask for a version; spec: more of the policy's spec."""
        wanted = {"release": {"repository": self.repository, "version": version}, **spec}
        document = {
            "apiVersion": API_VERSION,
            "kind": "UpdatePolicy",
            "metadata": {"name": POLICY},
            "spec": wanted,
        }
        try:
            self.api.create(OUR_POLICIES, document)
        except ApiError as error:
            if error.status != 409:
                raise
            self.api.patch(f"{OUR_POLICIES}/{POLICY}", {"spec": wanted})

    def node(self, name: str) -> Manifest:
        """A machine's Node; an empty document while there is none."""
        return self.api.find(f"{OUR_NODES}/{name}") or {}

    def status(self, name: str) -> dict[str, Any]:
        """Status of a machine's Node."""
        found = self.node(name).get("status", {})
        assert isinstance(found, dict)
        return found

    def policy(self) -> Manifest:
        """The policy."""
        return self.api.get(f"{OUR_POLICIES}/{POLICY}")

    def condition(self, kind: str) -> dict[str, Any] | None:
        """A condition of the policy."""
        conditions = self.policy().get("status", {}).get("conditions", [])
        return next((found for found in conditions if found["type"] == kind), None)

    def wait_reported(self, name: str, seconds: float) -> None:
        """Wait until a machine's agent has said what runs."""
        self._wait(name, lambda status: bool(status.get("bootID")), "reported", seconds)

    def wait_progress(self, name: str, seconds: float) -> dict[str, Any]:
        """Wait until a machine has written some of a release; returns the Node's status."""

        def begun(status: dict[str, Any]) -> bool:
            progress = (status.get("step") or {}).get("progress") or {}
            return any(progress.get(key) for key in ("bytesReused", "bytesFetched", "bytesSkipped"))

        return self._wait(name, begun, "writing a release", seconds)

    def wait_error(self, name: str, word: str, seconds: float) -> dict[str, Any]:
        """Wait until a machine shows an error of this class; returns the Node's status."""

        def shown(status: dict[str, Any]) -> bool:
            return bool(((status.get("step") or {}).get("error") or {}).get("class") == word)

        return self._wait(name, shown, f"showing an error of class {word}", seconds)

    def request(self, name: str, action: str) -> None:
        """Ask a machine for a reboot or reset, as `careen reboot` and `careen reset` do."""
        wanted = {"action": action, "id": f"{action.lower()}-{time.time_ns():x}"}
        self.api.patch(f"{OUR_NODES}/{name}", {"spec": {"request": wanted}})

    def wait_boot(self, name: str, last: str, seconds: float) -> dict[str, Any]:
        """Wait until a machine's agent reports another boot than `last`; returns the Node's status."""
        return self._wait(name, lambda status: status.get("bootID") not in (None, "", last), "booted anew", seconds)

    def wait_phase(self, name: str, phases: tuple[str, ...], version: str, seconds: float) -> dict[str, Any]:
        """Wait until a machine's order for a version is in one of these phases; returns the Node's status."""

        def reached(status: dict[str, Any]) -> bool:
            order = self.node(name).get("spec", {}).get("assignment") or {}
            step = status.get("step") or {}
            return (
                order.get("release", {}).get("version") == version
                and step.get("id") == order.get("id")
                and step.get("phase") in phases
            )

        return self._wait(name, reached, f"in phase {' or '.join(phases)} of {version}", seconds)

    def wait_condition(self, kind: str, seconds: float) -> dict[str, Any]:
        """Wait until a condition of the policy is True, and return it."""

        def holds() -> dict[str, Any] | None:
            found = self.condition(kind)
            return found if found is not None and found["status"] == "True" else None

        return wait_until(holds, f"{kind} of policy {POLICY}", seconds, pause=0.5)

    def _wait(self, name: str, reached: Callable[[dict[str, Any]], bool], what: str, seconds: float) -> dict[str, Any]:
        try:
            return wait_until(
                lambda: status if reached(status := self.status(name)) else None, f"{name} {what}", seconds, pause=0.5
            )
        except TimeoutError as error:
            shown = f"{self.node(name)}\n{self[name].console.tail()}"
            raise TimeoutError(f"{error}\n{shown}") from None

    def _identify(self, name: str, settings: dict[str, str]) -> dict[str, bytes]:
        """What the machine's OEM partition says of it: files of /etc/careen."""
        token = mint_agent_token(self.api, name)
        cluster = self.sandbox.cluster
        port = urlsplit(current_cluster(cluster.kubeconfig)["server"]).port
        kubeconfig = cluster.kubeconfig_with_token(token, f"https://{HOST_ADDRESS}:{port}").read_bytes()
        words = {
            "CAREEN_AGENT_NODE": name,
            "CAREEN_TRUST_ROOT": "/etc/careen/root.json",
            "CAREEN_AGENT_RENEW_SECONDS": f"{RENEW_SECONDS:g}",
            **settings,
        }
        return {
            "agent.env": "".join(f"{key}={value}\n" for key, value in words.items()).encode(),
            "kubeconfig": kubeconfig,
            "root.json": self.sandbox.repository.trust_root.read_bytes(),
        }
