"""The agent's state folder: small, and when it is full nothing breaks; and nothing is ever written to /usr."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from careen.agent.actions import StageImage
from careen.agent.staging.kept import MAX_INDEX_BYTES, KeptIndex
from careen.disk.types import GIVEN_UP, Attributes, SlotName
from careen.release.fetcher import MAX_BYTES
from careen.release.manifest import MAX_DOCUMENT_BYTES, StaticFile
from careen.sandbox.firmware import power_on
from careen.sandbox.machine import create_machine, machine_id_of
from careen.sandbox.releases import MIB, ReleaseServer, Repository

SUPPORT = Path(__file__).parents[2] / "support"
SPARE = (0, 1, 2, 3, 4, 6)
"""Pages left in the state folder; what a staging writes there needs a few more."""


def find_namespace() -> list[str]:
    """How to get mounts of one's own, if that is allowed here."""
    for options in (["-m"], ["-r", "-m"]):
        command = ["unshare", *options]
        if subprocess.run([*command, "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0:
            return command
    return []


async def run(command: list[str]) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(out)
    return found


async def test_full_it_fails_cleanly_and_usr_is_never_written(tmp_path: Path) -> None:
    if not (namespace := find_namespace()):
        pytest.skip("a mount namespace is not allowed here")
    shop = Repository.create(tmp_path / "shop")
    first, release = shop.publish("1.0.0"), shop.publish("2.0.0", payload_bytes=MIB)
    machine = create_machine(tmp_path / "m", first, machine_id=machine_id_of("m"))
    power_on(machine.path)
    async with ReleaseServer(shop).running() as server:
        image = StageImage(
            "o", SlotName.B, server.url, release.path, release.digest, release.size_bytes, release.version
        )
        named = {key: value for key, value in asdict(image).items() if key not in ("order", "slot")}
        job = tmp_path / "job.json"
        folders = {"folder": str(machine.path), "trust_root": str(shop.trust_root)}
        job.write_text(json.dumps({**folders, "image": named, "size": MIB, "spare": SPARE}))
        found = await run([*namespace, sys.executable, str(SUPPORT / "host_process.py"), str(job)])
    assert found["read_only"]
    classes = [entry["class"] for entry in found["tries"]]
    # Once it fits it fits: each failure before that is of the disk, and leaves nothing half written.
    assert classes[0] == "Disk"
    assert set(classes) <= {"Disk", ""}
    for entry in found["tries"]:
        assert (entry["left"], entry["a"], entry["b"]) == ([], str(Attributes(1, 0, True)), str(GIVEN_UP))
    assert found["last"] == ""
    assert found["used"] < MIB


def test_what_it_may_hold_at_most_is_bounded(tmp_path: Path) -> None:
    """Two documents, the signed metadata, an index: each has a bound, and together they stay below 64 MiB."""
    metadata, documents = 4 * MAX_BYTES, 2 * MAX_DOCUMENT_BYTES
    assert metadata + documents + MAX_INDEX_BYTES < 60 * MIB
    kept = KeptIndex(tmp_path / "index")
    kept.save(bytes(MAX_INDEX_BYTES + 1))
    assert list(tmp_path.iterdir()) == []
    kept.save(b"index")
    assert kept.load(StaticFile(path="x", length=5, sha256="00" * 32)) is None
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
