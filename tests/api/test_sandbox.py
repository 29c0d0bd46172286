"""`careen sandbox` as a user has it: one line of JSON, a fleet that works, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from careen.sandbox.client import Api, wait_until
from careen.sandbox.cluster import Cluster
from careen.sandbox.demo import read_disk
from careen.sandbox.up import Sandbox, SandboxOptions
from careen.sandbox.workspace import base_folder

SOURCE = Path(__file__).parents[2] / "operator"
OURS = "/apis/careen.dev/v1alpha1"


class Fleet:
    """A `careen sandbox up --json` that runs beside the test."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "careen", "sandbox", "up", "--json", *arguments]
        environment = os.environ | {"PYTHONPATH": str(SOURCE)}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        self.facts: dict[str, Any] = json.loads(self.line)

    @property
    def folder(self) -> Path:
        """What must be gone afterwards."""
        return Path(self.facts["kubeconfig"]).parent.parent

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    fleet = Fleet("--machines", "2", "--zones", "2")
    yield fleet
    if fleet.process.poll() is None:
        fleet.end(signal.SIGTERM)


def careen(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-m", "careen", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def processes_in(folder: Path) -> list[str]:
    """Command lines of the processes that work in the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found


def policy(releases: str, version: str) -> dict[str, Any]:
    return {
        "apiVersion": "careen.dev/v1alpha1",
        "kind": "UpdatePolicy",
        "metadata": {"name": "os"},
        "spec": {"release": {"repository": releases, "version": version}},
    }


def condition(api: Api, name: str) -> bool:
    found = api.get(f"{OURS}/updatepolicies/os").get("status", {}).get("conditions", [])
    return any(each["type"] == name and each["status"] == "True" for each in found)


@pytest.mark.slow
def test_up_prints_one_line_and_a_published_release_is_rolled_out(fleet: Fleet) -> None:
    assert set(fleet.facts) == {"kubeconfig", "auditLog", "releases", "machines"}
    assert fleet.facts["machines"] == ["machine-1", "machine-2"]
    assert Path(fleet.facts["auditLog"]).exists()
    api = Api(Path(fleet.facts["kubeconfig"]))
    zones = {node["metadata"]["labels"]["topology.kubernetes.io/zone"] for node in api.items("/api/v1/nodes")}
    assert zones == {"zone-a", "zone-b"}
    published = careen("sandbox", "publish", "3.0.0", "--kubeconfig", fleet.facts["kubeconfig"])
    assert published.returncode == 0, published.stderr
    assert published.stdout.startswith("sha256:")
    api.create(f"{OURS}/updatepolicies", policy(fleet.facts["releases"], "3.0.0"))
    wait_until(lambda: condition(api, "Complete"), "the rollout complete", 60)
    api.close()
    assert fleet.end(signal.SIGTERM) == 0
    assert not fleet.folder.exists()
    assert processes_in(fleet.folder) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_behind(number: signal.Signals) -> None:
    fleet = Fleet("--machines", "1", "--zones", "1")
    assert processes_in(fleet.folder)
    fleet.end(number)
    deadline = time.monotonic() + 15
    while (fleet.folder.exists() or processes_in(fleet.folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_in(fleet.folder) == []
    assert not fleet.folder.exists()


def test_publish_without_a_sandbox_says_how_to_start_one(tmp_path: Path) -> None:
    done = careen("sandbox", "publish", "3.0.0", "--kubeconfig", str(tmp_path / "none"))
    assert (done.returncode, done.stdout) == (1, "")
    expected = f"careen: no sandbox with the kubeconfig {tmp_path}/none is up: start one by `careen sandbox up`\n"
    assert done.stderr == expected


@pytest.mark.slow
def test_a_fleet_on_an_existing_cluster_takes_its_objects_away(plane: Cluster, admin: Api) -> None:
    with Sandbox(SandboxOptions(machines=2, zones=1), cluster=plane) as fleet:
        assert {node["metadata"]["name"] for node in admin.items(f"{OURS}/nodes")} == set(fleet.names)
        pids = [fleet.process(name).process.pid for name in (*fleet.names, "operator")]
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    left = [path for path in ("/api/v1/nodes", f"{OURS}/nodes", f"{OURS}/updatepolicies") if admin.items(path)]
    assert left == []
    assert admin.items("/apis/apps/v1/deployments") == []


@pytest.mark.slow
def test_a_fleet_survives_its_agents_operators_and_power() -> None:
    """What other tests build on: each part can be killed alone, and comes back."""
    options = SandboxOptions(machines=2, zones=1, lease_seconds=2.0)
    with Sandbox(options) as fleet:
        fleet.api.create(f"{OURS}/updatepolicies", policy(fleet.releases, "2.0.0"))
        fleet.kill_operator()
        fleet.start_operator("operator-2")
        wait_until(lambda: fleet.kill_agent("machine-1"), "an agent to kill", 20)
        fleet.cut_power("machine-2")
        fleet.power_on("machine-2")
        wait_until(lambda: condition(fleet.api, "Complete"), "the rollout complete", 90)
        for name in fleet.names:
            disk = read_disk(fleet.folder_of(name) / "disk.img")
            assert (disk.boots, disk.good) == ("2.0.0", True)
        assert fleet.find_ended() == []
        folder = fleet.cluster.kubeconfig.parent
    assert not folder.exists()
    assert base_folder().exists()
