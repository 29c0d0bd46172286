"""A machine that is a folder: its disk is an image file, its firmware a program that runs between two agents.

disk.img is a real GPT disk. root/ stands for the ROOT partition and survives everything; run/ is made anew at each
boot by the firmware, as /run is.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Self

import aiohttp

from careen import __version__
from careen.disk.image import open_passive, open_slot
from careen.disk.slots import Slots, abandon, arm_firmware, arm_kexec, commit, disarm, invalidate
from careen.disk.table import change_slots, inspect_slots, read_slots, repair
from careen.disk.types import Slot, SlotName
from careen.release.durable import PRIVATE, write_durably

from .actions import StageImage, VerifySlot
from .host import Sight
from .journal import load_journal, save_journal
from .record import Journal, Method, Moved
from .repairs import RepairLog
from .reset import drop_reset, is_prepared, prepare_reset
from .staging.contents import Admitted, Booted, Contents, Known
from .staging.media import Source
from .staging.transfer import Deadlines
from .threads import in_thread
from .units.shelf import FolderShelf
from .units.simulated import SimulatedSystemd
from .units.systemd import UnitHost
from .units.unwilling import UnwillingSystemd
from .view import BootDecision, BootView, DiskView, HostFacts, SlotView

KEPT = ("machine-id", "careen")
"""What a reset keeps of root/: the machine's identity, and the agent's state."""


@dataclass(frozen=True)
class MachineFolder:
    """Where everything of a machine lies."""

    path: Path

    @property
    def root(self) -> Path:
        """The ROOT partition: what is written here survives, until a reset."""
        return self.path / "root"

    @property
    def disk(self) -> Path:
        """The disk image."""
        return self.path / "disk.img"

    @property
    def state(self) -> Path:
        """The agent's folder on the ROOT partition."""
        return self.path / "root" / "careen"

    @property
    def journal(self) -> Path:
        """The agent's journal."""
        return self.state / "journal.json"

    @property
    def records(self) -> Path:
        """What was verified in which slot."""
        return self.state / "slots.json"

    @property
    def machine_id(self) -> Path:
        """The machine's identity."""
        return self.path / "root" / "machine-id"

    @property
    def run(self) -> Path:
        """What lasts until the next boot."""
        return self.path / "run"

    @property
    def boot(self) -> Path:
        """What the firmware tells about this boot."""
        return self.run / "boot.json"

    @property
    def api_answered(self) -> Path:
        """There if the API server answered in this boot."""
        return self.run / "api-answered"

    @property
    def unhealthy(self) -> Path:
        """There if the OS is not well; it says why."""
        return self.run / "unhealthy"

    @property
    def alive(self) -> Path:
        """There once an agent has started in this boot; what the trial's timer waits for."""
        return self.run / "agent-started"

    @property
    def systemd_books(self) -> Path:
        """What the simulated systemd keeps of this boot."""
        return self.run / "systemd.json"

    @property
    def systemd_faults(self) -> Path:
        """What is to go wrong with units, see units/simulated.py; it is not there unless somebody wrote it."""
        return self.path / "systemd-faults.json"

    @property
    def reboot(self) -> Path:
        """There once a reboot is requested; it says how."""
        return self.run / "reboot.json"


