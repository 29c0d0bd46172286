"""Virtual machines that belong to a cluster: a real control plane, an operator and signed releases on this host."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from careen.disk.types import SlotName
from careen.release.keys import load_keys
from careen.release.repository import publish_release
from careen.sandbox.accounts import mint_agent_token
from careen.sandbox.client import Api
from careen.sandbox.cluster import current_cluster
from careen.sandbox.nodes import create_nodes, node_manifest
from careen.sandbox.up import Sandbox, SandboxOptions
from careen.sandbox.workspace import Workspace

from .cache import print_report
from .disk import Identity, install, make_disk
from .fleet import Fleet
from .image import OsImage, build_loader
from .kubelet import ConsoleKubelet
from .machine import HOST_ADDRESS, WORDS, Machine, MachineOptions

RENEW_SECONDS = 20.0


@dataclass(frozen=True)
class _Member:
    """A machine of the site, with what plays its kubelet."""

    machine: Machine
    kubelet: ConsoleKubelet


class Site(Fleet):
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
