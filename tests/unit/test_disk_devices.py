"""The same on block devices: the kernel's word on size and sectors, reads past the page cache, the lock."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from careen.cli.disk import app
from careen.disk.image import MIB, create_image
from careen.disk.slots import Slots
from careen.disk.table import change_slots, open_table, read_slots
from careen.disk.types import Attributes, SlotName

Attach = Callable[[int], tuple[Path, Path]]


@pytest.fixture
def attach(tmp_path: Path) -> Iterator[Attach]:
    """Make an image and put a loop device of that sector size over it; both paths."""
    attached: list[str] = []

    def run(sector_size: int) -> tuple[Path, Path]:
        image = tmp_path / f"{sector_size}.img"
        create_image(image, usr_bytes=MIB, root_bytes=MIB, sector_size=sector_size)
        command = ["losetup", "-b", str(sector_size), "-f", "--show", str(image)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
        except FileNotFoundError:
            pytest.skip("losetup is not installed")
        if done.returncode:
            pytest.skip(f"no loop devices here: {done.stderr.strip()}")
        attached.append(done.stdout.strip())
        return Path(attached[-1]), image

    if os.geteuid():
        pytest.skip("loop devices need root")
    yield run
    for device in attached:
        subprocess.run(["losetup", "-d", device], check=True, timeout=10)


def raise_b(slots: Slots) -> Slots:
    return slots.with_attributes(SlotName.B, Attributes(2, 1, False))


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_a_block_device_is_changed_as_a_file_is(attach: Attach, sector_size: int) -> None:
    device, image = attach(sector_size)
    with open_table(device) as opened:
        assert opened.block.sector_size == sector_size
        assert opened.block.size == image.stat().st_size
    assert change_slots(device, raise_b).after.b.attributes == Attributes(2, 1, False)
    assert read_slots(image).b.attributes == Attributes(2, 1, False)
    runner = CliRunner()
    assert runner.invoke(app, ["next", "-l", str(device)]).output == "USR-B\n"
    assert runner.invoke(app, ["prioritize", "-i", "3", str(device)]).exit_code == 0
    assert runner.invoke(app, ["verify", str(device)]).output == "no problems found\n"
    assert runner.invoke(app, ["next", "-l", str(device)]).output == "USR-A\n"


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_a_device_that_has_grown_is_repaired(attach: Attach, sector_size: int) -> None:
    device, image = attach(sector_size)
    os.truncate(image, image.stat().st_size + MIB)
    subprocess.run(["losetup", "-c", str(device)], check=True, timeout=10)
    result = CliRunner().invoke(app, ["repair", str(device)])
    assert result.exit_code == 0
    assert "moved the backup copy from LBA" in result.output
    with open_table(image) as opened:
        assert opened.table.faults == ()
        assert opened.table.geometry.sectors == image.stat().st_size // sector_size


def test_a_device_that_cannot_be_written_is_one_sentence(attach: Attach) -> None:
    device, image = attach(512)
    before = image.read_bytes()
    subprocess.run(["blockdev", "--setro", str(device)], check=True, timeout=10)
    result = CliRunner().invoke(app, ["prioritize", "-i", "4", str(device)])
    assert result.exit_code == 1
    assert str(device) in result.output
    assert "Operation not permitted" in result.output or "Read-only" in result.output
    assert CliRunner().invoke(app, ["prioritize", "-i", "4", str(device), "--dry-run"]).exit_code == 0
    subprocess.run(["blockdev", "--setrw", str(device)], check=True, timeout=10)
    assert image.read_bytes() == before
