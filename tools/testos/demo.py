"""The demo on virtual machines: two of them go from 1 to 2 by kexec, and a 3 that panics stops at the first of them.

What is told at the end was seen by an independent watch, on the consoles, and on the disks; nothing is taken from the
operator's word alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from careen.kube.resources import NODES, POLICIES
from careen.sandbox.client import wait_until
from careen.sandbox.demo import boot_of, find_condition, holds, latest, runs
from careen.sandbox.nodes import create_workload, workload_manifests
from careen.sandbox.up import DEPLOYMENTS, WORKLOAD
from careen.sandbox.witness import Witness

from .image import OsImage
from .inspection import SlotOnDisk, read_slots_of
from .machine import MachineOptions
from .site import Site
from .timeline import SHOW_SHUTDOWN, Passage, find_panic, read_passage
from .variant import Fault, Variant
from .watch import track_of, until

NAMES = ("vm-1", "vm-2")
FIRST, NEXT, BROKEN = Variant("1"), Variant("2"), Variant("3", Fault.PANIC)
OPTIONS = MachineOptions(words=SHOW_SHUTDOWN)
STRATEGY = {"maxUnavailable": 1, "waves": [{"name": "canary", "count": 1, "soakSeconds": 3}]}
PODS, PODS_NEEDED = 4, 2
PODS_SECONDS = 60.0
UP_SECONDS, UPDATE_SECONDS, RETURN_SECONDS = 240.0, 750.0, 480.0
"""Three times what it takes under software emulation on two busy processors."""
SETTLE_SECONDS = 1.0
"""How long one watch may lag behind another before what they saw is judged."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Updated:
    """A machine after the update that works."""

    name: str
    passage: Passage
    runs: str
    """Version that its agent reports."""
    boot_method: str
    """How that was booted, by the agent's report."""
    slots: tuple[SlotOnDisk, SlotOnDisk]
    """What lies on its disk."""

    @property
    def ok(self) -> bool:
        """Whether it runs the new version, by kexec, and any reset boots it again."""
        return (self.runs, self.boot_method) == (NEXT.version, "Kexec") and _boots(self.slots, NEXT.version)


@dataclass(frozen=True)
class Returned:
    """The machine that tried the version that panics."""

    name: str
    passage: Passage
    panicked: float
    """When its kernel panicked, on the clock of the passage."""
    runs: str
    """Version that its agent reports."""
    cause: str
    """Why it went back, by its agent's report."""
    slots: tuple[SlotOnDisk, SlotOnDisk]
    """What lies on its disk."""

    @property
    def ok(self) -> bool:
        """Whether it is back on the version that works, knows why, and any reset boots that one."""
        return (self.runs, self.cause) == (NEXT.version, "Panic") and _boots(self.slots, NEXT.version)


@dataclass(frozen=True)
class Result:
    """What the demo has shown."""

    updated: list[Updated]
    most_down: int
    """Most machines down at once during the update, by the independent watch."""
    returned: list[Returned]
    """Machines that went back from the version that panics."""
    untouched: list[str]
    """Machines that were not booted for it, and whose disks are as before."""
    halted: str
    """Reason and sentence of the policy's condition Halted; empty when it is not True."""

    @property
    def ok(self) -> bool:
        """Whether all was as it should be."""
        return (
            len(self.updated) == len(NAMES)
            and all(machine.ok for machine in self.updated)
            and self.most_down == STRATEGY["maxUnavailable"]
            and len(self.returned) == 1
            and self.returned[0].ok
            and len(self.untouched) == len(NAMES) - 1
            and bool(self.halted)
        )


def prepare(site: Site, images: dict[str, OsImage]) -> None:
    """Publish what works, make the machines with the first version, switch them on, and make pods to drain."""
    site.publish(images[FIRST.version])
    site.publish(images[NEXT.version])
    for name in NAMES:
        site.add_machine(name, images[FIRST.version], OPTIONS).start()
    create_workload(site.api, workload_manifests(WORKLOAD, PODS, PODS_NEEDED))
    deployment = f"{DEPLOYMENTS}/{WORKLOAD}"
    wait_until(
        lambda: site.api.get(deployment).get("status", {}).get("readyReplicas") == PODS, f"{PODS} pods", PODS_SECONDS
    )


