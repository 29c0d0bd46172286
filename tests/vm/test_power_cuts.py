"""Power cuts at every step of an update: the machine comes up on a whole system, says why, and the update goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from careen.disk.table import open_table, read_slots
from careen.disk.types import SlotName
from testos.machine import BlockFault, Machine, MachineOptions
from testos.site import Site

from .conftest import BOOT_SECONDS, COMMIT_SECONDS, NAME, STAGE_SECONDS, Scene, image, start

SECTOR = 512
STEP_SECONDS = STAGE_SECONDS + BOOT_SECONDS
SAY_SECONDS = COMMIT_SECONDS
OLD, NEW = "old", "new"
# In their order, with the sector that tells them apart; from the disk's end if it is negative. The primary's header and
# first entries lie in one page, so they are one write.
_GPT_WRITES = {"the backup's entries": -33, "the backup's header": -1, "the primary": 1}


@dataclass(frozen=True)
class Moment:
    """When the power goes, and what may come of it."""

    name: str
    line: str
    """What the console says just then."""
    says: str
    """What the agent's status says in the next boot."""
    systems: tuple[str, ...] = (OLD,)
    """Which systems may run then."""
    pause: float = 0.0
    """Seconds from the line to the cut."""
    gpt_write: str | None = None
    """The write to the partition table, one of _GPT_WRITES, at which it goes: this one never reaches the disk."""
    trial: bool = False
    """Whether the new system's one boot is lost by it: a second loss would count as its failure."""


_STAGES = r"WriteStatus .*'phase': '(Staging|Staged|Activating)'|StageImage|VerifySlot|RequestActivation"
_INTERRUPTED = r"WriteStatus .*'phase': 'RolledBack'.*'cause': 'Interrupted'"
_LOST = r"WriteStatus .*'phase': 'RolledBack'.*'cause': 'TrialLost'"
_COMMITTED = r"WriteStatus .*'phase': 'Committed'"
_EITHER = f"{_INTERRUPTED}|{_COMMITTED}"
# In a machine's first boot nothing proves that the journal was there all the time.
_UNRECORDED = rf"{_INTERRUPTED}|WriteStatus .*'phase': 'RolledBack'.*'cause': 'JournalLost'|{_STAGES}"
_BOTH = (OLD, NEW)


def _gpt_writes(where: str, line: str, says: str, systems: tuple[str, ...]) -> list[Moment]:
    return [Moment(f"{where}: GPT, at {write}", line, says, systems, gpt_write=write) for write in _GPT_WRITES]


MOMENTS = [
    Moment("staging: begun", r"StageImage\(", _STAGES),
    Moment("staging: first blocks", r"staging \d: of \d+ blocks", _STAGES),
    Moment("staging: all written", r"all is written, and is read back", _STAGES),
    Moment("staged, not recorded", r"staged \d: ", _STAGES),
    Moment("staged, not activated", r"WriteStatus .*'phase': 'Staged'", _STAGES),
    Moment("between verify and arm: asked the API server", r"RequestActivation ", _UNRECORDED),
    Moment("between verify and arm: the journal's intent", r"WriteJournal Armed", _UNRECORDED),
    Moment("arming: the kernel is loaded", r"ArmSlot\(", _INTERRUPTED),
    *_gpt_writes("arming", r"ArmSlot\(", _INTERRUPTED, (OLD,)),
    Moment("armed, not requested", r"WriteJournal Requested", f"{_INTERRUPTED}|{_LOST}", trial=True),
    Moment("committing: the verdict is written", r"WriteJournal \S+ COMMIT", f"{_LOST}|{_EITHER}", _BOTH, trial=True),
    Moment("requested, kexec not begun", r"RequestReboot\(", _LOST, trial=True),
    Moment("committing: between verdict and GPT", r"MarkGood\(", _EITHER, _BOTH),
    # In a trial nothing else writes the table: the disk may be spoiled long before the commit.
    *_gpt_writes("committing", r"OS up", _EITHER, _BOTH),
    Moment("shutting down for the kexec", r"Shutting down\.|Failed to finalize", _LOST, trial=True),
    Moment("committed, journal still open", r"WriteJournal closed", r"WriteStatus ", (NEW,)),
    Moment("in the new kernel", r"Failed to finalize", _LOST, pause=8.0, trial=True),
    Moment("committed, nobody told", _COMMITTED, r"WriteStatus ", (NEW,)),
    Moment("in the new initramfs", r"INITRD .*started", _LOST, trial=True),
    Moment("in the new system, before the agent", r"INITRD switching to slot", _LOST, trial=True),
    Moment("the new system is up, not judged", r"OS up", _LOST, trial=True),
    Moment("on trial, reported", r"WriteStatus .*'phase': 'Verifying'", _LOST, trial=True),
]


