"""A disk that gives EIO and ENOSPC at chosen bytes: always a clean error that names one, never a lost table."""

from __future__ import annotations

import errno
import multiprocessing
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from careen.disk.block import BlockFile
from careen.disk.boot import boot
from careen.disk.image import MIB, create_image
from careen.disk.slots import Slots
from careen.disk.table import change_slots, open_table, read_slots, repair
from careen.disk.types import Attributes, DiskBusyError, DiskIoError, SlotName

LAST = 10239
PLACES = {"primary header": 1, "primary entries": 2, "backup entries": LAST - 32, "backup header": LAST}
OLD, NEW = Attributes(0, 0, False), Attributes(2, 1, False)


@dataclass
class Faults:
    """Sectors at which the kernel's calls fail, as under QEMU's blkdebug."""

    reads: set[int] = field(default_factory=set)
    writes: dict[int, int] = field(default_factory=dict)
    flush: int | None = None
    flushes: int = 0


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    create_image(path, usr_bytes=MIB, root_bytes=MIB)
    return path


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Nothing fails until a test fills it."""
    state = Faults()
    pread, preadv, pwrite, fsync = os.pread, os.preadv, os.pwrite, os.fsync

    def check(sectors: set[int], offset: int, length: int, number: int) -> None:
        if any(offset < (sector + 1) * 512 and sector * 512 < offset + length for sector in sectors):
            raise OSError(number, os.strerror(number))

    def read(fd: int, length: int, offset: int) -> bytes:
        check(state.reads, offset, length, errno.EIO)
        return pread(fd, length, offset)

    def read_into(fd: int, buffers: list[memoryview], offset: int) -> int:
        check(state.reads, offset, sum(len(buffer) for buffer in buffers), errno.EIO)
        return preadv(fd, buffers, offset)

    def write(fd: int, data: memoryview, offset: int) -> int:
        for sector, number in state.writes.items():
            check({sector}, offset, len(data), number)
        return pwrite(fd, data, offset)

    def flush(fd: int) -> None:
        state.flushes += 1
        if state.flush == state.flushes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(fd)

    for name, call in (("pread", read), ("preadv", read_into), ("pwrite", write), ("fsync", flush)):
        monkeypatch.setattr(os, name, call)
    return state


def raise_b(slots: Slots) -> Slots:
    return slots.with_attributes(SlotName.B, NEW)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("place", list(PLACES))
def test_a_write_error_names_the_byte_and_leaves_the_old_state_or_the_new(
    image: Path, faults: Faults, place: str, number: int
) -> None:
    faults.writes = {PLACES[place]: number}
    with pytest.raises(DiskIoError) as caught:
        change_slots(image, raise_b)
    assert str(caught.value) == f"writing {image} at byte {PLACES[place] * 512}: {os.strerror(number)}"
    faults.writes = {}
    state = read_slots(image).b.attributes
    # With the new entries in place but not their header, the primary is no longer valid and the backup is new.
    assert state == (NEW if place == "primary header" else OLD)
    repair(image)
    assert read_slots(image).b.attributes == state
    assert change_slots(image, raise_b).after.b.attributes == NEW


@pytest.mark.parametrize(
    ("flush", "says", "state"),
    [
        (1, f"after writing the backup entries at byte {PLACES['backup entries'] * 512}, the backup header at", OLD),
        (2, "after writing the primary entries at byte 1024, the primary header at byte 512", NEW),
    ],
)
def test_a_failed_flush_ends_the_change_and_says_what_may_be_lost(
    image: Path, faults: Faults, flush: int, says: str, state: Attributes
) -> None:
    faults.flush = flush
    with pytest.raises(DiskIoError) as caught:
        change_slots(image, raise_b)
    assert f"flushing {image}: Input/output error" in str(caught.value)
    assert says in str(caught.value)
    assert read_slots(image).b.attributes == state


def test_after_a_failed_flush_the_disk_counts_and_not_the_page_cache(
    image: Path, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux keeps what it could not write in its page cache, as if it were on the disk, until that is dropped."""
    sound = image.read_bytes()

    def drop(fd: int, offset: int, length: int, advice: int) -> None:
        if faults.flushes == faults.flush:
            image.write_bytes(sound)

    monkeypatch.setattr(os, "posix_fadvise", drop)
    faults.flush = 2
    with pytest.raises(DiskIoError, match="after writing the primary entries"):
        change_slots(image, raise_b)
    assert read_slots(image).b.attributes == OLD


@pytest.mark.parametrize("place", list(PLACES))
def test_a_copy_that_cannot_be_read_counts_as_damaged(image: Path, faults: Faults, place: str) -> None:
    change_slots(image, raise_b)
    faults.reads = {PLACES[place]}
    with open_table(image) as opened:
        assert opened.table.source == ("backup" if "primary" in place else "primary")
        (fault,) = opened.table.faults
    copy = place.split()[0]
    assert fault.startswith(f"the {copy} copy is not valid: reading {image} at byte {PLACES[place] * 512}: ")
    assert read_slots(image).b.attributes == NEW


