"""Who a node is: a disk with a tar that it unpacks at each boot."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from careen.sandbox.cluster import kubeconfig_document
from careen.sandbox.components import SERVICE_ADDRESS
from careen.sandbox.controlplane import ControlPlane
from testos.debian import TestOsError
from testos.machine import HOST_ADDRESS

from .golden import IDENTITY_BYTES

KUBELET_PORT = 10250
_AGE_SECONDS = 3600


@dataclass(frozen=True)
class NodeIdentity:
    """A node's name and address, and further files of its own."""

    name: str
    address: str
    """One of 10.0.2.15 and the following."""
    labels: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    """By path without the first slash."""

    @property
    def machine_id(self) -> str:
        """The machine's id: the same whenever a node of this name is made."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:32]

    @property
    def kubelet(self) -> str:
        """Where its kubelet is, as the API server asks for it."""
        return f"{self.address}:{KUBELET_PORT}"


def write_identity(disk: Path, identity: NodeIdentity, plane: ControlPlane) -> None:
    """Write a node's disk. Raises TestOsError when it is too small for that."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in (_describe(identity, plane) | identity.files).items():
            member = tarfile.TarInfo(name)
            # Before any clock of a node, so that no tar finds it odd.
            member.size, member.mode, member.mtime = len(data), 0o644, int(time.time()) - _AGE_SECONDS
            tar.addfile(member, io.BytesIO(data))
    data = made.getvalue()
    if len(data) > IDENTITY_BYTES:
        raise TestOsError(f"the files of {identity.name} take {len(data)} bytes; allowed: {IDENTITY_BYTES}")
    disk.write_bytes(data.ljust(IDENTITY_BYTES, b"\0"))


def _describe(identity: NodeIdentity, plane: ControlPlane) -> dict[str, bytes]:
    client, server = plane.issue_kubelet(identity.name, identity.address)
    port = urlsplit(plane.url).port
    authority = plane.ca.read_bytes()
    cluster = {
        "server": f"https://{HOST_ADDRESS}:{port}",
        "certificate-authority-data": base64.b64encode(authority).decode(),
    }
    user = {
        "client-certificate-data": base64.b64encode(client.certificate).decode(),
        "client-key-data": base64.b64encode(client.key).decode(),
    }
    words = {
        "NODE_NAME": identity.name,
        "NODE_ADDRESS": identity.address,
        "NODE_LABELS": ",".join(f"{key}={value}" for key, value in identity.labels.items()),
        "SERVICE_ADDRESS": SERVICE_ADDRESS,
        "API_PORT": str(port),
    }
    return {
        "etc/machine-id": f"{identity.machine_id}\n".encode(),
        "etc/hostname": f"{identity.name}\n".encode(),
        "etc/testos/node.env": "".join(f"{key}={value}\n" for key, value in words.items()).encode(),
        "etc/kubernetes/ca.crt": authority,
        "etc/kubernetes/server.crt": server.certificate,
        "etc/kubernetes/server.key": server.key,
        "etc/kubernetes/kubelet.kubeconfig": kubeconfig_document(cluster, user),
    }
