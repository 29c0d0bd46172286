"""Machines in memory: the real agent on a disk that is two variables. For fleets larger than this computer.

Everything above the disk is real: the agent's decisions and journal, its writes under its own bound token, the node's
Ready condition and boot id at each reboot. Use image machines (careen.sandbox.machine) to see the disk itself.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from careen.agent.actions import StageImage, VerifySlot
from careen.agent.host import Sight
from careen.agent.record import Deadman, Journal, Method, Moved
from careen.agent.runner import run_agent
from careen.agent.settings import Settings
from careen.agent.units.simulated import MemoryUnits
from careen.agent.view import BootDecision, BootView, DiskView, HostFacts, SlotView
from careen.disk.boot import choose, consume
from careen.disk.types import GIVEN_UP, Attributes, SlotName
from careen.kube.clock import boot_seconds
from careen.kube.errors import ApiError
from careen.kube.resources import CORE_NODES
from careen.kube.session import Session
from careen.kube.write import patch_merge

CAPACITY = 1 << 30
GOOD = Attributes(1, 0, True)
Reset = Literal["Panic", "Watchdog"]


class MemoryFault(StrEnum):
    """What is wrong with a release on a machine."""

    PANIC = "panic"
    """It panics while it boots; the reset's reason can be read afterwards."""
    UNHEALTHY = "unhealthy"
    """Its local gates do not pass."""
    NOT_READY = "not-ready"
    """Its kubelet reports the new boot, but never Ready."""


@dataclass(slots=True)
class MemoryHost:
    """A machine whose disk, journal and boot are variables; they outlive the agent, as a disk would."""

    machine_id: str
    slots: dict[SlotName, SlotView]
    booted: SlotName = SlotName.A
    boot_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    method: Method = "Firmware"
    journal: Journal | None = None
    answered: bool = False
    booted_at: float = field(default_factory=boot_seconds)
    faults: dict[str, MemoryFault] = field(default_factory=dict)
    """What is wrong with which version."""
    reset: Reset | None = None
    """Why the boot before this one ended."""
    deadman: Deadman = "TrialTimer"
    """What it says would undo a trial that hangs."""
    reset_prepared: bool = False
    """Whether the next boot empties the writable file system, of which a machine in memory has none."""
    resets: int = 0
    """Resets so far."""
    units: MemoryUnits = field(default_factory=MemoryUnits)
    """Its units, and the systemd that only keeps books of them."""

    @property
    def fault(self) -> MemoryFault | None:
        """What is wrong with the version that runs."""
        return self.faults.get(self.slots[self.booted].version or "")

    @classmethod
    def install(cls, machine_id: str, version: str, digest: str) -> MemoryHost:
        """A machine with one release, marked good, in slot A."""
        return cls(
            machine_id,
            {
                SlotName.A: SlotView(3, CAPACITY, GOOD, digest, version),
                SlotName.B: SlotView(4, CAPACITY, GIVEN_UP),
            },
        )

    def boot(self, method: Method, slot: SlotName) -> None:
        """The next boot: kexec starts what was loaded, the firmware picks by the GPT rule and uses up a try.

        A release that panics is followed by the firmware's next choice at once.
        """
        self.reset = None
        self._start(method, slot)
        while self.fault is MemoryFault.PANIC:
            self.reset = "Panic"
            self._start("Firmware", slot)

    def _start(self, method: Method, slot: SlotName) -> None:
        if method == "Firmware":
            chosen = choose(self.slots.values())
            assert chosen is not None, "a machine that keeps the rules always has a slot to boot"
            slot = next(name for name, view in self.slots.items() if view is chosen)
            self._set(slot, attributes=consume(chosen.attributes))
        self.booted, self.method, self.answered = slot, method, False
        self.units.reboot()
        self.resets += self.reset_prepared
        self.reset_prepared = False
        self.boot_id, self.booted_at = str(uuid.uuid4()), boot_seconds()
        for name, view in self.slots.items():
            self.slots[name] = replace(view, checked=None, refuted=None)

    async def look(self) -> Sight:
        """Everything that can be seen now."""
        boot = BootView(self.boot_id, self.machine_id, self.method, self.reset, boot_seconds() - self.booted_at)
        disk = DiskView(self.booted, self.slots[SlotName.A], self.slots[SlotName.B])
        image = f"Careen OS {self.slots[self.booted].version}"
        decision = BootDecision("Kexec", "Supported", "a machine in memory boots at once", self.deadman)
        facts = HostFacts("x86_64", image, "memory", "memory", kexec=True, boot_decision=decision)
        unhealthy = "the release is broken" if self.fault is MemoryFault.UNHEALTHY else None
        return Sight(disk, boot, facts, self.journal, self.answered, unhealthy, self.reset_prepared)

    async def note_api_answer(self) -> None:
        """Remember until the next boot."""
        self.answered = True

    async def write_journal(self, journal: Journal) -> None:
        """Replace the journal."""
        self.journal = journal

    async def invalidate(self, slot: SlotName) -> None:
        """Give the slot up."""
        self._set(slot, attributes=GIVEN_UP, digest=None, version=None, checked=None)

    async def admit(self, image: StageImage) -> None:
        """Everything is trusted in memory."""

    async def stage(self, image: StageImage, on_progress: Callable[[Moved], None]) -> None:
        """The image is there at once."""
        on_progress(Moved(fetched=image.size))
        self._set(image.slot, digest=image.digest, version=image.version, checked=image.order)

    async def verify(self, check: VerifySlot) -> bool:
        """Whether the slot holds the digest."""
        if self.slots[check.slot].digest == check.digest:
            self._set(check.slot, checked=check.purpose)
            return True
        self._set(check.slot, refuted=check.digest)
        return False

    async def arm(self, slot: SlotName, method: Method) -> None:
        """One boot: by kexec with no try left, by the firmware with one."""
        self._raise(slot, Attributes(2, 0 if method == "Kexec" else 1, False))

    async def disarm(self, slot: SlotName) -> None:
        """Take the boot away."""
        self._set(slot, attributes=GIVEN_UP)

    async def mark_good(self, slot: SlotName) -> None:
        """Mark good and prefer."""
        self._raise(slot, Attributes(2, 0, True))

    async def abandon(self, slot: SlotName) -> None:
        """Give the booted slot up."""
        self._set(slot, attributes=GIVEN_UP)

    async def repair_table(self) -> None:
        """There is none."""

    async def prepare_reset(self) -> None:
        """Remember it for the next boot."""
        self.reset_prepared = True

    async def drop_reset(self) -> None:
        """Forget it."""
        self.reset_prepared = False

    async def request_reboot(self, method: Method, slot: SlotName) -> None:
        """Always accepted; the machine's loop does it."""

    def _raise(self, slot: SlotName, attributes: Attributes) -> None:
        other = self.slots[slot.other].attributes
        if other.priority > 1:
            self._set(slot.other, attributes=replace(other, priority=1))
        self._set(slot, attributes=attributes)

    def _set(self, slot: SlotName, **changes: object) -> None:
        self.slots[slot] = replace(self.slots[slot], **changes)  # type: ignore[arg-type]