def test_a_sector_that_heals_when_it_is_written_is_repaired(
    image: Path, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Disks put a spare in the place of a bad sector at the next write."""
    change_slots(image, raise_b)
    sound = image.read_bytes()
    faults.reads = {1}
    write = BlockFile.write

    def heal(self: BlockFile, offset: int, data: bytes) -> None:
        write(self, offset, data)
        faults.reads -= {offset // 512}

    monkeypatch.setattr(BlockFile, "write", heal)
    assert "Input/output error" in repair(image)[0]
    assert repair(image) == ()
    assert image.read_bytes() == sound


def test_a_sector_that_stays_bad_is_a_clean_error_and_the_other_copy_stays(image: Path, faults: Faults) -> None:
    before = image.read_bytes()
    faults.reads = {PLACES["backup entries"]}
    with pytest.raises(DiskIoError, match=rf"reading .* at byte {PLACES['backup entries'] * 512}: Input/output error"):
        change_slots(image, raise_b)
    assert image.read_bytes() == before


@pytest.mark.parametrize("sectors", [{1, LAST}, {2, LAST - 32}])
def test_two_unreadable_copies_are_an_io_error_that_names_both(image: Path, faults: Faults, sectors: set[int]) -> None:
    before = image.read_bytes()
    faults.reads = sectors
    for call in (read_slots, repair, boot, lambda path: change_slots(path, raise_b)):
        with pytest.raises(DiskIoError) as caught:
            call(image)
        for sector in sectors:
            assert f"at byte {sector * 512}: Input/output error" in str(caught.value)
    faults.reads = set()
    assert image.read_bytes() == before


def test_a_read_back_that_fails_stops_before_the_primary(
    image: Path, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = image.read_bytes()
    sync = BlockFile.sync

    def break_then(self: BlockFile) -> None:
        sync(self)
        faults.reads = {LAST}

    monkeypatch.setattr(BlockFile, "sync", break_then)
    with pytest.raises(DiskIoError, match=f"reading {image} at byte {LAST * 512}"):
        change_slots(image, raise_b)
    faults.reads = set()
    assert image.read_bytes()[: LAST * 512 - MIB] == before[: LAST * 512 - MIB]
    assert read_slots(image).b.attributes == OLD


def test_a_disk_that_takes_no_byte_and_gives_no_error_does_not_hang(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: 0)
    with pytest.raises(DiskIoError, match=f"at byte {(LAST - 32) * 512}: the disk takes no more"):
        change_slots(image, raise_b)


def test_a_try_is_flushed_before_the_firmware_goes_on(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change_slots(image, raise_b)
    trace: list[str] = []
    write, sync = BlockFile.write, BlockFile.sync

    def spy_write(self: BlockFile, offset: int, data: bytes) -> None:
        trace.append(next(name for name, sector in PLACES.items() if sector == offset // 512))
        write(self, offset, data)

    def spy_sync(self: BlockFile) -> None:
        trace.append("flush")
        sync(self)

    monkeypatch.setattr(BlockFile, "write", spy_write)
    monkeypatch.setattr(BlockFile, "sync", spy_sync)
    booted = boot(image)
    assert booted is not None
    assert booted.attributes == replace(NEW, tries=0)
    assert trace == ["backup entries", "backup header", "flush", "primary entries", "primary header", "flush"]
    trace.clear()
    booted = boot(image)
    assert booted is not None
    assert (booted.name, trace) == (SlotName.A, [])


def count_down(image: Path, name: SlotName, times: int) -> None:
    """Lower one slot's priority by one, again and again, waiting for the lock."""

    def lower(slots: Slots) -> Slots:
        attributes = slots[name].attributes
        return slots.with_attributes(name, replace(attributes, priority=attributes.priority - 1))

    for _ in range(times):
        change_slots(image, lower, wait_seconds=30)


def test_writers_in_several_processes_lose_no_change(image: Path) -> None:
    top = Attributes(15, 0, True)
    change_slots(image, lambda slots: slots.with_attributes(SlotName.A, top).with_attributes(SlotName.B, top))
    context = multiprocessing.get_context("fork")
    work = [(SlotName.A, 7), (SlotName.A, 7), (SlotName.B, 6), (SlotName.B, 7)]
    children = [context.Process(target=count_down, args=(image, name, times)) for name, times in work]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    slots = read_slots(image)
    assert (slots.a.attributes.priority, slots.b.attributes.priority) == (1, 2)
    with open_table(image) as opened:
        assert opened.table.faults == ()


def test_a_second_writer_is_told_that_the_disk_is_busy(image: Path) -> None:
    before = image.read_bytes()
    with open_table(image, writable=True):
        for call in (repair, boot, lambda path, wait_seconds: change_slots(path, raise_b, wait_seconds=wait_seconds)):
            with pytest.raises(DiskBusyError, match="is locked by another process"):
                call(image, wait_seconds=0)
    assert image.read_bytes() == before
