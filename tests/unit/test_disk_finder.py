"""Finding the machine's disk when nobody has named one."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from careen.disk.finder import find_disk
from careen.disk.image import MIB, NewPartition, create_disk, create_image
from careen.disk.table import open_table
from careen.disk.types import ROOT_TYPE, AmbiguousSlotsError, DiskBusyError, DiskError


class Machine:
    """A sysfs and a /dev of plain files."""

    def __init__(self, folder: Path) -> None:
        self.sysfs, self.devices = folder / "sys", folder / "dev"
        self.sysfs.mkdir()
        self.devices.mkdir()

    def add(self, name: str, write: Callable[[Path], None], sectors: int = 100) -> Path:
        (self.sysfs / name).mkdir()
        (self.sysfs / name / "size").write_text(f"{sectors}\n")
        node = self.devices / name.replace("!", "/")
        node.parent.mkdir(exist_ok=True)
        write(node)
        return node

    def find(self, wait_seconds: float = 0) -> Path:
        return find_disk(sysfs=self.sysfs, devices=self.devices, wait_seconds=wait_seconds)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def write_slots(path: Path) -> None:
    create_image(path, usr_bytes=MIB, root_bytes=MIB)


def write_other(path: Path) -> None:
    part = NewPartition(1, ROOT_TYPE, UUID(int=1), "data", MIB)
    create_disk(path, (part,), sector_size=512, disk_guid=UUID(int=2))


def write_nothing(path: Path) -> None:
    path.write_bytes(bytes(MIB))


@pytest.mark.parametrize("name", ["sda", "vda", "nvme0n1", "mmcblk0", "cciss!c0d0"])
def test_the_one_disk_with_slots_is_found(machine: Machine, name: str) -> None:
    machine.add("sdx", write_other)
    machine.add("sdy", write_nothing)
    expected = machine.add(name, write_slots)
    assert machine.find() == expected


def test_two_disks_with_slots_are_refused(machine: Machine) -> None:
    first, second = machine.add("sda", write_slots), machine.add("sdb", write_slots)
    with pytest.raises(AmbiguousSlotsError) as caught:
        machine.find()
    assert str(caught.value) == f"more than one disk holds slots: {first}, {second}; allowed: name the disk meant"


def test_without_one_it_says_what_was_looked_at(machine: Machine) -> None:
    with pytest.raises(AmbiguousSlotsError, match="no disks in"):
        machine.find()
    other, empty = machine.add("sda", write_other), machine.add("sdb", write_nothing)
    with pytest.raises(AmbiguousSlotsError) as caught:
        machine.find()
    assert f"{other} (no partition has the slots' type)" in str(caught.value)
    assert f"{empty} (neither copy of the partition table is valid)" in str(caught.value)


@pytest.mark.parametrize("name", ["loop0", "ram1", "zram0", "sr0", "dm-0", "md127"])
def test_what_no_firmware_boots_from_is_not_looked_at(machine: Machine, name: str) -> None:
    machine.add(name, write_slots)
    expected = machine.add("vda", write_slots)
    assert machine.find() == expected


def test_a_drive_without_a_medium_is_not_opened(machine: Machine) -> None:
    machine.add("sda", lambda path: None, sectors=0)
    expected = machine.add("sdb", write_slots)
    assert machine.find() == expected


def test_a_disk_that_is_gone_or_unreadable_is_passed_over_and_named(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = machine.add("sda", lambda path: None)
    broken = machine.add("sdb", write_slots)
    fail_reads_of(broken, monkeypatch)
    with pytest.raises(AmbiguousSlotsError) as caught:
        machine.find()
    assert f"{gone} (No such file or directory)" in str(caught.value)
    assert f"{broken} (neither copy of the partition table is valid)" in str(caught.value)
    expected = machine.add("sdc", write_slots)
    assert machine.find() == expected


def fail_reads_of(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inode, read = path.stat().st_ino, os.pread

    def fail(fd: int, length: int, offset: int) -> bytes:
        if os.fstat(fd).st_ino == inode:
            raise OSError(errno.EIO, "Input/output error")
        return read(fd, length, offset)

    monkeypatch.setattr(os, "pread", fail)


def test_a_busy_disk_might_be_a_second_one(machine: Machine) -> None:
    machine.add("sda", write_slots)
    busy = machine.add("sdb", write_other)
    with open_table(busy, writable=True), pytest.raises(DiskBusyError, match="sdb is locked by another process"):
        machine.find()


def test_without_the_right_to_read_it_says_so(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = machine.add("sda", write_slots)

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(disk))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(DiskError, match=f"no right to read {disk}; run it as root"):
        machine.find()