async def play(site: Site, witness: Witness, broken: OsImage, tell: Tell) -> Result:
    """Play the demo on a site that is prepared; `tell` hears each turn.

    Raises TimeoutError when something does not happen, NotSeenError when a step was not seen, TestOsError when a
    machine ended.
    """
    tell(f"{len(NAMES)} machines are switched on")
    await until(site, witness, lambda: all(runs(witness, name) for name in NAMES), "all agents up", UP_SECONDS)
    updated, most_down = await _update(site, witness, tell)
    returned, untouched = await _break(site, witness, broken, tell)
    halted = find_condition(witness.live[POLICIES].get("os"), "Halted")
    words = f"{halted.get('reason')}: {halted.get('message')}" if halted.get("status") == "True" else ""
    return Result(updated, most_down, returned, untouched, words)


async def _update(site: Site, witness: Witness, tell: Tell) -> tuple[list[Updated], int]:
    tell(f"kubectl apply: UpdatePolicy os asks for {NEXT.version}, booted by kexec")
    since, began = latest(witness).version, time.monotonic()
    await asyncio.to_thread(site.ask_for, NEXT.version, strategy=STRATEGY, boot={"method": "Kexec"})
    await until(site, witness, lambda: holds(witness, "Complete"), "policy os Complete", UPDATE_SECONDS)
    tell("Complete")
    await asyncio.sleep(SETTLE_SECONDS)
    moments = [moment.unavailable for moment in witness.replay() if moment.version > since]
    found = [
        Updated(
            name,
            read_passage(track_of(site, witness, name), NEXT.version, began),
            runs(witness, name),
            str(witness.live[NODES][name]["status"].get("bootMethod", "")),
            read_slots_of(site[name].disk),
        )
        for name in NAMES
    ]
    return found, max(map(len, moments), default=0)


async def _break(site: Site, witness: Witness, broken: OsImage, tell: Tell) -> tuple[list[Returned], list[str]]:
    before = {name: (boot_of(witness, name), read_slots_of(site[name].disk)) for name in NAMES}
    began = time.monotonic()
    await asyncio.to_thread(site.publish, broken)
    tell(f"{BROKEN.version} is published, whose kernel panics; the policy asks for it")
    await asyncio.to_thread(site.ask_for, BROKEN.version)

    def over() -> bool:
        return holds(witness, "Halted") and not latest(witness).unavailable

    await until(site, witness, over, f"rollout of {BROKEN.version} halted, all machines back", RETURN_SECONDS)
    tell("a machine went back by itself; the rollout is halted")
    await asyncio.sleep(SETTLE_SECONDS)
    after = {name: (boot_of(witness, name), read_slots_of(site[name].disk)) for name in NAMES}
    returned = [_read_return(site, witness, name, began) for name in NAMES if after[name][0] != before[name][0]]
    return returned, [name for name in NAMES if after[name] == before[name]]


def _read_return(site: Site, witness: Witness, name: str, began: float) -> Returned:
    track = track_of(site, witness, name)
    passage = read_passage(track, BROKEN.version, began)
    step: dict[str, Any] = witness.live[NODES][name]["status"]["step"]
    cause = str(step.get("cause", "")) if step["phase"] == "RolledBack" else ""
    panicked = find_panic(track, passage.requested)
    return Returned(name, passage, panicked, runs(witness, name), cause, read_slots_of(site[name].disk))


def _boots(slots: tuple[SlotOnDisk, SlotOnDisk], version: str) -> bool:
    """Whether any reset boots this version, from a slot that is marked good."""
    return any(slot.next and slot.version == version and slot.attributes.good for slot in slots)
