"""The keeper of a machine's units, with a systemd that only keeps books and an API server of one Node."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from careen.agent.units.report import Pace
from careen.agent.units.settings import KeeperSettings
from careen.agent.units.shelf import FolderShelf, MemoryShelf
from careen.agent.units.simulated import SimulatedSystemd
from careen.agent.units.systemd import UnitHost
from careen.kube.errors import Unreachable
from careen.kube.session import Answer
from careen.units.file import unit_hash
from unit_nodes import FAST, UnitsNode, keeping, settle

WEB = "[Service]\nExecStart=/usr/bin/web\n"
NEW = "[Service]\nExecStart=/usr/bin/web --new\n"
ONESHOT = "[Service]\nType=oneshot\nExecStart=/bin/true\n"
BROKEN = "[Service]\nExecStart=/bin/false\n"
ENABLED = f"{WEB}\n[Install]\nWantedBy=multi-user.target\n"


@pytest.fixture
def api() -> UnitsNode:
    return UnitsNode()


@pytest.fixture
def systemd() -> SimulatedSystemd:
    return SimulatedSystemd(MemoryShelf())


@pytest.fixture
def units(systemd: SimulatedSystemd) -> UnitHost:
    return UnitHost(systemd._shelf, systemd)


async def test_an_order_becomes_a_running_unit_with_at_most_three_writes(
    api: UnitsNode, systemd: SimulatedSystemd, units: UnitHost
) -> None:
    systemd.job_seconds = 0.1
    async with keeping(api, units):
        api.order("web.service", WEB)
        await settle(lambda: api.report("web.service").get("active") == "active")
        await asyncio.sleep(0.3)
    assert api.report("web.service") == {
        "name": "web.service", "hash": unit_hash(WEB), "load": "loaded", "active": "active", "sub": "running",
        "launched": True,
    }  # fmt: skip
    assert len(api.unit_writes) <= 3
    assert systemd.entries["web.service"].starts == 1


async def test_twenty_units_ordered_at_once_are_told_of_at_once(api: UnitsNode, units: UnitHost) -> None:
    async with keeping(api, units):
        for number in range(20):
            api.order(f"web-{number}.service", WEB)
        await settle(lambda: sum(each["active"] == "active" for each in api.reports.values()) == 20)
        await asyncio.sleep(0.3)
    assert len(api.unit_writes) <= 3


async def test_each_state_that_is_ordered_is_reached(
    api: UnitsNode, systemd: SimulatedSystemd, units: UnitHost
) -> None:
    async with keeping(api, units):
        api.order("web.service", WEB, "loaded")
        await settle(lambda: api.report("web.service").get("load") == "loaded")
        assert not api.report("web.service")["launched"]
        assert systemd.entries["web.service"].starts == 0
        api.order("web.service", WEB, "launched")
        await settle(lambda: api.report("web.service").get("active") == "active")
        api.order("web.service", WEB, "loaded")
        await settle(lambda: api.report("web.service").get("active") == "inactive")
        assert not api.report("web.service")["launched"]
        api.order("web.service", WEB, "launched")
        await settle(lambda: api.report("web.service").get("active") == "active")
        assert systemd.entries["web.service"].starts == 2
        api.order("web.service", WEB, "removed")
        await settle(lambda: "hash" not in api.report("web.service"))
        assert api.report("web.service")["active"] == "inactive"
        assert "web.service" not in systemd.entries
        api.drop("web.service")
        await settle(lambda: not api.reports)


async def test_new_content_stops_what_runs_and_starts_the_new(
    api: UnitsNode, systemd: SimulatedSystemd, units: UnitHost
) -> None:
    async with keeping(api, units):
        api.order("web.service", WEB)
        await settle(lambda: api.report("web.service").get("active") == "active")
        api.order("web.service", NEW)
        await settle(
            lambda: (
                api.report("web.service").get("hash") == unit_hash(NEW)
                and api.report("web.service")["active"] == "active"
            )
        )
    entry = systemd.entries["web.service"]
    assert (entry.text, entry.starts, entry.stops) == (NEW, 2, 1)


async def test_a_oneshot_runs_once_however_often_the_agent_starts(
    api: UnitsNode, systemd: SimulatedSystemd, units: UnitHost
) -> None:
    for _ in range(3):
        async with keeping(api, units):
            api.order("once.service", ONESHOT)
            await settle(lambda: api.report("once.service").get("launched"))
            await asyncio.sleep(0.3)
    assert systemd.entries["once.service"].starts == 1
    assert api.report("once.service")["active"] == "inactive"


async def test_a_unit_that_fails_is_told_and_not_started_again(
    api: UnitsNode, systemd: SimulatedSystemd, units: UnitHost
) -> None:
    async with keeping(api, units):
        api.order("bad.service", BROKEN)
        await settle(lambda: "failed" in api.report("bad.service").get("message", ""))
        await asyncio.sleep(0.5)
    assert api.report("bad.service")["active"] == "failed"
    assert systemd.entries["bad.service"].starts == 1


async def test_after_a_boot_everything_is_started_anew(
    api: UnitsNode, systemd: SimulatedSystemd, units: UnitHost
) -> None:
    async with keeping(api, units):
        api.order("once.service", ONESHOT)
        await settle(lambda: api.report("once.service").get("launched"))
    systemd.reboot()
    shelf = units.shelf
    assert isinstance(shelf, MemoryShelf)
    shelf.clear()
    async with keeping(api, units):
        await settle(lambda: "once.service" in systemd.entries and systemd.entries["once.service"].starts == 1)


async def test_a_missing_or_empty_list_changes_nothing(
    api: UnitsNode, systemd: SimulatedSystemd, units: UnitHost
) -> None:
    async with keeping(api, units):
        api.order("web.service", WEB)
        await settle(lambda: api.report("web.service").get("active") == "active")
        for entries in ([], None):
            api.node["spec"]["units"] = entries
            api.changed()
            await asyncio.sleep(0.3)
        assert systemd.entries["web.service"].stops == 0
        assert api.report("web.service")["active"] == "active", "what is held is told though nobody asks"


async def test_an_api_server_that_is_away_changes_nothing_and_a_restarted_agent_neither(
    api: UnitsNode, systemd: SimulatedSystemd, units: UnitHost
) -> None:
    async with keeping(api, units):
        api.order("web.service", WEB)
        await settle(lambda: api.report("web.service").get("active") == "active")
        api.refusal = Unreachable("connection refused")
        await asyncio.sleep(0.5)
    async with keeping(api, units):
        await asyncio.sleep(0.5)
        entry = systemd.entries["web.service"]
        assert (entry.active, entry.starts, entry.stops) == ("active", 1, 0)
        api.refusal = None
        await settle(lambda: api.leases > 0)
        await asyncio.sleep(0.3)
    entry = systemd.entries["web.service"]
    assert (entry.active, entry.starts, entry.stops) == ("active", 1, 0)


async def test_a_stop_that_fails_keeps_the_file_and_is_tried_again(
    api: UnitsNode, systemd: SimulatedSystemd, units: UnitHost
) -> None:
    async with keeping(api, units):
        api.order("web.service", WEB)
        await settle(lambda: api.report("web.service").get("active") == "active")
        systemd.faults.stop.add("web.service")
        api.order("web.service", WEB, "removed")
        await settle(lambda: "stop" in api.report("web.service").get("message", ""))
        assert api.report("web.service")["hash"] == unit_hash(WEB)
        assert api.report("web.service")["active"] == "active"
        systemd.faults.stop.clear()
        await settle(lambda: "hash" not in api.report("web.service"))
        assert "message" not in api.report("web.service")


async def test_content_that_is_not_the_ordered_one_is_not_taken_and_asked_for_again(
    api: UnitsNode, systemd: SimulatedSystemd, units: UnitHost
) -> None:
    async with keeping(api, units):
        api.order("web.service", WEB)
        await settle(lambda: api.report("web.service").get("active") == "active")
        api.order("web.service", NEW)
        api.units["web"] = WEB
        await settle(lambda: unit_hash(NEW)[:7] in api.report("web.service").get("message", ""))
        assert systemd.entries["web.service"].stops == 0, "the old content runs on meanwhile"
        api.units["web"] = f"# a comment\n{NEW}"
        await settle(lambda: api.report("web.service").get("hash") == unit_hash(NEW))
        await settle(lambda: "message" not in api.report("web.service"))


async def test_a_unit_whose_object_is_gone_is_told(api: UnitsNode, units: UnitHost) -> None:
    async with keeping(api, units):
        api.order("web.service", WEB)
        del api.units["web"]
        await settle(lambda: "no Unit web" in api.report("web.service").get("message", ""))
        assert "hash" not in api.report("web.service")


async def test_units_of_the_machine_itself_are_left_alone(
    api: UnitsNode, systemd: SimulatedSystemd, units: UnitHost
) -> None:
    async with keeping(api, units):
        api.order("careen-agent.service", WEB)
        await settle(lambda: "machine itself" in api.report("careen-agent.service").get("message", ""))
        assert "careen-agent.service" not in systemd.entries
        api.order("careen-agent.service", WEB, "removed")
        await settle(lambda: api.report("careen-agent.service").get("active") == "inactive")


async def test_units_with_install_are_enabled(api: UnitsNode, systemd: SimulatedSystemd, units: UnitHost) -> None:
    async with keeping(api, units):
        api.order("web.service", ENABLED)
        api.order("plain.service", WEB)
        await settle(lambda: len(api.reports) == 2 and api.report("web.service")["active"] == "active")
    assert systemd.entries["web.service"].enabled
    assert not systemd.entries["plain.service"].enabled


async def test_a_systemd_that_does_not_answer_is_told_and_what_was_known_stands(
    api: UnitsNode, systemd: SimulatedSystemd, units: UnitHost
) -> None:
    async with keeping(api, units):
        api.order("web.service", WEB)
        await settle(lambda: api.report("web.service").get("active") == "active")
    systemd.faults.away = True
    async with keeping(api, units):
        await settle(lambda: "can't be asked" in api.report("web.service").get("message", ""))
    assert api.report("web.service")["active"] == "active"
    assert api.report("web.service")["hash"] == unit_hash(WEB)


async def test_a_unit_that_changes_all_the_time_does_not_keep_the_api_server_busy(
    api: UnitsNode, systemd: SimulatedSystemd, units: UnitHost
) -> None:
    pace = Pace(quiet=0.01, longest=0.02, burst=2, interval=1.0)
    async with keeping(api, units, replace(FAST, pace=pace)):
        api.order("web.service", WEB)
        await settle(lambda: api.report("web.service").get("active") == "active")
        before = len(api.unit_writes)
        for turn in range(80):
            entry = systemd.entries["web.service"]
            entry.active, entry.sub = ("active", "running") if turn % 2 else ("activating", "auto-restart")
            systemd._on_change()
            await asyncio.sleep(0.02)
        assert len(api.unit_writes) - before <= 5


async def test_a_machine_without_units_is_not_told_of_and_its_systemd_not_asked(
    api: UnitsNode, systemd: SimulatedSystemd, units: UnitHost
) -> None:
    systemd.faults.away = True
    async with keeping(api, units):
        await settle(lambda: api.writes)
        await asyncio.sleep(0.3)
    assert not api.unit_writes


async def test_an_agent_on_another_folder_shelf_finds_what_the_one_before_it_left(
    api: UnitsNode, tmp_path: Path
) -> None:
    def open_units() -> tuple[UnitHost, SimulatedSystemd]:
        shelf = FolderShelf(tmp_path)
        systemd = SimulatedSystemd(shelf, books=tmp_path / "systemd.json", faults=tmp_path / "faults.json")
        return UnitHost(shelf, systemd), systemd

    units, systemd = open_units()
    async with keeping(api, units):
        api.order("web.service", WEB)
        await settle(lambda: api.report("web.service").get("active") == "active")
    assert (tmp_path / "units" / "web.service").read_text() == WEB
    units, systemd = open_units()
    async with keeping(api, units):
        await asyncio.sleep(0.4)
        assert systemd.entries["web.service"].starts == 1
        api.order("web.service", WEB, "removed")
        await settle(lambda: "hash" not in api.report("web.service"))
    assert not (tmp_path / "units" / "web.service").exists()


async def test_what_comes_to_no_end_does_not_take_the_processor(
    api: UnitsNode, systemd: SimulatedSystemd, units: UnitHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shelf that forgets what it is told, as one on a broken file system."""
    monkeypatch.setattr(units.shelf, "note_launch", lambda *_: None)
    async with keeping(api, units):
        api.order("once.service", ONESHOT)
        await settle(lambda: systemd.entries.get("once.service") and systemd.entries["once.service"].starts > 8)
        await asyncio.sleep(0.5)
        first = systemd.entries["once.service"].starts
        await asyncio.sleep(0.5)
        assert systemd.entries["once.service"].starts == first


