"""A table on a disk: the order of writes, the lock, read-back, repair, refusals, and writers that are killed."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from careen.disk.block import BlockFile
from careen.disk.image import MIB, create_image
from careen.disk.slots import Slots
from careen.disk.table import change_slots, open_table, read_slots, repair
from careen.disk.types import (
    Attributes,
    DiskBusyError,
    DiskError,
    GptInvalidError,
    ReadBackError,
    SlotName,
    UnsafeChangeError,
)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    create_image(path, usr_bytes=MIB, root_bytes=MIB)
    return path


def sgdisk_verify(path: Path) -> str:
    """What `sgdisk -v` says; a machine without it fails the test instead of skipping it."""
    program = shutil.which("sgdisk", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if program is None:
        pytest.fail("sgdisk is not installed: install the package gdisk (apt-get install gdisk)")
    return subprocess.run([program, "-v", str(path)], capture_output=True, text=True, check=True, timeout=30).stdout


def test_writes_go_backup_first_and_a_flush_ends_each_half(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace: list[str] = []
    last = image.stat().st_size // 512 - 1
    names = {last - 32: "E2", last: "H2", 2: "E1", 1: "H1"}
    monkeypatch.setattr(
        BlockFile, "write", lambda self, offset, data: trace.append(f"{names[offset // 512]}:{len(data)}")
    )
    monkeypatch.setattr(BlockFile, "sync", lambda self: trace.append("fsync"))
    monkeypatch.setattr(BlockFile, "read_back", lambda self, offset, length: Always())
    change_slots(image, lambda slots: slots.with_attributes(SlotName.B, Attributes(2, 1, False)))
    assert trace == ["E2:512", "H2:512", "fsync", "E1:512", "H1:512", "fsync"]


class Always:
    """Equal to all bytes."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


def test_the_mbr_is_never_written(image: Path) -> None:
    hybrid = random.Random(7).randbytes(510) + b"\x55\xaa"
    with image.open("r+b") as file:
        file.write(hybrid)
        file.seek(512)
        file.write(bytes(512))
    assert repair(image) != ()
    change_slots(image, lambda slots: slots.with_attributes(SlotName.B, Attributes(2, 1, False)))
    assert image.read_bytes()[:512] == hybrid


def test_a_change_that_is_already_there_writes_nothing(image: Path) -> None:
    before = image.stat().st_mtime_ns
    change_slots(image, lambda slots: slots)
    assert image.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("damage", "source", "says"),
    [
        ("primary header", "backup", "the primary copy is not valid: no GPT signature"),
        ("primary entries", "backup", "the primary copy is not valid: the checksum of its entries"),
        ("backup header", "primary", "the backup copy is not valid: no GPT signature"),
        ("backup entries", "primary", "the backup copy is not valid: the checksum of its entries"),
    ],
)
def test_a_damaged_copy_is_reported_and_repaired(image: Path, damage: str, source: str, says: str) -> None:
    sound = image.read_bytes()
    last = len(sound) // 512 - 1
    lba = {"primary header": 1, "primary entries": 2, "backup header": last, "backup entries": last - 32}[damage]
    with image.open("r+b") as file:
        file.seek(lba * 512)
        file.write(bytes(range(256)) * 2)
    with open_table(image) as opened:
        assert opened.table.source == source
        assert says in opened.table.faults[0]
    assert says in repair(image)[0]
    assert image.read_bytes() == sound
    assert repair(image) == ()


def test_when_the_copies_differ_the_primary_counts(image: Path) -> None:
    old = image.read_bytes()
    change_slots(image, lambda slots: slots.with_attributes(SlotName.B, Attributes(2, 1, False)))
    new = image.read_bytes()
    half = new[:17408] + old[17408:]
    image.write_bytes(half)
    assert read_slots(image).b.attributes == Attributes(2, 1, False)
    assert repair(image) == ("the copies differ; the primary counts",)
    assert image.read_bytes() == new


def test_a_change_repairs_first_and_says_so(image: Path) -> None:
    with image.open("r+b") as file:
        file.seek(512)
        file.write(bytes(512))
    change = change_slots(image, lambda slots: slots.with_attributes(SlotName.B, Attributes(2, 1, False)))
    assert "the primary copy is not valid" in change.repaired[0]
    assert change.before.b.attributes == Attributes(0, 0, False)
    assert change.after.b.attributes == Attributes(2, 1, False)
    assert "No problems found" in sgdisk_verify(image)


@pytest.mark.parametrize("grown_by", [512, 8 * 512, 33 * 512, 5 * MIB])
def test_a_grown_disk_gets_its_backup_moved_to_the_end(image: Path, grown_by: int) -> None:
    size = image.stat().st_size
    os.truncate(image, size + grown_by)
    with open_table(image) as opened:
        assert "the disk has grown" in opened.table.faults[0]
        entries = opened.table.entries
    assert "the disk has grown" in repair(image)[0]
    with open_table(image) as opened:
        assert opened.table.faults == ()
        assert opened.table.entries == entries
        assert opened.table.backup is not None
        assert opened.table.backup.header.my_lba == (size + grown_by) // 512 - 1
    # sgdisk also reads the MBR, which still has the old size: that is a note for it and no problem.
    assert "No problems found" in sgdisk_verify(image)


def test_a_grown_disk_whose_primary_entries_are_lost_keeps_its_partitions(image: Path) -> None:
    with open_table(image) as opened:
        entries = opened.table.entries
    os.truncate(image, image.stat().st_size + 3 * 512)
    with image.open("r+b") as file:
        file.seek(1024)
        file.write(bytes(1024))
    assert len(repair(image)) == 2
    with open_table(image) as opened:
        assert opened.table.entries == entries
        assert opened.table.faults == ()
    assert "No problems found" in sgdisk_verify(image)


