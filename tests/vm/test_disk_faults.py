"""A disk that fails: blocks that change after they were verified, errors in a slot, the table and the journal."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from careen.disk.table import open_table, read_slots
from careen.disk.types import SlotName
from testos.image import OsImage
from testos.machine import BlockFault, Machine
from testos.site import Site

from .conftest import (
    BOOT_SECONDS,
    COMMIT_SECONDS,
    ENDED,
    NAME,
    STAGE_AND_BOOT_SECONDS,
    STAGE_SECONDS,
    Scene,
    image,
    start,
    wait_up,
)

A, B = SlotName.A, SlotName.B
SECTOR = 512
BACKUP, PRIMARY = -33, 1
"""Sectors of the partition table, from the disk's end if they are negative: the backup's first one, the primary's."""
READ_BY_THE_BOOT = rb"systemd\.unified_cgroup_hierarchy"
"""Bytes of a program that every boot reads."""
READ_BY_NOBODY = rb"class TurtleScreenBase\(object\)"
"""Bytes of a file that no boot reads."""


def find_bytes(two: OsImage, pattern: bytes) -> int:
    """Offset in an image."""
    found = re.search(pattern, two.image.read_bytes())
    assert found is not None
    return found.start()


def flip(disk: Path, offset: int) -> None:
    """Flip a bit."""
    with disk.open("r+b") as opened:
        opened.seek(offset)
        (byte,) = opened.read(1)
        opened.seek(offset)
        opened.write(bytes([byte ^ 1]))


