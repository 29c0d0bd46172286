"""The machines that hold units: a folder, one in memory, a real one; and one whose people do not want any."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from careen.agent import app
from careen.agent.imagehost import MachineFolder, open_folder_units
from careen.agent.linux.root import Root
from careen.agent.linux.unithost import open_units
from careen.agent.units.bus import BusSystemd
from careen.agent.units.shelf import FolderShelf
from careen.agent.units.sight import Launch
from careen.cli.main import app as command
from careen.disk.types import SlotName
from careen.sandbox.firmware import power_on
from careen.sandbox.machine import create_machine, machine_id_of
from careen.sandbox.memory import MemoryHost
from careen.sandbox.releases import Repository
from careen.units.file import unit_hash
from unit_nodes import UnitsNode, keeping, settle

WEB = "[Service]\nExecStart=/usr/bin/web\n"


@pytest.fixture
def machine(tmp_path: Path) -> MachineFolder:
    repository = Repository.create(tmp_path / "releases")
    repository.publish("1.0.0")
    made = create_machine(tmp_path / "m", repository.find("1.0.0"), machine_id=machine_id_of("m"))
    power_on(made.path)
    return made


def starts(machine: MachineFolder, name: str) -> int:
    entries: dict[str, dict[str, Any]] = json.loads(machine.systemd_books.read_bytes())
    return int(entries[name]["starts"])


async def test_a_folders_units_outlive_its_agents_and_end_with_the_boot(machine: MachineFolder) -> None:
    api = UnitsNode()
    for _ in range(2):
        async with keeping(api, open_folder_units(machine.path)):
            api.order("web.service", WEB)
            await settle(lambda: api.report("web.service").get("active") == "active")
            await asyncio.sleep(0.2)
        assert starts(machine, "web.service") == 1
    power_on(machine.path)
    assert not machine.systemd_books.exists()
    async with keeping(api, open_folder_units(machine.path)):
        await settle(machine.systemd_books.exists)
        await settle(lambda: starts(machine, "web.service") == 1)


async def test_a_folders_starts_fail_when_its_file_says_so(machine: MachineFolder) -> None:
    machine.systemd_faults.write_text(json.dumps({"start": ["web.service"]}))
    api = UnitsNode()
    async with keeping(api, open_folder_units(machine.path)):
        api.order("web.service", WEB)
        await settle(lambda: api.report("web.service").get("active") == "failed")
        assert "failed" in api.report("web.service")["message"]


async def test_a_machine_in_memory_forgets_its_units_at_a_boot() -> None:
    host = MemoryHost.install("m-id", "1.0.0", "sha256:" + "a" * 64)
    api = UnitsNode()
    async with keeping(api, host.units.host):
        api.order("web.service", WEB)
        await settle(lambda: api.report("web.service").get("active") == "active")
    host.boot("Kexec", SlotName.A)
    assert not host.units.systemd.entries
    assert not host.units.shelf.look().held
    async with keeping(api, host.units.host):
        await settle(lambda: host.units.systemd.entries.get("web.service"))


async def test_a_simulated_process_ends_when_its_time_is_over() -> None:
    host = MemoryHost.install("m-id", "1.0.0", "sha256:" + "a" * 64)
    api = UnitsNode()
    async with keeping(api, host.units.host):
        api.order("nap.service", "[Service]\nType=oneshot\nExecStart=/bin/sleep 0.6\n")
        await settle(lambda: api.report("nap.service").get("active") == "activating")
        await settle(lambda: api.report("nap.service").get("active") == "inactive")


async def test_a_machine_that_wants_no_units_says_so_and_does_nothing(machine: MachineFolder) -> None:
    api = UnitsNode()
    async with keeping(api, open_folder_units(machine.path, enabled=False)):
        api.order("web.service", WEB)
        await settle(lambda: "--no-units" in api.report("web.service").get("message", ""))
        await asyncio.sleep(0.3)
    assert not (machine.run / "units").exists()
    assert not api.report("web.service")["launched"]


def test_a_real_machines_files_are_named_as_its_systemd_sees_them() -> None:
    units = open_units(Root(Path("/host")), enabled=True)
    assert isinstance(units.systemd, BusSystemd)
    assert isinstance(units.shelf, FolderShelf)
    assert units.systemd._address == "unix:path=/host/run/dbus/system_bus_socket"
    assert units.systemd._files == Path("/run/careen/units")
    assert units.shelf.files == Path("/host/run/careen/units")


def test_the_command_line_says_whether_units_are_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[app.Options] = []
    monkeypatch.setattr(app, "run_process", seen.append)
    words = ["agent", "--node", "m", "--folder", str(tmp_path)]
    assert CliRunner().invoke(command, words).exit_code == 0
    more = ["--no-units", "--unit-retry-seconds", "5"]
    assert CliRunner().invoke(command, [*words, *more]).exit_code == 0
    assert [each.units for each in seen] == [True, False]
    assert [each.settings.units.retry_seconds for each in seen] == [60.0, 5.0]


def test_a_shelf_keeps_what_it_is_told_and_no_files_that_are_not_units(tmp_path: Path) -> None:
    shelf = FolderShelf(tmp_path)
    assert shelf.look().held == {}
    shelf.write("web.service", WEB)
    shelf.note_launch("web.service", Launch(unit_hash(WEB), "it failed"))
    shelf.note_unread(True)
    (shelf.files / ".new").write_text("half a fi")
    (shelf.files / "notes").write_text("not a unit")
    (shelf.files / "linked.service").symlink_to("/etc/passwd")
    again = FolderShelf(tmp_path).look()
    assert again.held == {"web.service": unit_hash(WEB)}
    assert again.launches == {"web.service": Launch(unit_hash(WEB), "it failed")}
    assert again.unread
    longest = f"{'a' * 247}.service"
    shelf.write(longest, WEB)
    assert shelf.read(longest) == WEB
    with pytest.raises(ValueError, match="can't be a file"):
        shelf.write("../../etc/passwd", WEB)


def test_a_shelf_whose_memory_is_spoiled_starts_from_nothing_and_has_all_files_read(tmp_path: Path) -> None:
    shelf = FolderShelf(tmp_path)
    shelf.write("web.service", WEB)
    (tmp_path / "units.json").write_text("{half")
    found = shelf.look()
    assert (found.held, found.launches, found.unread) == ({"web.service": unit_hash(WEB)}, {}, True)


def test_a_file_that_was_changed_by_hand_is_seen(tmp_path: Path) -> None:
    shelf = FolderShelf(tmp_path)
    shelf.write("web.service", WEB)
    assert shelf.look().held["web.service"] == unit_hash(WEB)
    (shelf.files / "web.service").write_text(WEB + "Restart=always\n")
    assert shelf.look().held["web.service"] == unit_hash(WEB + "Restart=always\n")