def test_without_a_valid_copy_everything_is_refused_and_no_byte_changes(image: Path) -> None:
    last = image.stat().st_size // 512 - 1
    with image.open("r+b") as file:
        for lba in (1, last):
            file.seek(lba * 512 + 60)
            file.write(b"\xff")
    before = image.read_bytes()
    for mutate in (repair, lambda path: change_slots(path, lambda slots: slots)):
        with pytest.raises(GptInvalidError, match=r"primary: the checksum of its header.*backup: the checksum"):
            mutate(image)
    assert image.read_bytes() == before


def test_a_change_of_a_partition_that_is_not_there_is_refused(image: Path) -> None:
    before = image.read_bytes()
    with open_table(image, writable=True) as opened, pytest.raises(UnsafeChangeError, match=r"no partition \[5\]"):
        opened.set_words({5: 1})
    assert image.read_bytes() == before


def test_a_second_writer_gets_busy_and_readers_share(image: Path) -> None:
    with open_table(image):
        assert read_slots(image, wait_seconds=0).a.partition == 3
        with pytest.raises(DiskBusyError, match=r"locked by another process, for more than 0\.05 s"):
            change_slots(image, lambda slots: slots, wait_seconds=0.05)
    with open_table(image, writable=True), pytest.raises(DiskBusyError):
        read_slots(image, wait_seconds=0)
    assert change_slots(image, lambda slots: slots, wait_seconds=0).repaired == ()


def test_a_writer_waits_for_the_lock_until_its_deadline(image: Path) -> None:
    fd = os.open(image, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(change_slots, image, raise_b, wait_seconds=5)
        time.sleep(0.1)
        assert not waiting.done()
        os.close(fd)
        assert waiting.result(timeout=5).after.b.attributes == Attributes(2, 1, False)


def raise_b(slots: Slots) -> Slots:
    return slots.with_attributes(SlotName.B, Attributes(2, 1, False))


def test_a_lost_write_is_noticed_before_the_primary_is_touched(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = image.read_bytes()
    monkeypatch.setattr(BlockFile, "write", lambda self, offset, data: None)
    with pytest.raises(ReadBackError, match=r"backup entries at byte .* read back other than written"):
        change_slots(image, raise_b)
    assert image.read_bytes() == before
    monkeypatch.undo()
    kept: list[int] = []
    write = BlockFile.write

    def lose_headers(self: BlockFile, offset: int, data: bytes) -> None:
        kept.append(offset)
        write(self, offset, bytes(len(data)) if data[:8] == b"EFI PART" else data)

    monkeypatch.setattr(BlockFile, "write", lose_headers)
    with pytest.raises(ReadBackError, match="backup header"):
        change_slots(image, raise_b)
    assert all(offset > MIB for offset in kept), "the primary was written after a failed read-back"
    assert read_slots(image).b.attributes == Attributes(0, 0, False)


def test_read_back_does_not_come_from_the_page_cache_alone(image: Path) -> None:
    with BlockFile.open(image, writable=True) as block:
        block.write(5000, b"careen")
        block.sync()
        assert block.read_back(5000, 6) == b"careen"
        assert block.read_back(0, block.size) == image.read_bytes()


@pytest.mark.parametrize("swapped", [False, True])
def test_sigkill_at_any_moment_leaves_a_legal_state(image: Path, swapped: bool) -> None:
    """A writer that moves both slots at once is killed again and again: never a mix, never neither."""
    states = [
        (Attributes(2, 0, True), Attributes(1, 0, True)),
        (Attributes(1, 0, True), Attributes(2, 1, False)),
    ]
    if swapped:
        states.reverse()
    change_slots(image, lambda slots: set_both(slots, states[0]))
    dice = random.Random(42)
    seen = set()
    for _ in range(25):
        child = multiprocessing.get_context("fork").Process(target=write_for_ever, args=(image, states))
        child.start()
        time.sleep(0.01 + dice.random() * 0.03)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join(5)
        slots = read_slots(image, wait_seconds=0)
        state = (slots.a.attributes, slots.b.attributes)
        assert state in states
        seen.add(state)
        repair(image)
        after = read_slots(image)
        assert (after.a.attributes, after.b.attributes) == state
    assert len(seen) == 2, "the writer never got anywhere"
    assert "No problems found" in sgdisk_verify(image)


def set_both(slots: Slots, state: tuple[Attributes, Attributes]) -> Slots:
    return slots.with_attributes(SlotName.A, state[0]).with_attributes(SlotName.B, state[1])


def write_for_ever(image: Path, states: list[tuple[Attributes, Attributes]]) -> None:
    while True:
        for state in reversed(states):
            change_slots(image, lambda slots, state=state: set_both(slots, state))  # type: ignore[misc]


@pytest.mark.parametrize("sector_size", [512, 4096])
@pytest.mark.parametrize("lost", [None, "primary", "backup"])
def test_the_sector_size_of_a_file_is_found(tmp_path: Path, sector_size: int, lost: str | None) -> None:
    path = tmp_path / "disk.img"
    create_image(path, usr_bytes=MIB, root_bytes=MIB, sector_size=sector_size)
    with path.open("r+b") as file:
        if lost:
            file.seek(sector_size if lost == "primary" else path.stat().st_size - sector_size)
            file.write(bytes(sector_size))
    with open_table(path) as opened:
        assert opened.table.geometry.sector_size == sector_size
        assert len(opened.table.entries) == 3


def test_what_is_no_disk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="is not a disk"):
        read_slots(tmp_path)
    empty = tmp_path / "empty"
    empty.touch()
    for size in (0, 511, 1024, 40000):
        os.truncate(empty, size)
        with pytest.raises(GptInvalidError):
            read_slots(empty)
