"""The host for a real Linux machine: its own partitions, kexec, systemd and watchdog."""

from __future__ import annotations

import fcntl
import logging
import os
import platform
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import datetime
from typing import Self

from careen import __version__
from careen.agent.actions import StageImage, VerifySlot
from careen.agent.host import RebootError, Sight
from careen.agent.journal import load_journal, save_journal
from careen.agent.record import Journal, Method, Moved
from careen.agent.records import SlotRecord
from careen.agent.repairs import RepairLog
from careen.agent.reset import drop_reset, is_prepared, prepare_reset
from careen.agent.staging.contents import Booted, Contents, Known
from careen.agent.staging.fault import StageError
from careen.agent.staging.media import Source
from careen.agent.threads import in_thread
from careen.agent.view import BootView, DiskView, HostFacts, SlotView
from careen.disk.slots import Slots, abandon, commit, disarm, invalidate
from careen.disk.table import change_slots, inspect_slots, read_slots, repair
from careen.disk.types import DiskError, Slot, SlotName
from careen.release.manifest import ReleaseDocument

from .bootfiles import release_left
from .cmdline import find_word
from .conflicts import find_conflict
from .crashes import find_reset
from .departure import Departure
from .discovery import Machine, find_machine
from .experience import learn, load_experience, save_experience
from .facts import ORDER_WORD, note_times, read_boot, read_kernel, read_os_release, read_uptime
from .health import Health
from .kexec import FileLoader, KexecLoader
from .partition import open_for_reading, open_for_writing, require_unused
from .preflight import Preflight, Staged, decide, is_possible, read_platform
from .root import RUN, STATE, Commands, HostCommands, Root
from .settings import LinuxSettings
from .strictness import relax
from .watchdog import WatchdogError, WatchdogKeeper, find_watchdog

logger = logging.getLogger(__name__)

API_ANSWERED = "api-answered"
"""In /run/careen: the API server answered in this boot."""
COMMITTED = "committed"
"""In /run/careen: the booted slot is good. The image's timer waits for it."""
ALIVE = "trial-alive"
"""In /run/careen: the uptime in seconds at which a steady agent last decided over the trial."""
TIMES = "times.json"
"""In /run/careen: when kernel and first agent of this boot started."""
TRIAL_TIMER = "trial-timer"
"""The capability by which a release says that its image has the timer of a trial."""
STEADY_SECONDS = 30.0
"""How long an agent must have run to count as steady."""


