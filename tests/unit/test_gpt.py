"""The bytes of a partition table: what is believed, which bytes a change touches, what other tools say."""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
import zlib
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from careen.disk.gpt import Table, parse
from careen.disk.image import MIB, NewPartition, create_disk, create_image
from careen.disk.table import OpenTable, open_table
from careen.disk.types import (
    ROOT_TYPE,
    USR_TYPE,
    Attributes,
    UnsafeChangeError,
)
from careen.disk.writes import Plan, plan_change, plan_repair

FOREIGN_BITS = 1 << 0 | 1 << 2 | 1 << 57 | 1 << 60 | 1 << 63 | 0x00FF_F00F_F000

ALL_ATTRIBUTES = [Attributes(p, t, bool(s)) for p, t, s in product(range(16), range(16), range(2))]


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


def parse_bytes(data: bytes, sector_size: int = 512) -> Table:
    return parse(lambda offset, length: data[offset : offset + length], len(data), sector_size)


def apply_plan(data: bytes, plan: Plan) -> bytes:
    changed = bytearray(data)
    for window in plan:
        for write in window:
            changed[write.offset : write.offset + len(write.data)] = write.data
    return bytes(changed)


def patch_header(data: bytes, lba: int, **fields: Any) -> bytes:
    """Change fields of a header and make its checksum right again, as a careless tool would."""
    places = {"revision": (8, "<I"), "length": (12, "<I"), "my": (24, "<Q"), "alternate": (32, "<Q"),
              "first": (40, "<Q"), "last": (48, "<Q"), "entries": (72, "<Q"), "number": (80, "<I"),
              "size": (84, "<I"), "entries_crc": (88, "<I")}  # fmt: skip
    changed = bytearray(data)
    base = lba * 512
    for name, value in fields.items():
        offset, form = places[name]
        struct.pack_into(form, changed, base + offset, value)
    length = struct.unpack_from("<I", changed, base + 12)[0]
    struct.pack_into("<I", changed, base + 16, 0)
    struct.pack_into("<I", changed, base + 16, zlib.crc32(changed[base : base + min(length, 512)]))
    return bytes(changed)


def patch_entry(data: bytes, partition: int, first: int, last: int) -> bytes:
    """Move a partition in the primary copy, with all checksums right."""
    changed = bytearray(data)
    struct.pack_into("<QQ", changed, 1024 + (partition - 1) * 128 + 32, first, last)
    return patch_header(bytes(changed), 1, entries_crc=zlib.crc32(changed[1024 : 1024 + 128 * 128]))


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_every_attribute_value_changes_nothing_but_its_own_bits(sector_size: int) -> None:
    data = build_odd_table(128, 128, sector_size)
    data = apply_plan(data, plan_change(parse_bytes(data, sector_size), {1: FOREIGN_BITS, 3: FOREIGN_BITS}))
    for attributes in ALL_ATTRIBUTES:
        before = parse_bytes(data, sector_size)
        neighbour, slot = before.entries
        after_data = apply_plan(data, plan_change(before, {3: attributes.encode(slot.word)}))
        after = parse_bytes(after_data, sector_size)
        assert after.faults == ()
        assert after.entries == (neighbour, replace(slot, word=after.entries[1].word))
        assert after.entries[1].attributes == attributes
        assert after.entries[1].word == FOREIGN_BITS | attributes.encode(0)
        assert_only_the_attribute_word_changed(data, after_data, sector_size)
        data = after_data


