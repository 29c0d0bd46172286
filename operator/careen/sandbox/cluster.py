"""What the demo and the tests ask of a cluster, ours or an existing one."""

import secrets
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from careen.sandbox.binaries import SandboxError
from careen.sandbox.certificates import write_private
from careen.sandbox.client import Api

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class Cluster:
    """A cluster with an administrator's kubeconfig and a kubectl that fits it."""

    kubeconfig: Path
    """The administrator's kubeconfig."""
    audit_log: Path | None
    """One JSON document a line for each answered request; None where we can't read it."""
    logs: Path
    """Folder of the logs of our processes; the last few are kept."""

    def api(self) -> Api:
        """A client with the administrator's rights."""
        return Api(self.kubeconfig)

    def kubeconfig_with_token(self, token: str, server: str | None = None) -> Path:
        """Write a kubeconfig with a bearer token, such as one bound to a pod.

        `server` is another address of the API server, such as a Proxy's.
        """
        return self._write_kubeconfig(f"token-{secrets.token_hex(4)}", {"token": token}, server)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl as the administrator and return what it printed; raises SandboxError if it fails."""
        command = [str(self.kubectl_program), f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode != 0:
            raise SandboxError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def warm_up(self) -> None:
        """Touch each custom kind once, after its definition was made or the API server started.

        The server sets a kind's storage up at its first request and refuses that one (429, try again
        after a second), which would spoil the first figures of whoever comes first.
        """
        api = self.api()
        paths = [
            f"/apis/{definition['spec']['group']}/{version['name']}/{definition['spec']['names']['plural']}"
            for definition in api.items(DEFINITIONS)
            for version in definition["spec"]["versions"]
            if version["served"]
        ]
        with ThreadPoolExecutor(max_workers=8) as threads:
            # The client waits and repeats as the answer says.
            list(threads.map(lambda path: api.get(path, limit="1"), paths))
        api.close()

    @property
    def kubectl_program(self) -> Path:
        """A kubectl that fits the cluster."""
        raise NotImplementedError

    @property
    def scratch(self) -> Path:
        """A private folder for kubeconfigs."""
        raise NotImplementedError

    def _cluster_entry(self) -> dict[str, Any]:
        """The API server as a kubeconfig names it: server, certificate-authority-data."""
        return current_cluster(self.kubeconfig)

    def _write_kubeconfig(self, name: str, user: dict[str, str], server: str | None) -> Path:
        cluster = self._cluster_entry() | ({"server": server} if server else {})
        return write_private(self.scratch / f"{name}.kubeconfig", kubeconfig_document(cluster, user))


def current_context(kubeconfig: Path) -> str:
    """The name of the kubeconfig's current context; raises SandboxError when there is none."""
    document = _load(kubeconfig)
    name = document.get("current-context")
    if not name:
        raise SandboxError(f"{kubeconfig} has no current-context")
    return str(name)


def current_cluster(kubeconfig: Path) -> dict[str, Any]:
    """The cluster entry (server, certificate-authority-data) of the current context."""
    document = _load(kubeconfig)
    contexts = {entry["name"]: entry["context"] for entry in document["contexts"]}
    clusters = {entry["name"]: entry["cluster"] for entry in document["clusters"]}
    found = clusters[contexts[current_context(kubeconfig)]["cluster"]]
    assert isinstance(found, dict)
    return found


def _load(kubeconfig: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(kubeconfig.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise SandboxError(f"can't read the kubeconfig {kubeconfig}: {error}") from error
    if not isinstance(document, dict):
        raise SandboxError(f"{kubeconfig} is not a kubeconfig")
    return document


def kubeconfig_document(cluster: dict[str, Any], user: dict[str, str]) -> bytes:
    """A kubeconfig with one context, careen-sandbox.

    `user` is the credential as kubeconfig spells it: client-certificate-data and client-key-data
    (base64), or token.
    """
    name = "careen-sandbox"
    context = {"cluster": name, "user": name, "namespace": "default"}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": context}],
        "current-context": name,
    }
    return yaml.safe_dump(document, sort_keys=False).encode()