def test_a_block_that_changes_after_it_was_verified(site: Site, scene: Scene) -> None:
    scene.expect("a block of the new system changes after verification", "the old system, cause Panic")
    start(site)
    machine = site[NAME]
    place = read_slots(machine.disk).b.start + find_bytes(image("2"), READ_BY_THE_BOOT)
    site.ask_for("2")
    machine.console.wait_for(r"RequestReboot\(", STAGE_SECONDS)
    flip(machine.disk, place)
    machine.console.wait_for("dm-verity.*corrupted", BOOT_SECONDS)
    wait_up(machine, "1", A, "firmware")
    said = machine.console.wait_for(r"WriteStatus .*'phase': 'RolledBack'", COMMIT_SECONDS)
    scene.note("the old system", said.text)
    assert "'cause': 'Panic'" in said.text
    status = site.wait_phase(NAME, ENDED, "2", COMMIT_SECONDS)
    assert [found["cause"] for found in status["rejected"]] == ["Panic"], status
    site.wait_condition("Halted", COMMIT_SECONDS)


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
def test_a_slot_that_can_not_be_written_is_not_armed(site: Site, scene: Scene, error: int) -> None:
    name = errno.errorcode[error]
    scene.expect(f"write {name} in the passive slot", "the old system, error class Disk; goes on with a good disk")
    start(site)
    machine = site[NAME]
    bad = read_slots(machine.disk).b.start + find_bytes(image("2"), READ_BY_NOBODY)
    machine.spoil(BlockFault("write", sector=bad // SECTOR, error=error))
    site.ask_for("2")
    status = site.wait_phase(NAME, ("Failed", "Committed", "RolledBack"), "2", STAGE_SECONDS)
    assert status["step"]["error"]["class"] == "Disk", status
    slots = read_slots(machine.disk)
    assert (str(slots.a.attributes), str(slots.b.attributes)) == ("P1 T0 S1", "P0 T0 S0")
    machine.cut_power()
    machine.start()
    wait_up(machine, "1", A, "firmware")
    wait_up(machine, "2", B, "kexec", STAGE_AND_BOOT_SECONDS)
    scene.note(
        "the old system, then the new one on a good disk", f"error class Disk: {status['step']['error']['message']}"
    )


def test_a_booted_slot_that_can_not_be_read_is_fetched_instead(site: Site, scene: Scene) -> None:
    scene.expect("read EIO in the booted slot", "the new system: the block is fetched")
    start(site)
    machine = site[NAME]
    bad = read_slots(machine.disk).a.start + find_bytes(image("1"), READ_BY_NOBODY)
    machine.spoil(BlockFault("read", sector=bad // SECTOR))
    site.ask_for("2")
    wait_up(machine, "2", B, "kexec", STAGE_AND_BOOT_SECONDS)
    status = site.wait_phase(NAME, ENDED, "2", COMMIT_SECONDS)
    scene.note("the new system", str(status["step"]))
    assert (status["step"]["phase"], status["booted"]) == ("Committed", "B"), status


@pytest.mark.parametrize(
    ("operation", "sector", "error"),
    [
        pytest.param("write", BACKUP, errno.EIO, id="write-EIO-backup"),
        pytest.param("write", BACKUP, errno.ENOSPC, id="write-ENOSPC-backup"),
        pytest.param("write", PRIMARY, errno.EIO, id="write-EIO-primary"),
        pytest.param("write", PRIMARY, errno.ENOSPC, id="write-ENOSPC-primary"),
        pytest.param("read", BACKUP, errno.EIO, id="read-EIO-backup"),
    ],
)
def test_a_table_that_can_not_be_changed_arms_nothing(
    site: Site, scene: Scene, operation: str, sector: int, error: int
) -> None:
    copy = "the primary" if sector == PRIMARY else "the backup"
    what = f"{operation} {errno.errorcode[error]} in {copy} of the GPT"
    scene.expect(f"{what}, while arming", "the old system, phase Failed, error class Disk")
    start(site)
    machine = site[NAME]
    spoilt = sector % (machine.disk.stat().st_size // SECTOR)
    machine.spoil(BlockFault(operation, sector=spoilt, error=error))
    site.ask_for("2")
    status = site.wait_phase(NAME, ENDED, "2", STAGE_AND_BOOT_SECONDS)
    assert (status["step"]["phase"], status["step"]["error"]["class"], status["booted"]) == ("Failed", "Disk", "A")
    site.wait_condition("Halted", COMMIT_SECONDS)
    expect_unarmed(machine)
    # A good disk in its place: the table is whole, and the boot the same.
    machine.cut_power()
    machine.start()
    wait_up(machine, "1", A, "firmware")
    site.wait_boot(NAME, status["bootID"], COMMIT_SECONDS)
    expect_unarmed(machine)
    with open_table(machine.disk) as opened:
        assert opened.table.faults == ()
    scene.note("the old system", f"error class Disk: {status['step']['error']['message']}")


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
def test_a_journal_that_can_not_be_written_for_once_is_written_again(site: Site, scene: Scene, error: int) -> None:
    scene.expect(f"write {errno.errorcode[error]} in the agent's journal, once", "the new system")
    machine = stage_and_hold(site)
    machine.spoil(BlockFault("write", error=error, once=True))
    site.ask_for("2", paused=False)
    said = machine.console.wait_for(r"WriteJournal for \S+ failed: Disk: ", STAGE_SECONDS)
    then = machine.console.wait_for(
        r"failed: Disk: .*Read-only file system|OS up: version=2 slot=B boot=kexec", BOOT_SECONDS
    )
    if "Read-only" in then.text:
        # ext4's own journal was hit, as its timer has it: such a file system takes no write until a reset.
        machine.cut_power()
        machine.start()
        wait_up(machine, "1", A, "firmware")
        wait_up(machine, "2", B, "kexec", STAGE_AND_BOOT_SECONDS)
    status = site.wait_phase(NAME, ("Committed",), "2", COMMIT_SECONDS)
    assert status["booted"] == "B", status
    assert str(read_slots(machine.disk).b.attributes) == "P2 T0 S1"
    scene.note("the new system", said.text.partition("failed: ")[2])


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
def test_without_a_journal_nothing_is_armed(site: Site, scene: Scene, error: int) -> None:
    name = errno.errorcode[error]
    scene.expect(f"write {name} everywhere, from the journal on", "the old system, error class Disk; then the new one")
    machine = stage_and_hold(site)
    machine.spoil(BlockFault("write", error=error))
    site.ask_for("2", paused=False)
    status = site.wait_error(NAME, "Disk", STAGE_SECONDS)
    assert (status["step"]["phase"], status["booted"]) == ("Activating", "A"), status
    assert machine.running
    expect_unarmed(machine)
    machine.cut_power()
    machine.start()
    wait_up(machine, "1", A, "firmware")
    machine.console.wait_for(
        r"WriteStatus .*'phase': 'RolledBack'.*'cause': '(Interrupted|JournalLost)'", COMMIT_SECONDS
    )
    wait_up(machine, "2", B, "kexec", STAGE_AND_BOOT_SECONDS)
    scene.note(
        "the old system, then the new one on a good disk", f"error class Disk: {status['step']['error']['message']}"
    )


def expect_unarmed(machine: Machine) -> None:
    """Any reset boots the old system, and nothing but that."""
    slots = read_slots(machine.disk)
    assert (str(slots.a.attributes), str(slots.b.attributes)) == ("P1 T0 S1", "P0 T0 S0")


def stage_and_hold(site: Site) -> Machine:
    """A machine with 2 in its passive slot, which must not be activated yet, and nothing left to write."""
    machine = start(site)
    site.ask_for("2")
    site.wait_progress(NAME, STAGE_SECONDS)
    site.ask_for("2", paused=True)
    site.wait_phase(NAME, ("Staged",), "2", STAGE_SECONDS)
    # The next write on this disk is then the agent's own, of its journal.
    machine.shell.run("sleep 10; sync")
    return machine
