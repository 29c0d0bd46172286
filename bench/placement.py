"""How long a placement of units takes: from nothing, when nothing has changed, and when one machine is lost."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from careen.api.requirements import Requirements
from careen.core.placement import Placer
from careen.core.places import Place, Placements, Target, UnitSpec

T = TypeVar("T")
REGIONS = ("eu", "us", "asia", "africa", "oceania")


@dataclass(frozen=True)
class Figure:
    """One placement."""

    ms: float
    """CPU time, in milliseconds."""
    kib: float
    """Most memory that was allocated on top of what was there before, in KiB."""
    decisions: int


@dataclass(frozen=True)
class Placing:
    """Figures for one fleet."""

    full: Figure
    idle: Figure
    lost: Figure
    unplaced: int

    @property
    def share(self) -> float:
        """CPU time when one machine is lost, by that from nothing."""
        return self.lost.ms / self.full.ms


def measure(units: int, machines: int, runs: int = 3) -> Placing:
    """Best times of a few runs; what was allocated is measured apart from them, since that takes time too."""
    timed = [_run(units, machines, _time) for _ in range(runs)]
    traced = _run(units, machines, _trace)

    def join(at: int) -> Figure:
        best = min(run[at][0] for run in timed)
        return Figure(best * 1000, traced[at][0] / 1024, len(traced[at][1].decisions))

    return Placing(join(0), join(1), join(2), len(traced[0][1].refusals))


Measured = tuple[float, Placements]


def _run(units: int, machines: int, meter: Callable[[Callable[[], T]], tuple[float, T]]) -> list[Measured]:
    specs = {unit.name: unit for unit in (make_unit(number) for number in range(units))}
    targets = {target.name: target for target in (make_target(number) for number in range(machines))}
    placer, current = Placer(), dict[str, tuple[Place, ...]]()
    full = meter(lambda: placer.place(specs, targets, current, 0.0))
    current = {decision.unit: decision.places for decision in full[1].decisions}
    placer.place(specs, targets, current, 1.0)
    idle = meter(lambda: placer.place(specs, targets, current, 2.0))
    del targets["m-0007"]
    lost = meter(lambda: placer.place(specs, targets, current, 3.0))
    return [full, idle, lost]


def _time(call: Callable[[], T]) -> tuple[float, T]:
    gc.collect()
    began = time.process_time()
    result = call()
    return time.process_time() - began, result


def _trace(call: Callable[[], T]) -> tuple[float, T]:
    gc.collect()
    tracemalloc.start()
    result = call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak, result


def make_target(number: int) -> Target:
    """A machine of one of five regions."""
    return Target(f"m-{number:04}", f"{number * 7919 % 9973:032x}", {"region": REGIONS[number % 5]}, capacity=100)


def make_unit(number: int) -> UnitSpec:
    """One of a mix: plain ones, replicas that conflict, pairs, one region's, spread ones, a few global ones."""
    kind, serial = number % 10, number // 10
    name, wanted = f"plain-{number}.service", Requirements()
    if kind in (1, 2):
        name, wanted = f"web-{serial % 20}@{number}.service", Requirements(conflicts=(f"web-{serial % 20}@*.service",))
    elif kind == 3:
        wanted = Requirements(machine_metadata=(("region", (REGIONS[serial % 5],)),))
    elif kind == 4:
        name, wanted = f"side-{serial}.service", Requirements(machine_of=(f"plain-{serial * 10}.service",))
    elif kind == 5:
        name, wanted = f"db-{serial % 50}@{number}.service", Requirements(spread="region", max_per_machine=1)
    elif kind == 6:
        wanted = Requirements(avoids=("plain-*6.service",), weight=2)
    elif number in (7, 17, 27):
        wanted = Requirements(global_=True)
    return UnitSpec(name, wanted)