class Life:
    """A machine that goes from one release to the next, and through a power cut at each moment on the way."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.running, self.slot = "1", SlotName.A
        self._wanted = ""
        self._lost = False

    @property
    def machine(self) -> Machine:
        """The machine, which is on."""
        return self.site[NAME]

    def want_update(self, moment: Moment) -> None:
        """See that an update is under way, of a release that has lost no trial yet if this moment costs one."""
        if self._wanted and not (moment.trial and self._lost):
            return
        self._wanted = next(version for version in ("2", "3", "1") if version not in (self._wanted, self.running))
        self._lost = False
        release = {"repository": self.site.repository, "version": self._wanted, "allowDowngrade": True}
        # A loss by kexec would make the next boot one through the firmware, which has other legal ends.
        self.site.ask_for(self._wanted, release=release, boot={"method": "Kexec"})

    def cut_at(self, moment: Moment) -> None:
        """Wait for the moment, and cut the power."""
        self.machine.console.wait_for(moment.line, STEP_SECONDS)
        if moment.gpt_write is not None:
            self.machine.spoil(BlockFault("write", sector=self._find_sector(moment.gpt_write)))
            self._wait_stopped()
        time.sleep(moment.pause)
        self.machine.cut_power()

    def come_back(self, moment: Moment) -> tuple[str, str]:
        """Switch it on; which system runs now, and what its agent says of it."""
        self.machine.start()
        up = self.machine.console.wait_for(r"OS up", BOOT_SECONDS).text
        slot = SlotName(dict(word.split("=", 1) for word in up.split() if "=" in word)["slot"])
        system = OLD if slot is self.slot else NEW
        said = self.machine.console.wait_for(moment.says, SAY_SECONDS).text
        if system == NEW:
            status = self.site.wait_phase(NAME, ("Committed",), self._wanted, SAY_SECONDS)
            self.running, self.slot, self._wanted, self._lost = self._wanted, slot, "", False
            said = f"{status['step']}"
        self._lost = self._lost or "TrialLost" in said or "JournalLost" in said
        return system, said

    def check_disk(self) -> None:
        """Any reset must boot the system that runs now: it is good, both copies of the table tell so."""
        with open_table(self.machine.disk) as opened:
            assert not opened.table.faults, opened.table.faults
        slots = read_slots(self.machine.disk)
        assert slots[self.slot].attributes.good, slots
        other = slots[self.slot.other].attributes
        assert not other.bootable or other.priority < slots[self.slot].attributes.priority, slots

    def _find_sector(self, write: str) -> int:
        return _GPT_WRITES[write] % (self.machine.disk.stat().st_size // SECTOR)

    def _wait_stopped(self) -> None:
        deadline = time.monotonic() + BOOT_SECONDS
        while not self.machine.stopped:
            assert time.monotonic() < deadline, f"nothing was written there\n{self.machine.console.tail()}"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def lives() -> Iterator[list[Life]]:
    """The life that goes on from test to test; a test that fails ends it, and the next one begins another."""
    kept: list[Life] = []
    yield kept
    for life in kept:
        life.site.__exit__(None, None, None)


@pytest.fixture
def life(lives: list[Life]) -> Life:
    """A machine that is on, its agent has reported."""
    if not lives:
        site = Site()
        site.__enter__()
        lives.append(Life(site))
        for version in ("1", "2", "3"):
            site.publish(image(version))
        start(site, options=MachineOptions(stop_on_fault=True))
    return lives[0]


@pytest.mark.parametrize("moment", MOMENTS, ids=[moment.name for moment in MOMENTS])
def test_a_power_cut(moment: Moment, life: Life, lives: list[Life], scene: Scene) -> None:
    scene.expect(f"power cut, {moment.name}", f"the {' or the '.join(moment.systems)} system")
    lives.remove(life)
    try:
        life.want_update(moment)
        life.cut_at(moment)
        system, said = life.come_back(moment)
        scene.note(f"the {system} system", said)
        assert system in moment.systems, said
        life.check_disk()
    except BaseException:
        life.site.__exit__(None, None, None)
        raise
    lives.append(life)
