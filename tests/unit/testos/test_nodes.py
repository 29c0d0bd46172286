"""The parts of the real Kubernetes nodes that need no machine."""

from __future__ import annotations

import hashlib
import json
import socket
import tarfile
import threading
from pathlib import Path

import pytest

from testos.node.egress import Egress
from testos.node.evidence import NodeSeen, PodSeen
from testos.node.pods import BUSYBOX, PAUSE, write_images_disk, write_pod_images

AGENT = PodSeen("agent", "uid-1", "vm-1", True, 0, "containerd://1", "careen:1")
BEFORE = NodeSeen("boot-1", "Careen test OS 1", True, (), AGENT)


def make_agent(**changes: object) -> PodSeen:
    """The agent's pod with its container started anew, but for the changes."""
    fresh: dict[str, object] = {"restarts": 1, "container": "containerd://2"}
    return PodSeen(**(vars(AGENT) | fresh | changes))  # type: ignore[arg-type]


def test_a_node_is_back_when_all_says_so() -> None:
    assert NodeSeen("boot-2", "Careen test OS 2", True, (), make_agent()).has_rebooted(BEFORE)


def test_a_node_is_back_with_another_pod_of_an_upgraded_daemonset() -> None:
    agent = make_agent(uid="uid-2", restarts=0)
    assert NodeSeen("boot-2", "Careen test OS 2", True, (), agent).has_rebooted(BEFORE)


@pytest.mark.parametrize(
    "stale",
    [
        pytest.param(BEFORE, id="as it was"),
        pytest.param(NodeSeen("boot-1", "Careen test OS 1", True, (), make_agent()), id="only the agent was restarted"),
        pytest.param(NodeSeen("boot-2", "Careen test OS 2", True, (), AGENT), id="the pod is shown as it was"),
        pytest.param(NodeSeen("boot-2", "Careen test OS 2", True, (), make_agent(ready=False)), id="agent not ready"),
        pytest.param(NodeSeen("boot-2", "Careen test OS 2", True, (), None), id="no agent"),
        pytest.param(NodeSeen("boot-2", "Careen test OS 2", False, (), make_agent()), id="not ready"),
        pytest.param(
            NodeSeen("boot-2", "Careen test OS 2", True, ("node.kubernetes.io/unschedulable",), make_agent()),
            id="still cordoned",
        ),
    ],
)
def test_ready_alone_is_no_proof(stale: NodeSeen) -> None:
    assert not stale.has_rebooted(BEFORE)


def test_a_pod_that_is_being_deleted_does_not_count_as_ready() -> None:
    container = {"ready": True, "restartCount": 0, "containerID": "containerd://1", "state": {"running": {}}}
    pod = {
        "metadata": {"name": "web", "uid": "uid", "deletionTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"nodeName": "vm-1", "containers": [{"image": "web"}]},
        "status": {"containerStatuses": [container]},
    }
    assert not PodSeen.of(pod).ready


def test_pod_images_are_one_archive_of_two_images(tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/busybox").write_bytes(b"program")
    write_pod_images(tmp_path, tmp_path / "pods.tar")
    with tarfile.open(tmp_path / "pods.tar") as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]
    entries = json.loads(files["index.json"])["manifests"]
    assert [entry["annotations"]["io.containerd.image.name"] for entry in entries] == [PAUSE, BUSYBOX]
    for entry in entries:
        manifest = json.loads(read_blob(files, entry["digest"]))
        config = json.loads(read_blob(files, manifest["config"]["digest"]))
        assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]


def read_blob(files: dict[str, bytes], digest: str) -> bytes:
    """A blob, which must be what its name says."""
    data = files[f"blobs/{digest.replace(':', '/')}"]
    assert f"sha256:{hashlib.sha256(data).hexdigest()}" == digest
    return data


def test_a_disk_of_images_begins_with_what_changes_with_them(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"a")
    second.write_bytes(b"b")
    heads = set()
    for number, (archives, aliases) in enumerate([([first], {}), ([second], {}), ([first], {"new": "old"})]):
        disk = tmp_path / f"disk-{number}"
        write_images_disk(disk, archives, aliases)
        with tarfile.open(disk) as tar:
            assert tar.getnames() == ["hashes", "aliases", "0.tar"]
            heads.add(tar.extractfile("hashes").read())  # type: ignore[union-attr]
    assert len(heads) == 3


@pytest.fixture
def egress(tmp_path: Path) -> Egress:
    """A proxy, not started."""
    return Egress(tmp_path / "egress")


def test_leads_a_kubelet_s_address_to_its_port(egress: Egress) -> None:
    with socket.create_server(("127.0.0.1", 0)) as kubelet, egress:
        egress.ports["10.0.2.15:10250"] = kubelet.getsockname()[1]
        answering = threading.Thread(target=answer_once, args=(kubelet,))
        answering.start()
        with connect(egress, "10.0.2.15:10250") as connection:
            assert connection.recv(100) == b"HTTP/1.1 200 OK\r\n\r\n"
            connection.sendall(b"question")
            assert connection.recv(100) == b"answer to question"
        answering.join(10)


def test_leads_nowhere_else(egress: Egress) -> None:
    with egress, connect(egress, "127.0.0.1:22") as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 502 ")


def answer_once(kubelet: socket.socket) -> None:
    """Play a kubelet for one connection."""
    connection, _ = kubelet.accept()
    with connection:
        connection.sendall(b"answer to " + connection.recv(100))


def connect(egress: Egress, target: str) -> socket.socket:
    """Ask the proxy for a connection."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    connection.connect(str(egress.socket))
    connection.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    return connection