class MemoryMachine:
    """One machine's life: agent, reboot, agent, and what a kubelet reports of it meanwhile."""

    def __init__(
        self, name: str, host: MemoryHost, agent: Session, kubelet: Session, *, boot_seconds: float = 5.0
    ) -> None:
        """agent: a session with the machine's bound token; kubelet: one that may write core Nodes' status."""
        self.name = name
        self.host = host
        self._agent = agent
        self._kubelet = kubelet
        self._boot_seconds = boot_seconds
        self.boots = 0
        """Reboots so far."""
        self.broken = False
        """Whether the kubelet reports not Ready although the machine runs; report_ready(True) tells it."""
        self.may_boot = asyncio.Event()
        """While it is cleared, a machine that goes down stays down."""
        self.may_boot.set()

    async def run(self, settings: Settings | None = None) -> None:
        """Live until cancelled."""
        await self.report_ready(True)
        while True:
            end = await run_agent(self.host, self._agent, self.name, settings, self.host.units.host)
            started = asyncio.get_running_loop().time()
            # They end with the system that goes down, and not only when the next one comes up.
            self.host.units.reboot()
            await self.report_ready(False)
            await asyncio.sleep(max(0.0, self._boot_seconds - (asyncio.get_running_loop().time() - started)))
            await self.may_boot.wait()
            self.host.boot(end.method, SlotName(end.slot))
            self.boots += 1
            await self.report_ready(True)

    async def report_ready(self, ready: bool) -> None:
        """Report the boot id, and Ready unless something is wrong; tried until the API server takes it."""
        ready = ready and not self.broken and self.host.fault is not MemoryFault.NOT_READY
        condition = {
            "type": "Ready",
            "status": "True" if ready else "False",
            "reason": "KubeletReady" if ready else "Rebooting",
            "message": "",
        }
        status: Mapping[str, object] = {
            "conditions": [condition],
            "nodeInfo": {"bootID": self.host.boot_id, "machineID": self.host.machine_id},
        }
        while True:
            try:
                await patch_merge(self._kubelet, CORE_NODES, self.name, {"status": status}, subresource="status")
                return
            except ApiError:
                await asyncio.sleep(0.5)
