"""A control plane of one's own: etcd, API server, controllers, scheduler and kwok on free loopback ports."""

import atexit
import base64
import json
import secrets
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from contextlib import ExitStack
from importlib import resources
from pathlib import Path
from typing import Any, Self

from careen.sandbox import components
from careen.sandbox.binaries import Report, SandboxError, ensure_binaries
from careen.sandbox.certificates import (
    Authority,
    Pair,
    make_service_account_keys,
    write_private,
)
from careen.sandbox.cluster import Cluster
from careen.sandbox.components import Files, Ports
from careen.sandbox.processes import Child, kill, spawn
from careen.sandbox.progress import print_progress
from careen.sandbox.proxy import Proxy
from careen.sandbox.workspace import Workspace

READY_SECONDS = 60.0
START_TRIES = 3

ACCOUNTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "admin": ("careen-sandbox-admin", ("system:masters",)),
    "controller-manager": ("system:kube-controller-manager", ()),
    "scheduler": ("system:kube-scheduler", ()),
    "kwok": ("careen-sandbox-kwok", ("system:masters",)),
}

KUBELET_CLIENT = "careen-sandbox-apiserver"
"""Who the API server is for kubelets."""


class _PortTakenError(Exception):
    """Another process took a port between our look and the child's bind."""


class ControlPlane(Cluster):
    """One control plane, from `start` to `stop`; also a context manager.

    Several can run side by side. When this process ends in any way, SIGKILL included, the children end
    and the data vanishes; the logs stay in `logs`. All methods are synchronous; a caller inside an event
    loop uses asyncio.to_thread.
    """

    logs: Path
    """Folder with the output of each process and the audit log; the last few planes' are kept."""
    ports: Ports
    """The loopback ports in use."""
    audit_log: Path
    """One JSON document a line for each answered request; careen.sandbox.audit reads it."""
    binaries: dict[str, Path]
    """The programs, kubectl included."""

    def __init__(
        self,
        *,
        controllers: bool = True,
        scheduler: bool = True,
        kwok: bool = True,
        kubelets: Path | None = None,
        progress: Report = print_progress,
    ) -> None:
        """Choose what runs beside etcd and the API server; `progress` hears about builds.

        kubelets: unix socket of an HTTP CONNECT proxy that leads to real kubelets; None: there are none.
        """
        self._kubelets = kubelets
        self._optional = {"controller-manager": controllers, "scheduler": scheduler, "kwok": kwok}
        self._progress = progress
        self._children: dict[str, Child] = {}
        self._workspace: Workspace | None = None
        self._authority = Authority()

    def start(self) -> Self:
        """Build what is missing, start everything and wait until it is ready.

        Raises SandboxError with the end of the log of the process that failed.
        """
        self.binaries = ensure_binaries(self.programs, self._progress)
        atexit.register(self.stop)
        with ExitStack() as undo:
            undo.callback(self.stop)
            self._workspace = Workspace()
            self.logs = self._workspace.logs
            self._start_on_free_ports()
            undo.pop_all()
        return self

    def stop(self) -> None:
        """End all processes and remove the data. Safe to call twice."""
        atexit.unregister(self.stop)
        # Without grace: the data is thrown away, and the audit log is written before each answer.
        kill(self._children.values())
        self._children.clear()
        if self._workspace is not None:
            self._workspace.remove()
            self._workspace = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The API server's address."""
        return f"https://127.0.0.1:{self.ports.apiserver}"

    @property
    def etcd_endpoint(self) -> str:
        """etcd's client address."""
        return f"http://127.0.0.1:{self.ports.etcd}"

    @property
    def ca(self) -> Path:
        """The certificate of the authority that signed the API server's certificate."""
        return self._files.authority

    @property
    def pids(self) -> dict[str, int]:
        """The process ids, by the process's name."""
        return {name: child.process.pid for name, child in self._children.items()}

    def kubeconfig_for(self, user: str, groups: Iterable[str] = (), server: str | None = None) -> Path:
        """Write a kubeconfig with a client certificate for any user and groups.

        A service account's name and groups work as well, but not its token's extra claims. `server`
        is another address of the API server, such as a Proxy's.
        """
        pair = self._authority.issue_client(user, groups)
        credential = {
            "client-certificate-data": base64.b64encode(pair.certificate).decode(),
            "client-key-data": base64.b64encode(pair.key).decode(),
        }
        return self._write_kubeconfig(f"user-{secrets.token_hex(4)}", credential, server)

    def issue_kubelet(self, node: str, address: str) -> tuple[Pair, Pair]:
        """Certificates of a node's kubelet: that of a client of the API server, and the one that it serves with."""
        client = self._authority.issue_client(f"system:node:{node}", ["system:nodes"])
        return client, self._authority.issue_kubelet_server(node, address)

    def proxy(self) -> Proxy:
        """Start a proxy in front of the API server, for tests that cut the line."""
        return Proxy(self.ports.apiserver)

    def compact_etcd(self) -> int:
        """Drop all history up to now from etcd and return the revision.

        The API server's watch cache still serves recent versions: only after restart_apiserver does a
        watch from an older version get 410.
        """
        answer = self._call_etcd("/v3/kv/range", {"key": base64.b64encode(b"\0").decode()})
        revision = int(answer["header"]["revision"])
        self._call_etcd("/v3/kv/compaction", {"revision": revision, "physical": True})
        return revision

    def restart_apiserver(self) -> None:
        """Kill the API server and start it again on its port; breaks all watches. Takes some seconds."""
        kill([self._children.pop("apiserver")])
        self._start_apiserver()
        self.warm_up()

    @property
    def kubectl_program(self) -> Path:
        return self.binaries["kubectl"]

    @property
    def scratch(self) -> Path:
        return self._files.folder

    def _cluster_entry(self) -> dict[str, Any]:
        authority = base64.b64encode(self._authority.certificate).decode()
        return {"server": self.url, "certificate-authority-data": authority}

    @property
    def programs(self) -> list[str]:
        """What `start` takes from the cache or builds, for a caller that wants to build beforehand."""
        extra = {"controller-manager": "kube-controller-manager", "scheduler": "kube-scheduler"}
        chosen = [extra.get(name, name) for name, wanted in self._optional.items() if wanted]
        return ["etcd", "kube-apiserver", *chosen, "kubectl"]

    def _start_on_free_ports(self) -> None:
        for attempt in range(1, START_TRIES + 1):
            assert self._workspace is not None
            self.ports = Ports(*components.free_ports(4))
            self._files = Files(self._workspace.path / f"try-{attempt}", self.logs)
            self._files.folder.mkdir()
            self.kubeconfig, self.audit_log = self._files.kubeconfig("admin"), self._files.audit_log
            try:
                self._start_children()
            except _PortTakenError:
                kill(self._children.values())
                self._children.clear()
                if attempt == START_TRIES:
                    raise SandboxError(f"no free ports after {attempt} tries (logs: {self.logs})") from None
            else:
                return

    def _start_children(self) -> None:
        files, ports = self._files, self.ports
        self._write_files()
        self._spawn("etcd", components.etcd(self.binaries["etcd"], files, ports))
        self._wait("etcd", f"{self.etcd_endpoint}/health")
        self._start_apiserver()
        if self._optional["controller-manager"]:
            self._spawn(
                "controller-manager",
                components.controller_manager(
                    self.binaries["kube-controller-manager"], files, kubelets=self._kubelets is not None
                ),
            )
        if self._optional["scheduler"]:
            self._spawn("scheduler", components.scheduler(self.binaries["kube-scheduler"], files))
        if self._optional["kwok"]:
            account = files.kubeconfig("kwok")
            command = components.kwok(self.binaries["kwok"], account, files.stages, ports.kwok)
            self._spawn("kwok", command)
            self._wait("kwok", f"http://127.0.0.1:{ports.kwok}/healthz")
        if self._optional["controller-manager"]:
            # Until the namespace has its service account, the API server refuses pods in it.
            self._wait_for_default_account()

    def _start_apiserver(self) -> None:
        command = components.apiserver(self.binaries["kube-apiserver"], self._files, self.ports)
        if self._kubelets is not None:
            command += components.with_kubelets(self._files)
        self._spawn("apiserver", command)
        self._wait("apiserver", f"{self.url}/readyz")

    def _spawn(self, name: str, command: list[str]) -> None:
        self._children[name] = spawn(name, command, self.logs / f"{name}.log")

    def _wait(self, name: str, url: str) -> None:
        """Wait until the child answers 200 under the address."""
        context = ssl.create_default_context(cafile=str(self.ca)) if url.startswith("https:") else None
        deadline = time.monotonic() + READY_SECONDS
        while True:
            self._check_alive()
            try:
                with urllib.request.urlopen(url, timeout=2, context=context):  # noqa: S310
                    return
            except (urllib.error.URLError, OSError) as error:
                if time.monotonic() > deadline:
                    tail = self._children[name].log_tail()
                    raise SandboxError(
                        f"{name} is not ready after {READY_SECONDS:g} s: {error} (logs: {self.logs})\n{tail}"
                    ) from error
            time.sleep(0.05)

    def _wait_for_default_account(self) -> None:
        api = self.api()
        deadline = time.monotonic() + READY_SECONDS
        while api.find("/api/v1/namespaces/default/serviceaccounts/default") is None:
            self._check_alive()
            if time.monotonic() > deadline:
                raise SandboxError(
                    f"the controller manager made no service account in {READY_SECONDS:g} s (logs: {self.logs})"
                )
            time.sleep(0.05)
        api.close()

    def _check_alive(self) -> None:
        for child in self._children.values():
            if child.ended:
                tail = child.log_tail()
                if "address already in use" in tail:
                    raise _PortTakenError
                raise SandboxError(
                    f"{child.name} ended with code {child.process.returncode} (logs: {self.logs})\n{tail}"
                )

    def _write_files(self) -> None:
        files = self._files
        server = self._authority.issue_server()
        private, public = make_service_account_keys()
        files.authority.write_bytes(self._authority.certificate)
        files.server_certificate.write_bytes(server.certificate)
        write_private(files.server_key, server.key)
        write_private(files.token_key, private)
        files.token_public_key.write_bytes(public)
        package = resources.files("careen.sandbox")
        files.audit_policy.write_bytes((package / "audit.yaml").read_bytes())
        files.stages.write_bytes((package / "kwok.yaml").read_bytes())
        if self._kubelets is not None:
            client = self._authority.issue_client(KUBELET_CLIENT, ["system:masters"])
            files.kubelet_client_certificate.write_bytes(client.certificate)
            write_private(files.kubelet_client_key, client.key)
            files.egress.write_text(components.egress_document(self._kubelets))
        for name, (user, groups) in ACCOUNTS.items():
            self.kubeconfig_for(user, groups).rename(files.kubeconfig(name))

    def _call_etcd(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        url, content = self.etcd_endpoint + path, json.dumps(body).encode()
        with urllib.request.urlopen(url, content, timeout=30) as answer:  # noqa: S310
            document = json.load(answer)
        assert isinstance(document, dict)
        return document
