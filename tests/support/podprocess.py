"""A pod's container as a process of this computer: its arguments, its environment, its volumes, and its own token.

What a kubelet would do, as far as `careen` can tell: only the paths differ.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import careen
from careen.sandbox.client import Api
from careen.sandbox.controlplane import ControlPlane
from careen.sandbox.processes import Child, spawn

TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
PROGRAM = """
import sys
from pathlib import Path
from careen.kube import credentials
credentials.SERVICE_ACCOUNT = Path(sys.argv.pop(1))
from careen.cli.main import main
main()
"""


def start_pod(plane: ControlPlane, api: Api, pod: dict[str, Any], folder: Path, address: str) -> Child:
    """Start the pod's first container. folder: an empty one, for its volumes. address: a loopback one of its own."""
    spec, name = pod["spec"], pod["metadata"]["name"]
    container = spec["containers"][0]
    places = {
        mount["mountPath"]: _make_volume(plane, api, pod, _find(spec["volumes"], mount["name"]), folder / mount["name"])
        for mount in container["volumeMounts"]
    }
    environment = {each["name"]: _resolve(each, pod, address) for each in container["env"]}
    arguments = [
        re.sub(r"\$\((\w+)\)", lambda found: environment[found[1]], argument) for argument in container["args"]
    ]
    token = places.pop(TOKEN_FOLDER)
    command = [sys.executable, "-c", PROGRAM, str(token), *(_move(argument, places) for argument in arguments)]
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG")}
    set_up = {
        "PYTHONPATH": str(Path(careen.__file__).parents[1]),
        "HOME": "/nonexistent",
        "SSL_CERT_FILE": os.devnull,
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT": str(plane.ports.apiserver),
    }
    moved = {key: _move(value, places) for key, value in environment.items()}
    return spawn(name, command, plane.logs / f"{name}.log", kept | set_up | moved)


def _find(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["name"] == name)


def _resolve(entry: dict[str, Any], pod: dict[str, Any], address: str) -> str:
    if "value" in entry:
        return str(entry["value"])
    found: Any = {**pod, "status": {**pod.get("status", {}), "podIP": address}}
    for part in entry["valueFrom"]["fieldRef"]["fieldPath"].split("."):
        found = found[part]
    return str(found)


def _move(text: str, places: dict[str, Path]) -> str:
    """A value or an option with a path below a mount, as the path that stands for it here."""
    for mount, folder in places.items():
        text = re.sub(rf"^((?:--[\w-]+=)?){re.escape(mount)}(?=/|$)", lambda found, to=folder: f"{found[1]}{to}", text)
    return text


def _make_volume(plane: ControlPlane, api: Api, pod: dict[str, Any], volume: dict[str, Any], folder: Path) -> Path:
    folder.mkdir(parents=True)
    namespace = pod["metadata"]["namespace"]
    if "configMap" in volume:
        found = api.get(f"/api/v1/namespaces/{namespace}/configmaps/{volume['configMap']['name']}")
        for key, text in found["data"].items():
            (folder / key).write_text(text)
    for source in volume.get("projected", {}).get("sources", ()):
        if token := source.get("serviceAccountToken"):
            (folder / token["path"]).write_text(_mint(api, pod, token["expirationSeconds"]))
        if "configMap" in source:
            (folder / "ca.crt").write_bytes(plane.ca.read_bytes())
        if "downwardAPI" in source:
            (folder / "namespace").write_text(namespace)
    return folder


def _mint(api: Api, pod: dict[str, Any], seconds: int) -> str:
    meta = pod["metadata"]
    bound = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": seconds, "boundObjectRef": bound},
    }
    account = f"/api/v1/namespaces/{meta['namespace']}/serviceaccounts/{pod['spec']['serviceAccountName']}/token"
    return str(api.create(account, request)["status"]["token"])
