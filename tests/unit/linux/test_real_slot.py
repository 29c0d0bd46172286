"""On a real block device: a slot that is mounted is refused by the kernel, and boot files come out of a real ext4."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from careen.agent.linux.bootfiles import BootFileError, copy_boot_files, mounted
from careen.agent.linux.devices import Device
from careen.agent.linux.host import LinuxHost
from careen.agent.linux.partition import SlotBusyError, _opened
from careen.agent.linux.root import Root
from careen.release.manifest import BootFile, Image, StaticFile
from careen.release.verity import count_tree_bytes
from linux_hosts import settings
from linux_machines import FakeMachine

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/loop-control").exists() or shutil.which("mkfs.ext4") is None,
    reason="needs root, loop devices and mkfs.ext4",
)

KERNEL = b"kernel" * 10000
BLOCKS = 1024


@pytest.fixture
def slot(tmp_path: Path) -> Iterator[Path]:
    """A loop device that holds an ext4 file system with a kernel."""
    tree = tmp_path / "tree"
    (tree / "boot").mkdir(parents=True)
    (tree / "boot" / "vmlinuz").write_bytes(KERNEL)
    image = tmp_path / "slot.img"
    with image.open("wb") as file:
        file.truncate(BLOCKS * 4096 + (1 << 20))
    subprocess.run(["mkfs.ext4", "-q", "-F", "-b", "4096", "-d", tree, image, str(BLOCKS)], check=True)
    made = subprocess.run(["losetup", "-f", "--show", image], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"no loop device: {made.stderr.strip()}")
    device = Path(made.stdout.strip())
    try:
        yield device
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


def image(data: bytes = KERNEL) -> Image:
    static = StaticFile(path="files/x", length=1, sha256="00" * 32)
    return Image(
        filesystem="ext4",
        size=BLOCKS * 4096 + count_tree_bytes(BLOCKS),
        sha256="00" * 32,
        data_blocks=BLOCKS,
        verity_root="00" * 32,
        kernel=BootFile(path="boot/vmlinuz", length=len(data), sha256=hashlib.sha256(data).hexdigest()),
        tree=static,
        table=static,
        frames=static,
    )


def describe(path: Path) -> Device:
    number = path.stat().st_rdev
    size = int(Path(f"/sys/class/block/{path.name}/size").read_text()) * 512
    return Device(path.name, f"{os.major(number)}:{os.minor(number)}", None, None, 0, size, None)


def test_boot_files_come_out_checked_and_the_slot_stays_as_it_was(slot: Path, tmp_path: Path) -> None:
    before = slot.read_bytes()
    files = copy_boot_files(slot, image(), tmp_path / "out")
    assert (files.kernel.read_bytes(), files.initrd) == (KERNEL, None)
    assert slot.read_bytes() == before
    with pytest.raises(BootFileError, match="boot/vmlinuz has 60000 bytes"):
        copy_boot_files(slot, image(KERNEL[:-1] + b"!"), tmp_path / "out")


def test_a_mounted_slot_can_not_be_opened_for_writing_nor_mounted_while_it_is_open(slot: Path, tmp_path: Path) -> None:
    with (
        mounted(slot, "ext4", tmp_path / "mnt"),
        pytest.raises(SlotBusyError, match="in use"),
        _opened(Root(), describe(slot), os.O_RDWR | os.O_EXCL),
    ):
        pass
    with _opened(Root(), describe(slot), os.O_RDWR | os.O_EXCL) as opened:
        opened.write(0, b"\0" * 4096)
        opened.sync()
        assert opened.read_back(0, 4096) == b"\0" * 4096
        with pytest.raises(OSError, match="busy"), mounted(slot, "ext4", tmp_path / "mnt"):
            pass


async def test_what_a_killed_agent_left_mounted_does_not_hold_the_slot(slot: Path, machine: FakeMachine) -> None:
    place = machine.root.at("/run/careen/slot")
    program = (
        "import pathlib, sys; from careen.agent.linux.bootfiles import mounted\n"
        "with mounted(pathlib.Path(sys.argv[1]), 'ext4', pathlib.Path(sys.argv[2])): print(flush=True); input()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program, slot, place], env=environment, **pipes) as agent:  # type: ignore[call-overload]
        agent.stdout.readline()
        agent.kill()
    try:
        with pytest.raises(SlotBusyError, match="in use"), _opened(Root(), describe(slot), os.O_RDWR | os.O_EXCL):
            pass
        async with LinuxHost(settings(), root=machine.root, commands=machine.commands):
            with _opened(Root(), describe(slot), os.O_RDWR | os.O_EXCL):
                pass
    finally:
        subprocess.run(["umount", "-q", place], check=False)
