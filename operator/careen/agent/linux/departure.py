"""Leaving this boot: arming a slot, and the request for the reboot, by kexec or through the firmware."""

from __future__ import annotations

import logging
import platform
from contextlib import suppress

from careen.agent.host import KexecRefusedError, RebootError
from careen.agent.journal import load_journal
from careen.agent.record import Method, OpenOrder, Stage
from careen.agent.repairs import RepairLog
from careen.agent.staging.contents import Contents
from careen.agent.staging.fault import StageError
from careen.disk.slots import arm_firmware, arm_kexec
from careen.disk.table import change_slots, read_slots
from careen.disk.types import DiskError, SlotName

from .arming import Arming, Candidate
from .conflicts import find_kexec_hook
from .discovery import Machine, find_machine
from .kexec import KexecLoader
from .loaders import BootLoader, GptPriority
from .reboot import Rebooter
from .root import STATE, Commands, Root
from .sdboot import SystemdBoot, is_systemd_boot, open_esp
from .settings import LinuxSettings
from .watchdog import Watchdog, WatchdogKeeper, find_watchdog

logger = logging.getLogger(__name__)


class Departure:
    """Arms and requests. keeper: the watchdog that `request` has armed, or that the host has taken over."""

    def __init__(
        self,
        root: Root,
        commands: Commands,
        kexec: KexecLoader,
        contents: Contents,
        settings: LinuxSettings,
        *,
        repairs: RepairLog,
    ) -> None:
        self._root = root
        self._commands = commands
        self._kexec = kexec
        self._contents = contents
        self._repairs = repairs
        self._settings = settings
        self._rebooter = Rebooter(root, commands, settings.forced_reboot_seconds)
        self.keeper: WatchdogKeeper | None = None
        self._watchdog_armed = False

    def arm(self, machine: Machine, slot: SlotName, method: Method) -> None:
        """Load the kernel or tell the loader, and arm the slot in the table between the two.

        Raises KexecRefusedError before anything is armed, StageError, DiskError, OSError.
        """
        arming = Arming(self._root, self._kexec, self.loader(machine))
        candidate = self._describe(slot, trial=True)
        if method == "Kexec":
            arming.load(machine, candidate)
        else:
            if hook := find_kexec_hook(self._root):
                raise StageError("Refused", hook)
            self._kexec.unload()
        change = arm_kexec if method == "Kexec" else arm_firmware
        try:
            changed = change_slots(machine.disk, lambda slots: change(slots, slot, booted=machine.booted))
        except BaseException:
            # Not armed, so nothing may be left that a `systemctl kexec` of somebody else would start.
            with suppress(OSError):
                self._kexec.unload()
            raise
        self._repairs.note(changed.repaired)
        arming.tell_loader(machine, candidate, method)

    def request(self, method: Method, slot: SlotName) -> None:
        """Have systemd reboot into a slot that is armed, or the booted one.

        Raises RebootError for whatever fails before systemd has accepted: only that ends an order whose reboot counts
        as requested. A watchdog may be armed then; see `call_off`.
        """
        try:
            method = self._prepare(find_machine(self._root), method, slot)
            self._rebooter.request(method)
        except (KexecRefusedError, StageError, DiskError, OSError) as error:
            raise RebootError(f"{method.lower()}: {error}") from error

    def call_off(self) -> None:
        """After a RebootError: stop the watchdog that was armed for a boot that does not come. Raises OSError."""
        if self.keeper is not None and self._watchdog_armed:
            self.keeper.disarm()
        self._watchdog_armed = False

    def forget_load(self, boot_id: str) -> None:
        """Unload the kernel that an agent which was killed has loaded for a boot that is not asked for yet.

        It is loaded again if that boot comes; if the order is aborted, nobody else would take it back.
        """
        opened = self._load_open()
        if opened is not None and opened.from_boot_id == boot_id and opened.stage is not Stage.REQUESTED:
            self._kexec.unload()

    def _prepare(self, machine: Machine, method: Method, slot: SlotName) -> Method:
        if method == "Kexec" and slot is machine.booted:
            return self._prepare_again(machine, slot)
        if method == "Kexec":
            self._prepare_kexec(machine, slot)
        else:
            self._kexec.unload()
            self._prepare_firmware(machine, slot)
        return method

    def _prepare_again(self, machine: Machine, slot: SlotName) -> Method:
        """Load the kernel that runs now, if that goes; through the firmware the same slot boots too."""
        try:
            candidate = self._describe(slot, trial=False)
            Arming(self._root, self._kexec, self.loader(machine)).load(machine, candidate)
        except (KexecRefusedError, StageError, DiskError, OSError) as error:
            logger.warning("no kexec of slot %s, so it boots through the firmware: %s", slot, error)
            self._kexec.unload()
            return "Firmware"
        return "Kexec"

    def _prepare_kexec(self, machine: Machine, slot: SlotName) -> None:
        """Load again what is not loaded any more, and arm the watchdog."""
        # Already now: an agent that was killed may have left it armed.
        self._watchdog_armed = True
        if not self._kexec.is_loaded():
            candidate = self._describe(slot, trial=True)
            Arming(self._root, self._kexec, self.loader(machine)).load(machine, candidate)
        self._complete_loader(machine, slot, "Kexec")
        watchdog = self.find_lasting()
        if watchdog is None and self._needs_watchdog():
            raise RebootError("kexec: the hardware watchdog that was to end a trial that hangs is gone")
        if watchdog is not None:
            self.keeper = self.keeper or WatchdogKeeper(self._root, self._commands, watchdog)
            self.keeper.arm(self._settings.watchdog_seconds, shutdown=self._settings.forced_reboot_seconds)

    def _prepare_firmware(self, machine: Machine, slot: SlotName) -> None:
        attributes = read_slots(machine.disk)[slot].attributes
        if slot is not machine.booted and attributes.priority > 0 and not attributes.successful:
            self._complete_loader(machine, slot, "Firmware")

    def _complete_loader(self, machine: Machine, slot: SlotName, method: Method) -> None:
        """Tell the loader of an armed slot what it missed: power may have gone, or the ESP been full, at the arming."""
        loader = self.loader(machine)
        if loader.needs_files:
            candidate = self._describe(slot, trial=True)
            if not loader.is_armed(slot, candidate.image, method):
                Arming(self._root, self._kexec, loader).tell_loader(machine, candidate, method)

    def commit(self, machine: Machine, slot: SlotName) -> None:
        """Have the boot loader boot the booted slot from now on. Raises StageError, DiskError, OSError."""
        loader = self.loader(machine)
        if loader.needs_files:
            Arming(self._root, self._kexec, loader).commit_loader(machine, self._describe(slot, trial=False))

    def _describe(self, slot: SlotName, *, trial: bool) -> Candidate:
        """The release in a slot, as its signed document describes it. Raises StageError."""
        record = self._contents.look()[slot].record
        if record is None:
            raise StageError("Integrity", f"nothing was verified in slot {slot}; it is not armed")
        document = self._contents.find_document(record.digest)
        image = document.images.get(platform.machine()) if document else None
        if image is None:
            raise StageError("Integrity", f"the document of {record.digest} is not in {STATE}/releases any more")
        if image.kernel is None:
            raise StageError("Refused", f"release {record.version} has no kernel; allowed: releases with one")
        opened = self._load_open() if trial else None
        order = opened.order if opened else ""
        seconds = self._settings.watchdog_seconds if trial and self.find_lasting() else 0
        return Candidate(slot, record.version, image, order, seconds)

    def _load_open(self) -> OpenOrder | None:
        journal = load_journal(self._root.at(f"{STATE}/journal.json"))
        return journal.open if journal else None

    def _needs_watchdog(self) -> bool:
        opened = self._load_open()
        return opened is not None and opened.deadman == "HardwareWatchdog"

    def find_lasting(self) -> Watchdog | None:
        """The watchdog that goes on over a kexec and waits long enough."""
        watchdog = find_watchdog(self._root)
        return watchdog if watchdog is not None and watchdog.lasts(self._settings.watchdog_span) else None

    def loader(self, machine: Machine) -> BootLoader:
        """What boots this machine after a reset."""
        name = self._settings.loader
        if name == "systemd-boot" or (name == "auto" and is_systemd_boot(self._root)):
            return SystemdBoot(open_esp(self._root, machine))
        return GptPriority()