class LinuxHost:
    """The host. Open it with `async with LinuxHost(settings)`; refused while another agent has it open.

    root: where the machine's files are seen. now: the time for signatures that expire; default the system's clock.
    commands, kexec: for tests.
    """

    def __init__(
        self,
        settings: LinuxSettings,
        *,
        root: Root | None = None,
        commands: Commands | None = None,
        kexec: KexecLoader | None = None,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self.settings = settings
        self.root = root or Root()
        self._commands = commands or HostCommands(self.root)
        self._kexec = kexec or FileLoader(self.root)
        self._health = Health(self.root, self._commands, settings.health)
        self._state, self._run = self.root.at(STATE), self.root.at(RUN)
        trust_root = self.root.at(str(settings.trust_root))
        self._contents = Contents(self._state, trust_root, platform.machine(), now=now)
        self._repairs = RepairLog(self._state / "repair.json")
        self._departure = Departure(
            self.root, self._commands, self._kexec, self._contents, settings, repairs=self._repairs
        )
        self._documents: dict[str, ReleaseDocument] = {}
        self._machine: Machine | None = None
        self._lock = -1

    async def __aenter__(self) -> Self:
        await in_thread(self._open)
        try:
            await self._contents.open()
            await in_thread(self._departure.forget_load, self._boot.boot_id)
            # Each look tries again, and people are told why it fails: an agent that ends could not tell them.
            with suppress(DiskError, OSError):
                self._machine = await self._find()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._departure.keeper is not None:
            self._departure.keeper.close()
        await self._contents.close()
        os.close(self._lock)

    async def look(self) -> Sight:
        """The machine at this instant. Raises DiskError, OSError; the next look begins anew then."""
        if self._machine is None:
            self._machine = await self._find()
        return await in_thread(self._look, self._machine)

    async def note_api_answer(self) -> None:
        """Remember it until the next boot."""
        (self._run / API_ANSWERED).touch()

    async def write_journal(self, journal: Journal) -> None:
        """Replace the journal."""
        await in_thread(save_journal, self._state / "journal.json", journal)

    async def invalidate(self, slot: SlotName) -> None:
        """Drop the slot's record, then make it P0 T0 S0. Raises StageError if another updater runs."""

        def change() -> None:
            machine = self._require_alone()
            require_unused(self.root, machine[slot])
            self._contents.forget(slot)
            self._departure.loader(machine).give_up(slot)
            self._change(machine, lambda slots: invalidate(slots, slot, booted=machine.booted))

        await in_thread(change)

    async def admit(self, image: StageImage) -> None:
        """See that the release is trusted and fits this machine, and that no other updater runs. Raises StageError."""
        machine = await in_thread(self._require_alone)
        with ExitStack() as stack:
            booted = await in_thread(stack.enter_context, open_for_reading(self.root, machine, machine.booted))
            await self._contents.admit(image, self._describe_booted(machine, booted), machine[image.slot].size)

    async def stage(self, image: StageImage, on_progress: Callable[[Moved], None]) -> None:
        """Make the slot hold the release and record it. Raises StageError, DiskError, OSError."""
        machine = await in_thread(self._require_alone)
        room = machine[image.slot].size
        with ExitStack() as stack:
            booted = await in_thread(stack.enter_context, open_for_reading(self.root, machine, machine.booted))
            admitted = await self._contents.admit(image, self._describe_booted(machine, booted), room)
            target = await in_thread(stack.enter_context, open_for_writing(self.root, machine, image.slot))
            await self._contents.stage(image, admitted, target, booted, on_progress)

    async def verify(self, check: VerifySlot) -> bool:
        """Read back what the slot holds and keep the record in step; whether it is the release asked for."""
        machine = await in_thread(find_machine, self.root)
        with ExitStack() as stack:
            slot = await in_thread(stack.enter_context, open_for_reading(self.root, machine, check.slot))
            booted = await in_thread(stack.enter_context, open_for_reading(self.root, machine, machine.booted))
            return await self._contents.verify(check, slot, self._describe_booted(machine, booted))

    async def arm(self, slot: SlotName, method: Method) -> None:
        """Give the passive slot its one boot. Raises KexecRefusedError, StageError, DiskError, OSError."""

        def change() -> None:
            machine = self._require_alone()
            require_unused(self.root, machine[slot])
            self._departure.arm(machine, slot, method)

        await in_thread(change)

    async def disarm(self, slot: SlotName) -> None:
        """Take the passive slot's boot away, and the loaded kernel."""

        def change() -> None:
            machine = find_machine(self.root)
            self._kexec.unload()
            attributes = read_slots(machine.disk)[slot].attributes
            if not attributes.successful and slot is not machine.booted:
                self._departure.loader(machine).give_up(slot)
            self._change(machine, lambda slots: disarm(slots, slot, booted=machine.booted))

        await in_thread(change)

    async def mark_good(self, slot: SlotName) -> None:
        """Mark the booted slot good, above the other, and let go of what would have reset the trial."""

        def change() -> None:
            machine = find_machine(self.root)
            self._departure.commit(machine, slot)
            self._change(machine, lambda slots: commit(slots, slot, booted=machine.booted))

        await in_thread(change)
        self._end_trial()

    async def abandon(self, slot: SlotName) -> None:
        """Give up the booted slot."""

        def change() -> None:
            machine = find_machine(self.root)
            if read_slots(machine.disk)[slot.other].attributes.good:
                self._departure.loader(machine).give_up(slot)
            self._change(machine, lambda slots: abandon(slots, slot))

        await in_thread(change)

    async def repair_table(self) -> None:
        """Bring both copies of the partition table in step, and remember what was wrong."""

        def change() -> None:
            self._repairs.note(repair(find_machine(self.root).disk))

        await in_thread(change)

    async def prepare_reset(self) -> None:
        """Leave the marker for the next boot's initramfs."""
        await in_thread(prepare_reset, self.root.path)

    async def drop_reset(self) -> None:
        """Take it away."""
        await in_thread(drop_reset, self.root.path)

    async def request_reboot(self, method: Method, slot: SlotName) -> None:
        """Have systemd reboot. Raises RebootError if it will surely not come."""
        try:
            await in_thread(self._departure.request, method, slot)
        except RebootError:
            # Not in the thread: a timer that can't be stopped is fed by this loop from now on.
            with suppress(OSError):
                self._departure.call_off()
            raise

    def _change(self, machine: Machine, change: Callable[[Slots], Slots]) -> None:
        self._repairs.note(change_slots(machine.disk, change).repaired)

    def _describe_booted(self, machine: Machine, slot: Source) -> Booted:
        product = read_os_release(self.root).get("IMAGE_ID")
        root_hash = find_word(self.root.read("/proc/cmdline") or "", "careen.usrhash")
        return Booted(machine.booted, slot, self._boot.version, product, root_hash)

    def _open(self) -> None:
        self._state.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._run.mkdir(parents=True, exist_ok=True, mode=0o755)
        self._lock = os.open(self._state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            release_left(self._run)
            self._boot = read_boot(self.root)
            self._reset = find_reset(self.root, self._state / "panics.json", self._boot.boot_id)
            self._times = note_times(self._run / TIMES, self._boot)
            self._started = read_uptime()
        except BlockingIOError:
            os.close(self._lock)
            raise OSError(f"{self._state} is in use by another agent; allowed: one agent a machine") from None
        except BaseException:
            os.close(self._lock)
            raise

    async def _find(self) -> Machine:
        """The machine's disk; with it known, what a boot begins with. Raises DiskError, OSError."""
        machine = await in_thread(find_machine, self.root)
        # In this loop: it may have to feed a timer from now on.
        self._begin_boot(machine)
        return machine

    def _begin_boot(self, machine: Machine) -> None:
        """Take the watchdog over if this boot began as a trial, and let go of it if that is over."""
        slots = read_slots(machine.disk)
        logger.info(
            "booted %s by %s, boot %s; kernel started %s, agent %s",
            machine.booted, self._boot.method, self._boot.boot_id, self._times.kernel, self._times.agent,
        )  # fmt: skip
        watchdog = find_watchdog(self.root)
        if watchdog is not None and self._departure.keeper is None:
            self._departure.keeper = WatchdogKeeper(self.root, self._commands, watchdog)
            if find_word(self.root.read("/proc/cmdline") or "", ORDER_WORD) is not None:
                try:
                    self._departure.keeper.take_over(self.settings.watchdog_seconds)
                except WatchdogError as error:
                    # It may end the trial, which is better than an agent that does not start.
                    logger.error("the watchdog can't be taken over: %s", error)
        if slots[machine.booted].attributes.good:
            self._end_trial()

    def _end_trial(self) -> None:
        # The image's timer waits for this file.
        (self._run / COMMITTED).touch()
        relax(self.root)
        if self._departure.keeper is not None:
            self._departure.keeper.hand_back()

    def _require_alone(self) -> Machine:
        if conflict := find_conflict(self.root):
            raise StageError("Refused", conflict)
        return find_machine(self.root)

    def _look(self, machine: Machine) -> Sight:
        table, known = inspect_slots(machine.disk), self._contents.look()
        journal, boot = load_journal(self._state / "journal.json"), self._boot
        trial = not table.slots[machine.booted].attributes.good
        if trial:
            self._show_life()
        # systemd is asked for its state only while somebody decides by it.
        judged = trial or bool(journal and journal.open and journal.open.from_boot_id != boot.boot_id)
        return Sight(
            disk=DiskView(
                machine.booted,
                self._show(machine, table.slots.a, known[SlotName.A]),
                self._show(machine, table.slots.b, known[SlotName.B]),
                table.faults,
                self._repairs.last,
            ),
            boot=BootView(boot.boot_id, boot.machine_id, boot.method, self._reset, read_uptime()),
            facts=self._read_facts(machine.booted, journal, known[machine.booted.other].record),
            journal=journal,
            api_answered=(self._run / API_ANSWERED).exists(),
            unhealthy=self._health.check() if judged else None,
            reset_prepared=is_prepared(self.root.path),
        )

    def _read_facts(self, booted: SlotName, journal: Journal | None, passive: SlotRecord | None) -> HostFacts:
        lasts = self._departure.find_lasting() is not None
        found = read_platform(self.root, watchdog=lasts)
        known = load_experience(self._state / "kexec.json")
        learned = learn(known, journal, booted, self._boot.boot_id)
        if learned != known:
            logger.warning("about kexec the machine has learned: %s", learned)
            try:
                save_experience(self._state / "kexec.json", learned)
            except OSError as error:
                # Only a guess is lost with it. The machine must be seen all the same.
                logger.warning("that is not remembered: %s", error)
        preflight = Preflight(self.settings.kexec, self.settings.denied_vendors)
        staged = self._describe_staged(passive, learned.blamed)
        return HostFacts(
            architecture=platform.machine(),
            os_image=self._boot.os_image,
            kernel=read_kernel(),
            agent_version=__version__,
            kexec=is_possible(found, preflight),
            boot_decision=decide(found, preflight, staged),
            kernel_started=self._times.kernel,
            agent_started=self._times.agent,
            kexec_suspect=learned.suspect,
            watchdog=lasts,
            trial_timer=staged.trial_timer,
        )

    def _describe_staged(self, record: SlotRecord | None, blamed: str | None) -> Staged:
        document = self._find_document(record.digest) if record else None
        image = document.images.get(platform.machine()) if document else None
        if document is None or image is None:
            return Staged(blamed=blamed)
        files = (image.kernel, image.initrd) if image.kernel else ()
        size = sum(file.length for file in files if file is not None)
        return Staged(size, TRIAL_TIMER in document.capabilities, blamed)

    def _find_document(self, digest: str) -> ReleaseDocument | None:
        """A document in the state folder, read once: it is looked at with every step."""
        if digest not in self._documents:
            document = self._contents.find_document(digest)
            self._documents = {digest: document} if document else {}
        return self._documents.get(digest)

    def _show(self, machine: Machine, slot: Slot, known: Known) -> SlotView:
        record, version = known.record, self._boot.version if slot.name is machine.booted else None
        if record is None and version is None:
            version = self._contents.read_claim(slot.name, lambda: open_for_reading(self.root, machine, slot.name))
        return SlotView(
            partition=slot.partition,
            capacity=slot.size,
            attributes=slot.attributes,
            digest=record.digest if record else None,
            version=record.version if record else version,
            checked=known.checked,
            refuted=known.refuted,
        )

    def _show_life(self) -> None:
        """Tell the image's timer that an agent decides over the trial. One that crashes again and again does not."""
        now = read_uptime()
        if now - self._started < STEADY_SECONDS:
            return
        fresh = self._run / f"{ALIVE}.new"
        # Where there is no room for it, the trial goes on to be judged until the timer ends it.
        with suppress(OSError):
            fresh.write_text(f"{int(now)}\n")
            fresh.replace(self._run / ALIVE)