def assert_only_the_attribute_word_changed(before: bytes, after: bytes, sector_size: int) -> None:
    """Equal but for the word's two top bytes and the three checksum fields, in both copies."""
    last = len(before) // sector_size - 1
    table = -(-128 * 128 // sector_size)
    expected = bytearray(before)
    for header, entries in ((1, 2), (last, last - table)):
        word = entries * sector_size + 2 * 128 + 48
        for start, end in ((16, 20), (88, 92)):
            place = slice(header * sector_size + start, header * sector_size + end)
            expected[place] = after[place]
        expected[word + 6 : word + 8] = after[word + 6 : word + 8]
    assert bytes(expected) == after


def test_sgdisk_finds_no_problems_after_changes(image: Path) -> None:
    for attributes in ALL_ATTRIBUTES:
        with open_table(image, writable=True) as opened:
            opened.set_words({4: attributes.encode(FOREIGN_BITS)})
        assert "No problems found" in sgdisk_verify(image)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"revision": 0x00020000}, "revision is 0x00020000"),
        ({"length": 91}, "header size is 91; allowed: 92 to 512"),
        ({"length": 513}, "header size is 513"),
        ({"my": 2}, "the header at LBA 1 says that it is at LBA 2"),
        ({"alternate": 1 << 40}, "the backup is said to be at LBA 1099511627776"),
        ({"alternate": 100}, "the backup is said to be at LBA 100"),
        ({"first": 9000, "last": 8999}, "usable LBAs are 9000 to 8999"),
        ({"last": 1 << 50}, "usable LBAs"),
        ({"first": 33}, "its entries are at LBA 2 to 33; allowed: 2 to 32"),
        ({"entries": 1}, "its entries are at LBA 1"),
        ({"number": 0}, "0 entries of 128 bytes"),
        ({"number": 1 << 31}, "2147483648 entries"),
        ({"size": 100}, "128 entries of 100 bytes"),
        ({"size": 8192}, "128 entries of 8192 bytes"),
        ({"entries_crc": 1}, "the checksum of its entries is wrong"),
        ({"number": 127}, "the checksum of its entries is wrong"),
    ],
)
def test_a_header_that_cannot_be_is_not_believed(image: Path, fields: dict[str, int], says: str) -> None:
    table = parse_bytes(patch_header(image.read_bytes(), 1, **fields))
    assert table.source == "backup"
    assert says in table.faults[0]


@pytest.mark.parametrize(
    ("first", "last", "says"),
    [
        (10, 2047, "partition 4 covers LBA 10 to 2047; allowed: 34 to"),
        (4096, 1 << 40, "partition 4 covers LBA 4096"),
        (5000, 4999, "partition 4 covers LBA 5000 to 4999"),
        (4095, 5000, "partitions 3 and 4 overlap at LBA 4095"),
        (2048, 4095, "overlap at LBA 2048"),
    ],
)
def test_partitions_outside_or_over_each_other_are_not_believed(image: Path, first: int, last: int, says: str) -> None:
    table = parse_bytes(patch_entry(image.read_bytes(), 4, first, last))
    assert table.source == "backup"
    assert says in table.faults[0]


@pytest.mark.parametrize("bit", [0, 7])
def test_any_flipped_bit_of_a_header_is_noticed(image: Path, bit: int) -> None:
    data = image.read_bytes()
    for at in range(512, 512 + 92):
        flipped = bytearray(data)
        flipped[at] ^= 1 << bit
        assert parse_bytes(bytes(flipped)).source == "backup", at


@pytest.mark.parametrize(
    ("number", "entry_size"), [(4, 128), (10, 128), (56, 128), (128, 256), (16, 4096), (1024, 128)]
)
@pytest.mark.parametrize("sector_size", [512, 4096])
def test_tables_of_other_shapes_work(tmp_path: Path, number: int, entry_size: int, sector_size: int) -> None:
    data = build_odd_table(number, entry_size, sector_size)
    table = parse_bytes(data, sector_size)
    assert table.faults == ()
    assert [entry.partition for entry in table.entries] == [1, 3]
    path = tmp_path / "odd.img"
    path.write_bytes(data)
    with open_table(path, writable=True, sector_size=sector_size) as opened:
        opened.set_words({3: Attributes(5, 3, True).encode(FOREIGN_BITS)})
    after = parse_bytes(path.read_bytes(), sector_size)
    assert after.faults == ()
    assert after.entries[1].attributes == Attributes(5, 3, True)
    assert after.entries[0] == table.entries[0]


