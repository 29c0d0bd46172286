"""The ledger that the tests of whole fleets go by sees what really happens on machines."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from careen.agent.settings import Exit, Settings
from careen.agent.units.simulated import MemoryUnits
from careen.kube.errors import Unreachable
from careen.sandbox import memory
from careen.sandbox.memory import MemoryHost, MemoryMachine
from unit_fleets import CONTENT, find_wrongs
from unit_ledger import Ledger, count_jobs, keep_ledger


def machine(name: str) -> Any:
    return SimpleNamespace(name=name, host=SimpleNamespace(units=MemoryUnits()))


async def start(there: Any, name: str) -> None:
    units = there.host.units
    units.shelf.write(name, CONTENT)
    await units.systemd.link(name, install=False)
    await (await units.systemd.start(name))


async def stop(there: Any, name: str) -> None:
    await (await there.host.units.systemd.stop(name))


async def test_a_move_is_a_pause_of_its_length_and_a_surge_is_none() -> None:
    one, two = machine("one"), machine("two")
    async with keep_ledger([one, two], find_wrongs) as ledger:
        assert ledger.find("a.service") == set()
        await asyncio.sleep(0.05)
        await start(one, "a.service")
        await start(one, "s.service")
        await ledger.until(lambda: ledger.place("a.service") == ledger.place("s.service") == "one", "both run", 5)
        await stop(one, "a.service")
        await asyncio.sleep(0.2)
        await start(two, "a.service")
        await start(two, "s.service")
        await asyncio.sleep(0.05)
        await stop(one, "s.service")
        await ledger.until(lambda: ledger.place("a.service") == ledger.place("s.service") == "two", "both moved", 5)
    assert len(ledger.pauses["a.service"]) == 1, "the time before its first start is none"
    assert 0.15 < ledger.longest("a.service") < 1.0
    assert ledger.longest("s.service") == 0.0
    assert ledger.doubled == {"s.service"}
    assert ledger.wrongs == []
    assert count_jobs([one])["one", "a.service"] == (1, 1, "inactive")


async def test_rivals_on_one_machine_and_units_of_dead_machines_are_seen() -> None:
    one = machine("one")
    ledger = Ledger([one], find_wrongs)
    for name in ("web@1.service", "web@2.service", "other.service"):
        await start(one, name)
    ledger.look()
    assert len(ledger.wrongs) == 1
    assert ledger.place("other.service") == "one"
    ledger.dead.add("one")
    ledger.look()
    await asyncio.sleep(0.05)
    assert ledger.place("other.service") == ""
    assert ledger.longest("other.service") > 0.04


class Deaf:
    """A session that nobody answers."""

    async def request(self, *_: Any, **__: Any) -> Any:
        raise Unreachable("nobody answers")


async def test_units_of_a_machine_in_memory_end_when_it_goes_down(monkeypatch: Any) -> None:
    there = MemoryMachine("one", MemoryHost.install("0" * 32, "1", "d"), cast("Any", Deaf()), cast("Any", Deaf()))
    await start(there, "a.service")
    ledger = Ledger([there])
    ledger.look()
    assert ledger.place("a.service") == "one"

    async def end(*_: Any) -> Exit:
        return Exit("Firmware", "A")

    async def report(_: MemoryMachine, ready: bool) -> None:
        if not ready:
            raise asyncio.CancelledError

    monkeypatch.setattr(memory, "run_agent", end)
    monkeypatch.setattr(MemoryMachine, "report_ready", report)
    await asyncio.gather(there.run(Settings()), return_exceptions=True)
    ledger.look()
    assert ledger.place("a.service") == ""