async def test_what_failed_is_tried_again_after_a_while(
    api: UnitsNode, systemd: SimulatedSystemd, units: UnitHost
) -> None:
    async with keeping(api, units, replace(FAST, look_seconds=60.0)):
        api.order("web.service", WEB)
        del api.units["web"]
        await settle(lambda: "no Unit web" in api.report("web.service").get("message", ""))
        api.units["web"] = WEB
        await settle(lambda: api.report("web.service").get("active") == "active")


async def test_what_failed_is_tried_again_at_once_when_the_list_changes(
    api: UnitsNode, systemd: SimulatedSystemd, units: UnitHost
) -> None:
    async with keeping(api, units, replace(FAST, look_seconds=60.0, retry_seconds=60.0)):
        api.order("web.service", WEB)
        del api.units["web"]
        await settle(lambda: "no Unit web" in api.report("web.service").get("message", ""))
        api.units["web"] = WEB
        await asyncio.sleep(0.3)
        assert api.report("web.service").get("active") == "inactive"
        api.order("other.service", WEB)
        await settle(lambda: api.report("web.service").get("active") == "active")


async def test_an_agent_that_died_at_any_line_of_a_load_is_made_up_for(
    api: UnitsNode, systemd: SimulatedSystemd, units: UnitHost
) -> None:
    """Files written and not linked, linked and not read, read and not started."""
    shelf = units.shelf
    for number, name in enumerate(("a.service", "b.service", "c.service")):
        shelf.note_unread(True)
        shelf.write(name, WEB)
        if number:
            await systemd.link(name, install=False)
        api.order(name, WEB)
    async with keeping(api, units):
        await settle(lambda: sum(each["active"] == "active" for each in api.reports.values()) == 3)
    assert [entry.starts for entry in systemd.entries.values()] == [1, 1, 1]
    assert not shelf.look().unread


