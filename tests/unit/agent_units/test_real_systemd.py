"""The agent's way to systemd, with a real one: a user's instance in name spaces of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from careen.agent.units.bus import BusSystemd
from careen.agent.units.shelf import FolderShelf
from careen.agent.units.systemd import UnitHost
from careen.units.file import unit_hash
from real_systemd import RealSystemd, find_obstacle, run_real_systemd
from unit_nodes import UnitsNode, keeping, settle

pytestmark = pytest.mark.skipif(find_obstacle() is not None, reason=find_obstacle() or "")

WEB = "[Service]\nExecStart=/bin/sleep 1000\n"
NEW = "[Service]\nExecStart=/bin/sleep 2000\n"
ENABLED = f"{WEB}\n[Install]\nWantedBy=basic.target\n"
FAILS = "[Service]\nType=exec\nExecStart=/nowhere\n"
ONCE = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo run >> {}'\n"
STUBBORN = "[Service]\nExecStart=/bin/sh -c \"trap '' TERM; while :; do sleep 0.2; done\"\nTimeoutStopSec=2\n"
BAD = "[Service]\nExecStart=no/absolute/path\n"
TIMER = "[Timer]\nOnActiveSec=1s\nAccuracySec=100ms\n"


@pytest.fixture(scope="module")
def systemd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSystemd]:
    with run_real_systemd(tmp_path_factory.mktemp("systemd")) as made:
        yield made


@pytest.fixture
def shelf(tmp_path: Path) -> FolderShelf:
    return FolderShelf(tmp_path / "careen")


@pytest.fixture
def units(systemd: RealSystemd, shelf: FolderShelf) -> UnitHost:
    return open_units(systemd, shelf)


def open_units(systemd: RealSystemd, shelf: FolderShelf) -> UnitHost:
    return UnitHost(shelf, BusSystemd(systemd.address, shelf.files, links=systemd.runtime / "systemd/user"))


@pytest.fixture
def api() -> UnitsNode:
    return UnitsNode()


def links(systemd: RealSystemd, name: str) -> list[str]:
    return [str(path) for path in systemd.runtime.rglob(f"{name}*") if path.is_symlink()]


async def test_a_unit_goes_through_all_its_states(api: UnitsNode, systemd: RealSystemd, units: UnitHost) -> None:
    async with keeping(api, units):
        api.order("web.service", ENABLED)
        await settle(lambda: api.report("web.service").get("active") == "active", 20)
        report = api.report("web.service")
        assert (report["hash"], report["load"], report["sub"], report["launched"]) == (
            unit_hash(ENABLED), "loaded", "running", True,
        )  # fmt: skip
        await asyncio.sleep(0.5)
        assert len(api.unit_writes) <= 3
        assert len(links(systemd, "web.service")) == 2, "in the search path, and in the target's wants"
        first = systemd.show("web.service", "MainPID")
        api.order("web.service", NEW)
        await settle(lambda: api.report("web.service").get("hash") == unit_hash(NEW), 20)
        await settle(lambda: api.report("web.service").get("active") == "active", 20)
        assert systemd.show("web.service", "MainPID") != first
        assert "2000" in systemd.show("web.service", "ExecStart")[0]
        assert len(links(systemd, "web.service")) == 1
        api.order("web.service", NEW, "loaded")
        await settle(lambda: api.report("web.service").get("active") == "inactive", 20)
        api.order("web.service", NEW, "removed")
        await settle(lambda: "hash" not in api.report("web.service"), 20)
        await settle(lambda: api.report("web.service")["load"] == "not-found", 20)
    assert links(systemd, "web.service") == []
    assert systemd.show("web.service", "LoadState", "ActiveState") == ["not-found", "inactive"]


async def test_instances_and_escaped_names_come_and_go(api: UnitsNode, systemd: RealSystemd, units: UnitHost) -> None:
    names = ("box@1.service", "box@2.service", r"var-a\x2db.service", "7up.service")
    async with keeping(api, units):
        for name in names:
            api.order(name, ENABLED)
        await settle(lambda: [api.report(name).get("active") for name in names] == ["active"] * len(names), 20)
        assert len({pid for name in names for pid in systemd.show(name, "MainPID")}) == len(names)
        await asyncio.to_thread(systemd.control, "stop", *names)
        await settle(lambda: [api.report(name)["active"] for name in names] == ["inactive"] * len(names), 20)
        await asyncio.to_thread(systemd.control, "start", *names)
        await settle(lambda: [api.report(name)["active"] for name in names] == ["active"] * len(names), 20)
        for name in names:
            api.order(name, ENABLED, "removed")
        await settle(lambda: all("hash" not in api.report(name) for name in names), 20)
    assert [path for path in systemd.runtime.rglob("*") if path.name in names] == []


async def test_what_happens_by_itself_is_pushed(api: UnitsNode, systemd: RealSystemd, units: UnitHost) -> None:
    async with keeping(api, units):
        api.order("dies.service", WEB)
        await settle(lambda: api.report("dies.service").get("active") == "active", 20)
        await asyncio.to_thread(systemd.control, "kill", "--signal=KILL", "dies.service")
        await settle(lambda: api.report("dies.service")["active"] == "failed", 20)
        api.order("dies.service", WEB, "removed")
        await settle(lambda: "hash" not in api.report("dies.service"), 20)


async def test_a_start_that_fails_is_told_and_is_the_only_one(
    api: UnitsNode, systemd: RealSystemd, units: UnitHost
) -> None:
    async with keeping(api, units):
        api.order("fails.service", FAILS)
        await settle(lambda: "ended with failed" in api.report("fails.service").get("message", ""), 20)
        assert api.report("fails.service")["active"] == "failed"
        at = systemd.show("fails.service", "InactiveEnterTimestampMonotonic")
        await asyncio.sleep(1.0)
        assert systemd.show("fails.service", "InactiveEnterTimestampMonotonic") == at
        api.order("fails.service", FAILS, "removed")
        await settle(lambda: "hash" not in api.report("fails.service"), 20)


async def test_a_unit_that_cannot_be_read_is_told_in_systemds_words(
    api: UnitsNode, systemd: RealSystemd, units: UnitHost
) -> None:
    async with keeping(api, units):
        api.order("bad.service", BAD)
        await settle(lambda: api.report("bad.service").get("message"), 20)
        assert api.report("bad.service")["load"] == "bad-setting"
        assert "bad unit file setting" in api.report("bad.service")["message"]
        api.order("bad.service", BAD, "removed")
        await settle(lambda: "hash" not in api.report("bad.service"), 20)


async def test_a_oneshot_runs_once_over_restarts_of_the_agent(
    api: UnitsNode, tmp_path: Path, systemd: RealSystemd, shelf: FolderShelf
) -> None:
    for _ in range(3):
        async with keeping(api, open_units(systemd, shelf)):
            api.order("once.service", ONCE.format(tmp_path / "ran"))
            await settle(lambda: api.report("once.service").get("launched"), 20)
            await asyncio.sleep(0.5)
    assert (tmp_path / "ran").read_text() == "run\n"
    assert api.report("once.service")["active"] == "inactive"


async def test_a_timer_starts_a_service_that_is_loaded_only(
    api: UnitsNode, tmp_path: Path, systemd: RealSystemd, units: UnitHost
) -> None:
    async with keeping(api, units):
        api.order("tick.service", ONCE.format(tmp_path / "ticked"), "loaded")
        api.order("tick.timer", TIMER)
        await settle(lambda: api.report("tick.timer").get("active") == "active", 20)
        await settle((tmp_path / "ticked").exists, 20)
        assert not api.report("tick.service")["launched"]
        api.order("tick.timer", TIMER, "removed")
        api.order("tick.service", api.units["tick"], "removed")
        await settle(lambda: all("hash" not in each for each in api.reports.values()), 20)


async def test_a_unit_that_will_not_stop_keeps_its_file_until_it_is_down(
    api: UnitsNode, systemd: RealSystemd, units: UnitHost, shelf: FolderShelf
) -> None:
    async with keeping(api, units):
        api.order("stubborn.service", STUBBORN)
        await settle(lambda: api.report("stubborn.service").get("active") == "active", 20)
        api.order("stubborn.service", STUBBORN, "removed")
        await settle(lambda: api.report("stubborn.service")["active"] == "deactivating", 20)
        assert shelf.read("stubborn.service") == STUBBORN
        await settle(lambda: "hash" not in api.report("stubborn.service"), 20)
    assert systemd.show("stubborn.service", "ActiveState") == ["inactive"]


async def test_a_restarted_agent_and_a_read_of_all_files_stop_nothing(
    api: UnitsNode, systemd: RealSystemd, shelf: FolderShelf
) -> None:
    marks = ("MainPID", "InvocationID", "NRestarts")
    async with keeping(api, open_units(systemd, shelf)):
        api.order("stays.service", WEB)
        await settle(lambda: api.report("stays.service").get("active") == "active", 20)
        before = systemd.show("stays.service", *marks)
        await asyncio.to_thread(systemd.control, "daemon-reload")
        await asyncio.sleep(0.5)
    async with keeping(api, open_units(systemd, shelf)):
        await asyncio.to_thread(systemd.control, "daemon-reexec")
        await settle(lambda: systemd.control("is-active", "basic.target") == "active", 20)
        await asyncio.sleep(0.5)
        assert systemd.show("stays.service", *marks) == before
        await asyncio.to_thread(systemd.control, "kill", "--signal=KILL", "stays.service")
        await settle(lambda: api.report("stays.service")["active"] == "failed", 20)


async def test_a_unit_that_the_machine_has_is_left_alone(api: UnitsNode, systemd: RealSystemd, units: UnitHost) -> None:
    (fragment,) = systemd.show("dbus.socket", "FragmentPath")
    async with keeping(api, units):
        api.order("dbus.socket", "[Socket]\nListenStream=1\n")
        await settle(lambda: fragment in api.report("dbus.socket").get("message", ""), 20)
        assert links(systemd, "dbus.socket") == []