@dataclass(frozen=True)
class BootRecord:
    """What the firmware tells about a boot. started: CLOCK_BOOTTIME of this host, in seconds."""

    boot_id: str
    slot: str
    method: Method
    version: str
    os_image: str
    started: float
    reset: Literal["Panic", "Watchdog"] | None = None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read it. Raises OSError, ValueError."""
        return cls(**json.loads(path.read_bytes()))

    def save(self, path: Path) -> None:
        """Write it. Raises OSError."""
        write_durably(path, json.dumps(self.__dict__).encode(), mode=PRIVATE)


def open_folder_units(folder: Path, *, enabled: bool = True) -> UnitHost:
    """Where the machine has its units: in its run/, with a systemd that only keeps books.

    enabled: whether orders are obeyed; if not, they are answered with that.
    """
    files = MachineFolder(folder)
    shelf = FolderShelf(files.run)
    if not enabled:
        return UnitHost(shelf, UnwillingSystemd())
    return UnitHost(shelf, SimulatedSystemd(shelf, books=files.systemd_books, faults=files.systemd_faults))


class ImageHost:
    """The host for a machine folder. Open it with `async with ImageHost(…)`; refused while another has it open.

    trust_root: file with the root.json that releases are trusted by. http: client for the release repository, shared
    by many hosts of one process if given. kexec: whether the machine can boot by kexec. now: the time for signatures
    that expire; default the system's clock.
    """

    def __init__(
        self,
        folder: Path,
        trust_root: Path,
        *,
        http: aiohttp.ClientSession | None = None,
        kexec: bool = True,
        deadlines: Deadlines | None = None,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self.folder = MachineFolder(folder)
        self._kexec = kexec
        self._lock = -1
        self._repairs = RepairLog(self.folder.state / "repair.json")
        machine = platform.machine()
        self._contents = Contents(self.folder.state, trust_root, machine, http=http, deadlines=deadlines, now=now)

    async def __aenter__(self) -> Self:
        self.folder.state.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.folder.state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise OSError(f"{self.folder.state} is in use by another agent; allowed: one agent a machine") from None
        self._boot = BootRecord.load(self.folder.boot)
        self._machine_id = self.folder.machine_id.read_text().strip()
        await self._contents.open()
        self.folder.alive.touch()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._contents.close()
        os.close(self._lock)

    async def look(self) -> Sight:
        """The machine at this instant. Raises DiskError, OSError."""
        return await in_thread(self._look)

    async def note_api_answer(self) -> None:
        """Remember it until the next boot."""
        self.folder.api_answered.touch()

    async def write_journal(self, journal: Journal) -> None:
        """Replace the journal."""
        await in_thread(save_journal, self.folder.journal, journal)

    async def invalidate(self, slot: SlotName) -> None:
        """Drop the slot's record, then make it P0 T0 S0."""
        await in_thread(self._contents.forget, slot)
        await self._change(lambda slots: invalidate(slots, slot, booted=self._booted))

    async def admit(self, image: StageImage) -> None:
        """See that a release is trusted and fits this machine. Raises StageError, DiskError, OSError."""
        with ExitStack() as stack:
            booted = await in_thread(stack.enter_context, open_slot(self.folder.disk, self._booted))
            await self._admit(image, booted)

    async def stage(self, image: StageImage, on_progress: Callable[[Moved], None]) -> None:
        """Make the slot hold the release and record it. Raises StageError, DiskError, OSError."""
        disk, booted = self.folder.disk, self._booted
        with ExitStack() as stack:
            source = await in_thread(stack.enter_context, open_slot(disk, booted))
            admitted = await self._admit(image, source)
            passive = open_passive(disk, image.slot, booted=booted)
            target = await in_thread(stack.enter_context, passive)
            await self._contents.stage(image, admitted, target, source, on_progress)

    async def verify(self, check: VerifySlot) -> bool:
        """Read back what the slot holds and keep the record in step; whether it is the release asked for."""
        with ExitStack() as stack:
            slot = await in_thread(stack.enter_context, open_slot(self.folder.disk, check.slot))
            booted = await in_thread(stack.enter_context, open_slot(self.folder.disk, self._booted))
            return await self._contents.verify(check, slot, self._describe_booted(booted))

    async def _admit(self, image: StageImage, booted: Source) -> Admitted:
        slots = await in_thread(read_slots, self.folder.disk)
        return await self._contents.admit(image, self._describe_booted(booted), slots[image.slot].size)

    def _describe_booted(self, slot: Source) -> Booted:
        return Booted(self._booted, slot, self._boot.version)

    async def arm(self, slot: SlotName, method: Method) -> None:
        """Give the passive slot its one boot."""
        change = arm_kexec if method == "Kexec" else arm_firmware
        await self._change(lambda slots: change(slots, slot, booted=self._booted))

    async def disarm(self, slot: SlotName) -> None:
        """Take the passive slot's boot away."""
        await self._change(lambda slots: disarm(slots, slot, booted=self._booted))

    async def mark_good(self, slot: SlotName) -> None:
        """Mark the booted slot good, above the other."""
        await self._change(lambda slots: commit(slots, slot, booted=self._booted))

    async def abandon(self, slot: SlotName) -> None:
        """Give up the booted slot."""
        await self._change(lambda slots: abandon(slots, slot))

    async def repair_table(self) -> None:
        """Bring both copies of the partition table in step, and remember what was wrong."""
        await in_thread(self._repairs.note, await in_thread(repair, self.folder.disk))

    async def prepare_reset(self) -> None:
        """Leave the marker for the firmware, which obeys it as an initramfs would."""
        await in_thread(prepare_reset, self.folder.root, KEPT)

    async def drop_reset(self) -> None:
        """Take it away."""
        await in_thread(drop_reset, self.folder.root)

    async def request_reboot(self, method: Method, slot: SlotName) -> None:
        """Leave the request where the machine looks for it when the agent has ended."""
        request = json.dumps({"method": method, "slot": slot.value}).encode()
        await in_thread(write_durably, self.folder.reboot, request)

    @property
    def _booted(self) -> SlotName:
        return SlotName(self._boot.slot)

    async def _change(self, change: Callable[[Slots], Slots]) -> None:
        changed = await in_thread(change_slots, self.folder.disk, change)
        await in_thread(self._repairs.note, changed.repaired)

    def _look(self) -> Sight:
        table, known = inspect_slots(self.folder.disk), self._contents.look()
        boot, uptime = self._boot, time.clock_gettime(time.CLOCK_BOOTTIME) - self._boot.started
        facts = HostFacts(
            platform.machine(), boot.os_image, platform.release(), __version__, self._kexec, self._decide_boot()
        )
        disk = DiskView(
            booted=self._booted,
            a=self._show(table.slots.a, known[SlotName.A]),
            b=self._show(table.slots.b, known[SlotName.B]),
            faults=table.faults,
            repair=self._repairs.last,
        )
        return Sight(
            disk=disk,
            boot=BootView(boot.boot_id, self._machine_id, boot.method, boot.reset, uptime),
            facts=facts,
            journal=load_journal(self.folder.journal),
            api_answered=self.folder.api_answered.exists(),
            unhealthy=self._read_gate(),
            reset_prepared=is_prepared(self.folder.root),
        )

    def _decide_boot(self) -> BootDecision:
        # The trial's timer belongs to the machine that runs the folder: no release can be without it.
        if self._kexec:
            return BootDecision("Kexec", "Supported", "a folder boots whatever it is told to", "TrialTimer")
        return BootDecision("Firmware", "Unsupported", "this folder was made without kexec", "TrialTimer")

    def _show(self, slot: Slot, known: Known) -> SlotView:
        record, version = known.record, self._boot.version if slot.name is self._booted else None
        if record is None and version is None:
            version = self._contents.read_claim(slot.name, lambda: open_slot(self.folder.disk, slot.name))
        return SlotView(
            partition=slot.partition,
            capacity=slot.size,
            attributes=slot.attributes,
            digest=record.digest if record else None,
            version=record.version if record else version,
            checked=known.checked,
            refuted=known.refuted,
        )

    def _read_gate(self) -> str | None:
        try:
            return self.folder.unhealthy.read_text().strip() or "the OS says that it is not well"
        except FileNotFoundError:
            return None
