"""The real way to systemd, over a private bus to a service that answers as systemd does."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from careen.agent.units.bus import BusSystemd
from careen.agent.units.busnames import escape_pattern, to_name, to_path
from careen.agent.units.shelf import FolderShelf
from careen.agent.units.systemd import SystemdError, UnitHost
from careen.units.file import unit_hash
from fake_systemd import Bus, FakeSystemd, FakeUnit, run_systemd
from unit_nodes import FAST, UnitsNode, keeping, settle

WEB = "[Service]\nExecStart=/usr/bin/web\n"
NEW = "[Service]\nExecStart=/usr/bin/web --new\n"
BROKEN = "[Service]\nExecStart=/bin/false\n"
ENABLED = f"{WEB}\n[Install]\nWantedBy=multi-user.target\n"

needs_daemon = pytest.mark.skipif(shutil.which("dbus-daemon") is None, reason="dbus-daemon is not installed")


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[tuple[Bus, FakeSystemd]]:
    async with run_systemd(tmp_path) as made:
        yield made


@pytest.fixture
def systemd(there: tuple[Bus, FakeSystemd]) -> FakeSystemd:
    return there[1]


@pytest.fixture
def units(there: tuple[Bus, FakeSystemd], tmp_path: Path) -> UnitHost:
    shelf = FolderShelf(tmp_path / "run")
    return UnitHost(shelf, BusSystemd(there[0].address, shelf.files, links=there[1].search_path))


@pytest.fixture
def api() -> UnitsNode:
    return UnitsNode()


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("web@1.service", "web_401_2eservice"),
        ("7zip.service", "_37zip_2eservice"),
        ("a-b_c.timer", "a_2db_5fc_2etimer"),
        (r"dev-disk\x2d1.mount", "dev_2ddisk_5cx2d1_2emount"),
    ],
)
def test_names_are_written_in_paths_as_systemd_does(name: str, path: str) -> None:
    assert to_path(name) == f"/org/freedesktop/systemd1/unit/{path}"
    assert to_name(to_path(name)) == name
    assert to_name("/org/freedesktop/systemd1/job/7") == ""


def test_a_pattern_is_one_name_alone() -> None:
    assert escape_pattern(r"dev\x2d1.mount") == r"dev\\x2d1.mount"


@needs_daemon
async def test_a_unit_goes_through_all_its_states(api: UnitsNode, systemd: FakeSystemd, units: UnitHost) -> None:
    async with keeping(api, units):
        api.order("web.service", ENABLED)
        await settle(lambda: api.report("web.service").get("active") == "active")
        assert systemd.enabled == {"web.service"}
        assert api.report("web.service")["hash"] == unit_hash(ENABLED)
        api.order("web.service", NEW)
        await settle(lambda: api.report("web.service").get("hash") == unit_hash(NEW))
        await settle(lambda: api.report("web.service").get("active") == "active")
        assert not systemd.enabled
        api.order("web.service", NEW, "loaded")
        await settle(lambda: api.report("web.service").get("active") == "inactive")
        assert api.report("web.service")["load"] == "loaded"
        api.order("web.service", NEW, "removed")
        await settle(lambda: "hash" not in api.report("web.service"))
        assert api.report("web.service")["load"] == "not-found"
    assert not systemd.links
    assert systemd.starts == {"web.service": 2}


@needs_daemon
async def test_placing_a_unit_takes_few_writes(api: UnitsNode, units: UnitHost) -> None:
    async with keeping(api, units):
        for number in range(10):
            api.order(f"web@{number}.service", WEB)
        await settle(lambda: sum(each["active"] == "active" for each in api.reports.values()) == 10)
        await asyncio.sleep(0.3)
    assert len(api.unit_writes) <= 3


@needs_daemon
async def test_files_are_read_once_before_anything_starts(
    api: UnitsNode, systemd: FakeSystemd, units: UnitHost
) -> None:
    api.order("a.service", WEB)
    api.order("b.service", WEB)
    async with keeping(api, units):
        await settle(lambda: sum(each["active"] == "active" for each in api.reports.values()) == 2)
    done = [call.split()[0] for call in systemd.calls]
    done = [call for call in done if call in ("LinkUnitFiles", "Reload", "StartUnit")]
    assert done == ["LinkUnitFiles", "LinkUnitFiles", "Reload", "StartUnit", "StartUnit"]


@needs_daemon
async def test_what_systemd_pushes_is_told_and_nothing_is_polled(
    api: UnitsNode, systemd: FakeSystemd, units: UnitHost
) -> None:
    async with keeping(api, units):
        api.order("web.service", WEB)
        await settle(lambda: api.report("web.service").get("active") == "active")
        await asyncio.sleep(0.3)
        before = len(systemd.calls)
        systemd.become("web.service", "failed", "failed")
        await settle(lambda: api.report("web.service")["active"] == "failed")
        systemd.become("web.service", "activating", "auto-restart")
        systemd.become("web.service", "active", "running")
        await settle(lambda: api.report("web.service")["active"] == "active")
        assert len(systemd.calls) == before
    assert systemd.starts == {"web.service": 1}


@needs_daemon
async def test_units_at_rest_are_forgotten_by_systemd_and_not_called_back_for_ever(
    api: UnitsNode, systemd: FakeSystemd, units: UnitHost
) -> None:
    async with keeping(api, units):
        api.order("web.service", WEB, "loaded")
        api.order("gone.service", WEB, "removed")
        await settle(lambda: api.report("web.service").get("load") == "loaded")
        await settle(lambda: not systemd.memory)
        await asyncio.sleep(0.2)
        before = len(systemd.calls)
        await asyncio.sleep(0.6)
        assert len(systemd.calls) == before
        # A timer or a socket brings it back, and nobody has asked.
        systemd.become("web.service", "active", "running")
        await settle(lambda: api.report("web.service")["active"] == "active")


@needs_daemon
@pytest.mark.parametrize("first", [False, True])
async def test_results_of_jobs_are_seen(api: UnitsNode, systemd: FakeSystemd, units: UnitHost, first: bool) -> None:
    systemd.results_first = first
    async with keeping(api, units):
        api.order("bad.service", BROKEN)
        await settle(lambda: "ended with failed" in api.report("bad.service").get("message", ""))
        assert api.report("bad.service")["active"] == "failed"
        assert api.report("bad.service")["launched"]
        await asyncio.sleep(0.5)
        assert systemd.starts == {"bad.service": 1}


@needs_daemon
async def test_a_stop_that_fails_keeps_the_file(api: UnitsNode, systemd: FakeSystemd, units: UnitHost) -> None:
    async with keeping(api, units):
        api.order("web.service", WEB)
        await settle(lambda: api.report("web.service").get("active") == "active")
        systemd.results["web.service"] = "timeout"
        api.order("web.service", WEB, "removed")
        await settle(lambda: "timeout" in api.report("web.service").get("message", ""))
        assert "web.service" in systemd.links
        assert units.shelf.read("web.service") == WEB
        del systemd.results["web.service"]
        await settle(lambda: "hash" not in api.report("web.service"))
        assert "web.service" not in systemd.links


@needs_daemon
async def test_a_long_stop_holds_up_no_other_unit_and_is_asked_for_once(
    api: UnitsNode, systemd: FakeSystemd, units: UnitHost
) -> None:
    async with keeping(api, units):
        api.order("slow.service", WEB)
        await settle(lambda: api.report("slow.service").get("active") == "active")
        systemd.hold.add("slow.service")
        api.order("slow.service", WEB, "removed")
        api.order("web.service", WEB)
        await settle(lambda: api.report("web.service").get("active") == "active")
        await asyncio.sleep(0.3)
        assert systemd.calls.count("StopUnit slow.service") == 1
        assert "slow.service" in systemd.links
        systemd.release("slow.service")
        await settle(lambda: "hash" not in api.report("slow.service"))


@needs_daemon
async def test_what_systemd_refuses_is_told_in_its_words_and_tried_again(
    api: UnitsNode, systemd: FakeSystemd, units: UnitHost
) -> None:
    systemd.refuse["StartUnit"] = "Unit web.service has a bad unit file setting."
    async with keeping(api, units):
        api.order("web.service", WEB)
        await settle(lambda: "bad unit file setting" in api.report("web.service").get("message", ""))
        assert not api.report("web.service")["launched"]
        systemd.refuse.clear()
        await settle(lambda: api.report("web.service").get("active") == "active")
        await settle(lambda: "message" not in api.report("web.service"))


@needs_daemon
async def test_a_unit_that_cannot_be_enabled_is_not_kept(api: UnitsNode, systemd: FakeSystemd, units: UnitHost) -> None:
    systemd.refuse["EnableUnitFiles"] = "no such target"
    async with keeping(api, units):
        api.order("web.service", ENABLED)
        await settle(lambda: "no such target" in api.report("web.service").get("message", ""))
        assert "hash" not in api.report("web.service")
        assert not systemd.links


@needs_daemon
async def test_nothing_starts_while_systemd_cannot_read_the_files(
    api: UnitsNode, systemd: FakeSystemd, units: UnitHost
) -> None:
    systemd.refuse["Reload"] = "generators failed"
    async with keeping(api, units):
        api.order("web.service", WEB)
        await settle(lambda: "generators failed" in api.report("web.service").get("message", ""))
        assert not systemd.starts
        reloads = systemd.calls.count("Reload")
        assert reloads <= 2
        systemd.refuse.clear()
        await settle(lambda: api.report("web.service").get("active") == "active")


@needs_daemon
async def test_nothing_starts_in_later_passes_either_nor_under_another_agent_while_files_are_unread(
    api: UnitsNode, systemd: FakeSystemd, units: UnitHost
) -> None:
    """systemd would run the content before the one that is ordered."""
    systemd.refuse["Reload"] = "no space on /run"
    for _ in range(2):
        async with keeping(api, units):
            api.order("web.service", WEB)
            await settle(lambda: "no space" in api.report("web.service").get("message", ""))
            await asyncio.sleep(1.0)
        assert not systemd.starts
    assert systemd.calls.count("Reload") < 20
    systemd.refuse.clear()
    async with keeping(api, units):
        await settle(lambda: api.report("web.service").get("active") == "active")
        await settle(lambda: "message" not in api.report("web.service"))


@needs_daemon
async def test_a_removal_that_systemd_has_not_read_is_not_tried_without_a_pause(
    api: UnitsNode, systemd: FakeSystemd, units: UnitHost
) -> None:
    async with keeping(api, units, replace(FAST, retry_seconds=60.0)):
        api.order("web.service", WEB, "loaded")
        await settle(lambda: api.report("web.service").get("load") == "loaded")
        systemd.refuse["Reload"] = "no space on /run"
        before = systemd.calls.count("Reload")
        api.order("web.service", WEB, "removed")
        await settle(lambda: "no space" in api.report("web.service").get("message", ""))
        await asyncio.sleep(0.5)
        assert systemd.calls.count("Reload") == before + 1


@needs_daemon
async def test_the_machines_own_units_are_left_alone(api: UnitsNode, systemd: FakeSystemd, units: UnitHost) -> None:
    fragment = "/usr/lib/systemd/system/sshd.service"
    systemd.own["sshd.service"] = FakeUnit("loaded", "active", "running", fragment)
    async with keeping(api, units):
        api.order("sshd.service", WEB)
        await settle(lambda: fragment in api.report("sshd.service").get("message", ""))
        assert not systemd.links
        api.order("sshd.service", WEB, "removed")
        await settle(lambda: api.report("sshd.service").get("active") == "inactive")
        assert systemd.memory["sshd.service"].active == "active"


@needs_daemon
async def test_a_systemd_that_is_started_anew_is_subscribed_to_again(
    api: UnitsNode, systemd: FakeSystemd, units: UnitHost
) -> None:
    async with keeping(api, units):
        api.order("web.service", WEB)
        await settle(lambda: api.report("web.service").get("active") == "active")
        await systemd.stop()
        await systemd.start()
        await settle(lambda: systemd.subscribed == 2)
        systemd.become("web.service", "failed", "failed")
        await settle(lambda: api.report("web.service")["active"] == "failed")
    assert systemd.starts == {"web.service": 1}


@needs_daemon
async def test_a_bus_that_is_started_anew_stops_nothing(
    api: UnitsNode, there: tuple[Bus, FakeSystemd], units: UnitHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("careen.agent.units.keeper.BLIND_SECONDS", 0.3)
    bus, systemd = there
    async with keeping(api, units):
        api.order("web.service", WEB)
        await settle(lambda: api.report("web.service").get("active") == "active")
        bus.stop()
        await settle(lambda: "can't be asked" in api.report("web.service").get("message", ""))
        assert api.report("web.service")["active"] == "active"
        bus.start()
        await systemd.stop()
        await systemd.start()
        await settle(lambda: "message" not in api.report("web.service"), 20.0)
    assert systemd.starts == {"web.service": 1}
    assert "StopUnit web.service" not in systemd.calls


def _link(systemd: FakeSystemd, folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text(WEB)
        systemd.links[name] = folder / name


@needs_daemon
@pytest.mark.parametrize("method", ["GetAll", "ListUnitsByPatterns"])
async def test_what_is_told_right_after_an_answer_is_newer_than_the_answer(
    there: tuple[Bus, FakeSystemd], tmp_path: Path, method: str
) -> None:
    """Both may be read at once, and then the news is taken in before the answer."""
    bus, systemd = there
    _link(systemd, tmp_path / "files", "web.service")
    units = BusSystemd(bus.address, tmp_path / "files", links=systemd.search_path)
    try:
        systemd.become("web.service", "deactivating", "stop-sigterm")
        if method != "GetAll":
            await units.look(["web.service"])
            units._stale = True
        systemd.then[method] = lambda: systemd.become("web.service", "failed", "failed")
        await units.look(["web.service"])
        await asyncio.sleep(0.05)
        assert (await units.look(["web.service"]))["web.service"].active == "failed"
    finally:
        await units.close()


@needs_daemon
async def test_files_may_be_read_again_while_units_are_looked_at(
    there: tuple[Bus, FakeSystemd], tmp_path: Path
) -> None:
    bus, systemd = there
    names = ["a.service", "b.service", "c.service"]
    _link(systemd, tmp_path / "files", *names)
    units = BusSystemd(bus.address, tmp_path / "files", links=systemd.search_path)
    try:
        # With the second answer, when the first unit is known already.
        systemd.then["GetAll"] = lambda: systemd.then.update(GetAll=systemd.tell_reload)
        assert {each.load for each in (await units.look(names)).values()} == {"loaded"}
    finally:
        await units.close()


@needs_daemon
async def test_a_list_that_was_not_answered_is_asked_for_again(there: tuple[Bus, FakeSystemd], tmp_path: Path) -> None:
    bus, systemd = there
    _link(systemd, tmp_path / "files", "web.service")
    units = BusSystemd(bus.address, tmp_path / "files", links=systemd.search_path)
    try:
        systemd.become("web.service", "active", "running")
        assert (await units.look(["web.service"]))["web.service"].active == "active"
        systemd.memory["web.service"].active = "failed"
        units._stale = True
        systemd.refuse["ListUnitsByPatterns"] = "no time"
        with pytest.raises(SystemdError, match="no time"):
            await units.look(["web.service"])
        systemd.refuse.clear()
        assert (await units.look(["web.service"]))["web.service"].active == "failed"
    finally:
        await units.close()


async def test_without_a_bus_it_says_so(tmp_path: Path) -> None:
    systemd = BusSystemd(f"unix:path={tmp_path}/nothing", tmp_path)
    with pytest.raises((OSError, SystemdError)):
        await systemd.look(["web.service"])
    await systemd.close()
