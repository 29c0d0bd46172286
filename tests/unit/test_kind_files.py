"""What makes the kind demo work, as far as it can be seen without a container engine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from careen.agent.imagehost import BootRecord, MachineFolder
from careen.api.policy import UpdatePolicySpec
from careen.cli.main import run
from careen.disk.table import read_slots
from careen.disk.types import SlotName
from careen.sandbox.machine import install_machine
from careen.sandbox.nodes import ZONE_LABEL
from kind import cluster

TOP = Path(__file__).parents[2]
FILES = TOP / "tools/kind/files"
KERNEL = "/proc/sys/kernel/random/boot_id"


def test_three_workers_in_three_zones_each_have_a_folder_that_the_demo_fills() -> None:
    config = yaml.safe_load((TOP / "kind-config.yaml").read_text())
    roles = [node["role"] for node in config["nodes"]]
    assert roles == ["control-plane", "worker", "worker", "worker"]
    workers = config["nodes"][1:]
    assert len({node["labels"][ZONE_LABEL] for node in workers}) == 3
    values = yaml.safe_load((TOP / "tests/e2e/values-kind.yaml").read_text())
    policy = yaml.safe_load((FILES / "policy.yaml").read_text())
    for labels in (values["machines"]["selector"], policy["spec"]["selector"]["matchLabels"]):
        assert all(labels.items() <= node["labels"].items() for node in workers)
        assert not labels.items() <= config["nodes"][0].get("labels", {}).items()
    mounts = [(mount["hostPath"], mount["containerPath"]) for node in workers for mount in node["extraMounts"]]
    assert mounts == [(str(cluster.FOLDER / name), "/var/lib/careen") for name in cluster.WORKERS]


def test_the_example_policy_is_one_that_the_models_accept() -> None:
    policy = yaml.safe_load((FILES / "policy.yaml").read_text())
    spec = UpdatePolicySpec.model_validate(policy["spec"])
    service = next(
        each for each in yaml.safe_load_all((FILES / "releases.yaml").read_text()) if each["kind"] == "Service"
    )
    host = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc"
    assert spec.release.repository == f"http://{host}"


def test_a_worker_s_folder_becomes_a_machine_once(tmp_path: Path) -> None:
    repository = cluster.prepare_folder(tmp_path)
    assert list(repository.releases) == ["1.0.0", "2.0.0", cluster.BROKEN]
    folder = tmp_path / cluster.WORKERS[0]
    files = install_machine(folder, "careen-worker")
    slots = read_slots(files.disk)
    assert slots[SlotName.A].attributes.good
    assert not slots[SlotName.B].attributes.good
    identity, disk = files.machine_id.read_text(), files.disk.read_bytes()
    # Again, as after a restart of the container, and by somebody who makes the demo a second time.
    cluster.prepare_folder(tmp_path)
    install_machine(folder, "careen-worker")
    assert (files.machine_id.read_text(), files.disk.read_bytes()) == (identity, disk)


def test_an_installation_that_was_cut_short_begins_again(tmp_path: Path) -> None:
    cluster.prepare_folder(tmp_path)
    folder = tmp_path / cluster.WORKERS[0]
    files = MachineFolder(folder)
    files.disk.write_bytes(b"half")
    install_machine(folder, "careen-worker")
    assert read_slots(files.disk)[SlotName.A].attributes.good


def test_a_folder_without_a_release_is_told_in_a_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = run("careen", ["agent", "--host", "image", "--boot", "--folder", str(tmp_path), "--node", "n"])
    error = capfd.readouterr().err
    assert code == 1
    assert "no machine can be installed" in error
    assert "Traceback" not in error


def test_a_real_machine_is_not_booted_by_its_agent(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("careen", ["agent", "--host", "linux", "--boot", "--node", "n"]) == 2
    assert "--boot is for --host image" in capfd.readouterr().err


def test_a_simulated_machine_does_not_pretend_to_serve_metrics(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ["--host", "image", "--boot", "--folder", str(tmp_path), "--node", "n", "--metrics-port", "8082"]
    assert run("careen", ["agent", *options]) == 2
    assert "--metrics-port is not for --boot" in capfd.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts over the kernel's boot ID, which needs root")
def test_the_node_has_the_boot_id_of_its_machine(tmp_path: Path) -> None:
    """In a mount namespace of its own, with a systemctl that says what the kubelet would read at its start."""
    record = tmp_path / "boot.json"
    fake = tmp_path / "systemctl"
    fake.write_text(f'#!/bin/sh\necho "$@" "$(cat {KERNEL})"\n')
    fake.chmod(0o755)
    feed = f"cp {tmp_path}/$each {record}; sh {FILES}/careen-boot {record}"
    script = f"mount -t tmpfs tmpfs /run && export PATH={tmp_path}:$PATH && for each in 1 2 2; do {feed}; done"
    ids = ["11111111-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000002"]
    for number, boot_id in enumerate(ids, 1):
        boot = BootRecord(boot_id, "A", "Firmware", "1.0.0", "Careen sandbox", 1.0)
        boot.save(tmp_path / str(number))
    before = Path(KERNEL).read_text()
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=True)
    # The third time it has that boot ID already, and nothing is restarted.
    assert done.stdout.splitlines() == [f"restart kubelet {boot_id}" for boot_id in ids]
    assert Path(KERNEL).read_text() == before


def test_a_missing_program_is_told_in_a_sentence(tmp_path: Path) -> None:
    environment = os.environ | {"PATH": str(tmp_path), "PYTHONPATH": f"{TOP}/operator:{TOP}/tools"}
    for action in ("demo", "down"):
        command = [sys.executable, "-m", "kind", action]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 1
        assert re.fullmatch(r"kind: (docker|kind) is not on the PATH \(.+\); install it, or .+\n", done.stderr)