def test_entries_that_lie_elsewhere_are_restored_where_they_were() -> None:
    """Some boards keep their boot loader at LBA 2, with the table behind it."""
    data = bytearray(build_odd_table(4, 128, 512))
    data[5 * 512 : 6 * 512] = data[1024:1536]
    data[1024:1536] = b"loader at LBA 2!" * 32
    last = len(data) // 512 - 1
    moved = patch_header(patch_header(bytes(data), 1, entries=5, first=8), last, first=8)
    assert parse_bytes(moved).faults == ()
    damaged = moved[: 5 * 512] + bytes(512) + moved[6 * 512 :]
    table = parse_bytes(damaged)
    assert table.source == "backup"
    assert apply_plan(damaged, plan_repair(table)) == moved


def build_odd_table(number: int, entry_size: int, sector_size: int) -> bytes:
    sectors = -(-number * entry_size // sector_size)
    total = 3 * sectors + 100
    entries = bytearray(b"\xee" * (sectors * sector_size))
    entries[: number * entry_size] = bytes(number * entry_size)
    for index, first in ((0, sectors + 10), (2, sectors + 30)):
        struct.pack_into(
            "<16s16sQQQ72s", entries, index * entry_size,
            USR_TYPE.bytes_le, UUID(int=index + 1).bytes_le, first, first + 9, 1 << 56,
            f"ÄÖ{index}".encode("utf-16-le"),
        )  # fmt: skip
    data = bytearray(total * sector_size)
    crc = zlib.crc32(entries[: number * entry_size])
    for my, other, at in ((1, total - 1, 2), (total - 1, 1, total - 1 - sectors)):
        header = struct.pack(
            "<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, my, other, sectors + 2, total - sectors - 2,
            bytes(range(16)), at, number, entry_size, crc,
        )  # fmt: skip
        header = header[:16] + struct.pack("<I", zlib.crc32(header)) + header[20:]
        data[my * sector_size : my * sector_size + 92] = header
        data[at * sector_size : (at + sectors) * sector_size] = entries
    return bytes(data)


def test_bytes_we_do_not_know_survive(image: Path) -> None:
    """A longer header with reserved bytes in use, and bytes behind it in its sector."""
    data = bytearray(image.read_bytes())
    last = len(data) // 512 - 1
    for lba in (1, last):
        data[lba * 512 + 92 : lba * 512 + 512] = random.Random(lba).randbytes(420)
    odd = patch_header(patch_header(bytes(data), 1, length=120), last, length=120)
    image.write_bytes(odd)
    with open_table(image, writable=True) as opened:
        assert opened.set_words({4: 1 << 56}) == ()
    after = image.read_bytes()
    assert parse_bytes(after).faults == ()
    for lba in (1, last):
        assert after[lba * 512 + 92 : lba * 512 + 512] == odd[lba * 512 + 92 : lba * 512 + 512]


def test_a_change_without_a_repair_is_refused(image: Path) -> None:
    data = image.read_bytes()
    broken = data[:512] + bytes(512) + data[1024:]
    half = apply_plan(data, plan_change(parse_bytes(data), {4: 1})[:1])
    grown = data + bytes(512)
    for damaged in (broken, half, grown):
        with pytest.raises(UnsafeChangeError, match="must be repaired before"):
            plan_change(parse_bytes(damaged), {4: 1})


def test_twelve_partitions_in_odd_order_are_read(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    parts = tuple(NewPartition(n, ROOT_TYPE, UUID(int=n), f"P{n}ä", MIB) for n in (12, 3, 128, 1))
    create_disk(path, parts, sector_size=512, disk_guid=UUID(int=99))
    with open_table(path) as opened:
        assert isinstance(opened, OpenTable)
        assert [(entry.partition, entry.label) for entry in opened.table.entries] == [
            (1, "P1ä"), (3, "P3ä"), (12, "P12ä"), (128, "P128ä"),
        ]  # fmt: skip
        assert opened.table.disk_guid == UUID(int=99)
    assert "No problems found" in sgdisk_verify(path)