@pytest.mark.parametrize("between", [("loaded", WEB), ("launched", NEW)])
async def test_an_agent_that_died_while_a_unit_stopped_starts_it_when_it_is_ordered_again(
    api: UnitsNode, systemd: SimulatedSystemd, units: UnitHost, between: tuple[str, str]
) -> None:
    """A stop and then a start, or another content and back; the agent hears of neither's end."""
    async with keeping(api, units):
        api.order("web.service", WEB)
        await settle(lambda: api.report("web.service").get("active") == "active")
        systemd.job_seconds = 0.3
        api.order("web.service", between[1], between[0])
        await settle(lambda: systemd._jobs)
    await settle(lambda: systemd.entries["web.service"].active == "inactive")
    systemd.job_seconds = 0.0
    api.order("web.service", WEB)
    async with keeping(api, units):
        await settle(lambda: systemd.entries["web.service"].active == "active", 2.0)
        await settle(lambda: api.report("web.service").get("active") == "active")
    assert systemd.entries["web.service"].starts == 2


async def test_a_unit_that_starts_while_the_api_server_is_slow_keeps_its_file_until_it_is_down(
    api: UnitsNode, systemd: SimulatedSystemd, units: UnitHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its timer starts it while the content of another unit is read."""
    asked, answered = asyncio.Event(), asyncio.Event()
    plain = api.request

    async def request(method: str, path: str, **options: Any) -> Answer:
        if path.endswith("/units/other"):
            asked.set()
            await answered.wait()
        return await plain(method, path, **options)

    async with keeping(api, units):
        api.order("web.service", WEB, "loaded")
        await settle(lambda: api.report("web.service").get("load") == "loaded")
        monkeypatch.setattr(api, "request", request)
        api.order("web.service", WEB, "removed")
        api.order("other.service", WEB.replace("web", "other"))
        await asked.wait()
        await systemd.start("web.service")
        await asyncio.sleep(0.05)
        answered.set()
        await settle(lambda: "hash" not in api.report("web.service"))
        assert api.report("web.service")["active"] == "inactive"
    assert systemd.entries.keys() == {"other.service"}


async def test_a_content_that_many_units_have_is_not_read_for_each(api: UnitsNode, units: UnitHost) -> None:
    for number in range(30):
        api.order(f"web@{number}.service", WEB)
    async with keeping(api, units):
        await settle(lambda: sum(each["active"] == "active" for each in api.reports.values()) == 30)
    assert 1 <= len(api.reads) <= 4


async def test_a_removal_is_told_at_once_however_much_was_told_before(api: UnitsNode, units: UnitHost) -> None:
    settings = KeeperSettings(pace=Pace(quiet=0.03, longest=0.15, burst=2, interval=600.0))
    async with keeping(api, units, settings):
        for number in range(6):
            api.order(f"web-{number}.service", WEB)
            await settle(lambda n=number: api.report(f"web-{n}.service").get("active") == "active")
        api.order("web-0.service", WEB, "removed")
        # The unit is down until its new machine is told; that waits for this.
        await settle(lambda: "hash" not in api.report("web-0.service"), 2.0)


async def test_a_unit_that_flaps_does_not_pass_for_news_of_an_order(
    api: UnitsNode, systemd: SimulatedSystemd, units: UnitHost
) -> None:
    settings = KeeperSettings(pace=Pace(quiet=0.01, longest=0.05, burst=2, interval=600.0))
    async with keeping(api, units, settings):
        api.order("web.service", WEB)
        await settle(lambda: api.report("web.service").get("active") == "active")
        for _ in range(10):
            for act in (systemd.stop, systemd.start):
                await (await act("web.service"))
                await asyncio.sleep(0.05)
    assert len(api.unit_writes) <= 3
