"""Power cuts inside a table write: whatever part of a flush window reached the disk, the old or the new table is there.

Between two flushes a disk may write what it was given in any order, each 512-byte sector whole or, on worse disks,
cut in its middle. The pieces of a window do not overlap, so what is on the disk after any prefix of any order is
the state in which some subset of the pieces has arrived: all subsets are all orders.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from careen.disk.gpt import Table, parse
from careen.disk.image import MIB, create_image
from careen.disk.types import Attributes, GptInvalidError
from careen.disk.writes import Plan, Window, plan_change, plan_repair

OLD = {3: Attributes(2, 0, True), 4: Attributes(1, 0, True), 9: Attributes(0, 0, False)}
NEW = {3: Attributes(1, 0, True), 4: Attributes(2, 1, False), 9: Attributes(0, 0, False)}
Piece = tuple[int, bytes]


class Disk:
    """A disk in memory: its 512-byte pieces that are not zero, by number."""

    def __init__(self, pieces: dict[int, bytes], size: int, sector_size: int) -> None:
        self.content = pieces
        self.size = size
        self.sector_size = sector_size

    @classmethod
    def load(cls, data: bytes, sector_size: int) -> Disk:
        pieces = {at // 512: data[at : at + 512] for at in range(0, len(data), 512)}
        return cls({at: piece for at, piece in pieces.items() if any(piece)}, len(data), sector_size)

    def read(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self.size - offset))
        first = offset // 512
        whole = b"".join(self.content.get(at, bytes(512)) for at in range(first, (offset + length + 511) // 512))
        return whole[offset - first * 512 :][:length]

    @property
    def table(self) -> Table:
        return parse(self.read, self.size, self.sector_size)

    def grown(self, sectors: int) -> Disk:
        return Disk(self.content, self.size + sectors * self.sector_size, self.sector_size)

    def with_pieces(self, pieces: tuple[Piece, ...]) -> Disk:
        """The same disk with these bytes written; each begins on a piece but may end within one."""
        content = dict(self.content)
        for offset, data in pieces:
            for at in range(0, len(data), 512):
                number = (offset + at) // 512
                part = data[at : at + 512]
                content[number] = part + content.get(number, bytes(512))[len(part) :]
        return Disk(content, self.size, self.sector_size)

    def with_window(self, window: Window) -> Disk:
        return self.with_pieces(tuple((write.offset, write.data) for write in window))

    def pieces(self, window: Window) -> list[Piece]:
        """The 512-byte pieces of a window that differ from what is on the disk; the others cannot matter."""
        return [
            (write.offset + at, write.data[at : at + 512])
            for write in window
            for at in range(0, len(write.data), 512)
            if self.read(write.offset + at, 512) != write.data[at : at + 512]
        ]

    @property
    def attributes(self) -> dict[int, Attributes]:
        return {entry.partition: entry.attributes for entry in self.table.entries}

    def change(self, wanted: dict[int, Attributes]) -> Plan:
        words = {entry.partition: wanted[entry.partition].encode(entry.word) for entry in self.table.entries}
        return plan_change(self.table, words)


@pytest.fixture(scope="module", params=[512, 4096])
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Disk:
    path: Path = tmp_path_factory.mktemp("disk") / "disk.img"
    size = request.param
    create_image(
        path, usr_bytes=MIB, root_bytes=MIB, sector_size=size, attributes_a=OLD[3], attributes_b=OLD[4]
    )  # fmt: skip
    return Disk.load(path.read_bytes(), size)


def subsets(pieces: list[Piece]) -> Iterator[tuple[Piece, ...]]:
    for count in range(len(pieces) + 1):
        yield from combinations(pieces, count)


def crashes(start: Disk, plan: Plan) -> Iterator[Disk]:
    """Every state in which a power cut may leave the disk."""
    for window in plan:
        for arrived in subsets(start.pieces(window)):
            yield start.with_pieces(arrived)
        start = start.with_window(window)


def repaired(disk: Disk) -> Disk:
    for _ in range(4):
        plan = plan_repair(disk.table)
        if not plan:
            return disk
        for window in plan:
            disk = disk.with_window(window)
    raise AssertionError(f"not sound after four steps: {disk.table.faults}")


def test_every_crash_of_a_change_leaves_the_old_or_the_new_state(sound: Disk) -> None:
    seen = set()
    for crashed in crashes(sound, sound.change(NEW)):
        state = crashed.attributes
        assert state in (OLD, NEW)
        after = repaired(crashed)
        assert after.attributes == state
        assert after.table.faults == ()
        assert after.table.disk_guid == sound.table.disk_guid
        seen.add(state == NEW)
    assert seen == {False, True}


def test_every_crash_of_the_repair_after_every_crash_is_harmless_too(sound: Disk) -> None:
    for crashed in crashes(sound, sound.change(NEW)):
        state = crashed.attributes
        for again in crashes(crashed, plan_repair(crashed.table)):
            assert again.attributes == state
            assert repaired(again).attributes == state


def test_the_change_is_done_again_after_every_crash(sound: Disk) -> None:
    for crashed in crashes(sound, sound.change(NEW)):
        ready = repaired(crashed)
        for window in ready.change(NEW):
            ready = ready.with_window(window)
        assert ready.attributes == NEW
        assert ready.table.faults == ()


def test_many_changed_sectors_are_as_safe(sound: Disk) -> None:
    """Partitions 3 and 9 lie in different entry sectors of 512 bytes."""
    wanted = NEW | {9: Attributes(15, 15, True)}
    states = [crashed.attributes for crashed in crashes(sound, sound.change(wanted))]
    assert all(state in (OLD, wanted) for state in states)
    assert len(states) >= 8


@settings(max_examples=600, deadline=None)
@given(cuts=st.lists(st.integers(0, 4096), min_size=4, max_size=4), window=st.integers(0, 1))
def test_writes_that_are_cut_in_the_middle_of_a_sector(sound: Disk, cuts: list[int], window: int) -> None:
    plan = sound.change(NEW)
    start = sound.with_window(plan[0]) if window else sound
    torn = tuple(
        (write.offset, write.data[:cut]) for write, cut in zip(plan[window], cuts[: len(plan[window])], strict=True)
    )
    crashed = start.with_pieces(torn)
    assert crashed.attributes in (OLD, NEW)
    assert repaired(crashed).attributes == crashed.attributes


DAMAGES = ["primary header", "primary entries", "backup header", "backup entries", "copies differ"]


def damage(disk: Disk, kind: str) -> Disk:
    size = disk.sector_size
    last = disk.table.geometry.last_lba
    if kind == "copies differ":
        return disk.with_window(disk.change(NEW)[0])
    header = disk.table.winner.header
    entries = last - header.table_bytes // size
    lba = {"primary header": 1, "primary entries": 2, "backup header": last, "backup entries": entries}[kind]
    return disk.with_pieces(((lba * size, random.Random(kind).randbytes(512)),))


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(DAMAGES),
    grown=st.sampled_from([0, 1, 7, 40, 3000]),
    data=st.data(),
)
def test_a_repair_that_is_cut_anywhere_loses_nothing(sound: Disk, kind: str, grown: int, data: st.DataObject) -> None:
    """Whole tables are rewritten here, so subsets are drawn instead of counted; growth moves the backup."""
    if grown and kind.startswith("primary header"):
        grown = 0  # With the primary header gone, nothing says where the backup of a grown disk is.
    start = damage(sound, kind).grown(grown)
    state = start.attributes
    assert start.table.faults
    disk = start
    for _ in range(3):
        plan = plan_repair(disk.table)
        for window in plan:
            pieces = disk.pieces(window)
            for _ in range(4):
                arrived = tuple(piece for piece in pieces if data.draw(st.booleans()))
                crashed = disk.with_pieces(arrived)
                assert crashed.attributes == state
                assert repaired(crashed).attributes == state
            disk = disk.with_window(window)
    assert disk.table.faults == ()
    assert disk.attributes == state


def test_the_header_first_order_of_other_tools_would_fail_here(sound: Disk) -> None:
    """The test's own proof: an order known to be unsafe has a moment at which neither copy is valid."""
    backup, primary = sound.change(NEW)
    unsafe: Plan = ((primary[-1],), (backup[-1],), primary[:-1], backup[:-1])
    states = crashes(sound, unsafe)
    with pytest.raises(GptInvalidError, match="neither copy"):
        assert [crashed.attributes for crashed in states]
