"""The outage of a virtual machine, from the request for a reboot until its agent is back: by kexec and by firmware."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass

from careen.kube.resources import NODES
from careen.sandbox.demo import holds, runs
from careen.sandbox.witness import Witness
from testos.image import build_image
from testos.machine import MachineOptions
from testos.site import Site
from testos.timeline import SHOW_SHUTDOWN, Passage, read_passage
from testos.variant import Variant
from testos.watch import track_of, until, watch_site

NAME = "vm-1"
ONE, TWO = "1", "2"
ROUNDS = 2
UP_SECONDS, UPDATE_SECONDS = 240.0, 480.0


@dataclass(frozen=True)
class Outage:
    """Medians of one way to boot, in seconds."""

    shutdown: float
    """From the request until the kernel of the new system has started."""
    boot: float
    """From there until the agent is heard at the API server."""
    total: float
    """From the request until the agent is back."""
    runs: tuple[float, ...]
    """The totals of all runs."""


@dataclass(frozen=True)
class Outages:
    """Both ways, of the same machine."""

    kexec: Outage
    firmware: Outage

    @property
    def ratio(self) -> float:
        """The outage by kexec, by that through the firmware."""
        return self.kexec.total / self.firmware.total


def measure(rounds: int = ROUNDS) -> Outages:
    """Roll one machine to 2 by kexec and back to 1 through the firmware, so many times."""
    images = {version: build_image(Variant(version)) for version in (ONE, TWO)}
    with Site() as site:
        for image in images.values():
            site.publish(image)
        site.add_machine(NAME, images[ONE], MachineOptions(words=SHOW_SHUTDOWN)).start()
        return asyncio.run(_roll(site, rounds))


async def _roll(site: Site, rounds: int) -> Outages:
    found: dict[str, list[Passage]] = {"Kexec": [], "Firmware": []}
    async with watch_site(site) as witness:
        await until(site, witness, lambda: bool(runs(witness, NAME)), f"{NAME} up", UP_SECONDS)
        for _ in range(rounds):
            for version, method in ((TWO, "Kexec"), (ONE, "Firmware")):
                found[method].append(await _update(site, witness, version, method))
    return Outages(_summarize(found["Kexec"]), _summarize(found["Firmware"]))


async def _update(site: Site, witness: Witness, version: str, method: str) -> Passage:
    began = time.monotonic()
    release = {"repository": site.repository, "version": version, "allowDowngrade": True}
    await asyncio.to_thread(site.ask_for, version, release=release, boot={"method": method})

    def over() -> bool:
        return holds(witness, "Complete") and runs(witness, NAME) == version

    await until(site, witness, over, f"{NAME} runs {version}", UPDATE_SECONDS)
    await asyncio.sleep(1.0)
    booted = witness.live[NODES][NAME]["status"].get("bootMethod")
    assert booted == method, f"{NAME} was booted by {booted}, not by {method}"
    return read_passage(track_of(site, witness, NAME), version, began)


def _summarize(passages: Iterable[Passage]) -> Outage:
    found = list(passages)
    return Outage(
        statistics.median(each.kernel_started - each.requested for each in found),
        statistics.median(each.agent_back - each.kernel_started for each in found),
        statistics.median(each.outage for each in found),
        tuple(round(each.outage, 1) for each in found),
    )
