"""A disk that fails: blocks that change after they were verified, errors on reads and writes, a table that is lost."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from careen.disk.table import read_slots
from careen.disk.types import SlotName
from testos.image import OsImage
from testos.machine import BlockFault
from testos.site import Site

from .conftest import BOOT_SECONDS, COMMIT_SECONDS, ENDED, NAME, STAGE_SECONDS, Scene, image, start, wait_up

A, B = SlotName.A, SlotName.B
SECTOR = 512
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
    site.ask_for("2")
    machine.console.wait_for(r"RequestReboot\(", STAGE_SECONDS)
    flip(machine.disk, read_slots(machine.disk).b.start + find_bytes(image("2"), READ_BY_THE_BOOT))
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
    wait_up(machine, "2", B, "kexec")
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
    wait_up(machine, "2", B, "kexec")
    status = site.wait_phase(NAME, ENDED, "2", COMMIT_SECONDS)
    scene.note("the new system", str(status["step"]))
    assert (status["step"]["phase"], status["booted"]) == ("Committed", "B"), status
    assert status["step"].get("progress", {}).get("bytesFetched", 1) > 0
