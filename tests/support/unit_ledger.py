"""What really runs on machines in memory: read from their systemds' own books, not from what anybody reports."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from careen.sandbox.memory import MemoryMachine

LOOK_SECONDS = 0.01
"""The machines live in the loop that looks: no state of theirs that lasts longer goes unseen."""
ASK_SECONDS = 0.05
RUNS = frozenset({"active", "reloading"})


@dataclass(frozen=True)
class Pause:
    """A time in which a unit ran nowhere, in seconds of time.monotonic()."""

    began: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass
class Ledger:
    """Where each unit runs, instant by instant."""

    machines: Sequence[MemoryMachine]
    judge: Callable[[str, frozenset[str]], Iterable[str]] = lambda _machine, _units: ()
    """What is wrong with these units on one machine; asked at each change."""
    running: dict[str, frozenset[str]] = field(default_factory=dict)
    """Units by machine."""
    where: dict[str, set[str]] = field(default_factory=dict)
    """Machines by unit, of all units that ever ran."""
    pauses: dict[str, list[Pause]] = field(default_factory=lambda: defaultdict(list))
    """Times in which a unit that had run before ran nowhere, by unit."""
    began: dict[tuple[str, str], float] = field(default_factory=dict)
    """When each unit was last seen to begin to run on each machine."""
    doubled: set[str] = field(default_factory=set)
    """Units that ever ran on two machines at once."""
    wrongs: list[str] = field(default_factory=list)
    """What `judge` found."""
    dead: set[str] = field(default_factory=set)
    """Machines without power: nothing runs there, whatever their books said last."""
    _down: dict[str, float] = field(default_factory=dict)

    def look(self) -> None:
        """Take down what runs now."""
        now = time.monotonic()
        for machine in self.machines:
            books = {} if machine.name in self.dead else machine.host.units.systemd.entries
            units = frozenset(name for name, entry in books.items() if entry.active in RUNS)
            if units != self.running.get(machine.name, frozenset()):
                self._take(machine.name, units, now)
        for name in [name for name in self._down if self.where[name]]:
            self.pauses[name].append(Pause(self._down.pop(name), now))
        for name, machines in self.where.items():
            if not machines:
                self._down.setdefault(name, now)

    def _take(self, machine: str, units: frozenset[str], now: float) -> None:
        before = self.running.get(machine, frozenset())
        self.running[machine] = units
        for name in before - units:
            self.where[name].discard(machine)
        for name in units - before:
            self.where.setdefault(name, set()).add(machine)
            self.began[name, machine] = now
            if len(self.where[name]) > 1:
                self.doubled.add(name)
        self.wrongs += self.judge(machine, units)

    def longest(self, name: str) -> float:
        """The longest time that the unit was down, in seconds; until now, if it still is."""
        known = [pause.seconds for pause in self.pauses.get(name, ())]
        if name in self._down:
            known.append(time.monotonic() - self._down[name])
        return max(known, default=0.0)

    def find(self, name: str) -> set[str]:
        """Machines that the unit runs on."""
        return self.where.get(name, set())

    def place(self, name: str) -> str:
        """The one machine that the unit runs on; empty if there is none, or there are several."""
        found = self.find(name)
        return next(iter(found)) if len(found) == 1 else ""

    async def until(self, check: Callable[[], object], what: str, seconds: float) -> None:
        """Wait until it is so; AssertionError if it is not in time."""
        deadline = time.monotonic() + seconds
        while not check():
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
            await asyncio.sleep(ASK_SECONDS)


@asynccontextmanager
async def keep_ledger(
    machines: Sequence[MemoryMachine],
    judge: Callable[[str, frozenset[str]], Iterable[str]] = lambda _machine, _units: (),
    look_seconds: float = LOOK_SECONDS,
) -> AsyncIterator[Ledger]:
    """A ledger that is kept until the end of the block; what it could not look at is an error of the test.

    look_seconds: from one look to the next; with hundreds of machines each look takes milliseconds.
    """
    ledger = Ledger(machines, judge)

    async def watch() -> None:
        while True:
            ledger.look()
            await asyncio.sleep(look_seconds)

    task = asyncio.create_task(watch(), name="ledger")
    try:
        yield ledger
        ledger.look()
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def count_jobs(machines: Iterable[MemoryMachine]) -> Mapping[tuple[str, str], tuple[int, int, str]]:
    """Starts, stops and active state of each unit on each machine since its boot, from the books."""
    return {
        (machine.name, name): (entry.starts, entry.stops, entry.active)
        for machine in machines
        for name, entry in machine.host.units.systemd.entries.items()
    }
