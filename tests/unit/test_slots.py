"""Finding the slots, and every change of their attributes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from uuid import UUID

import pytest

from careen.disk.boot import choose
from careen.disk.image import MIB, NewPartition, create_disk
from careen.disk.slots import (
    Slots,
    abandon,
    arm_firmware,
    arm_kexec,
    commit,
    disarm,
    invalidate,
    prioritize,
    prioritize_all,
)
from careen.disk.table import read_slots
from careen.disk.types import (
    ROOT_TYPE,
    USR_TYPE,
    AmbiguousSlotsError,
    Attributes,
    Entry,
    Slot,
    SlotName,
    UnsafeChangeError,
)

A, B = SlotName.A, SlotName.B
VALUES = [Attributes(p, t, s) for p, t, s in product((0, 1, 2, 3, 15), (0, 1, 15), (False, True))]


def make(a: tuple[int, int, int], b: tuple[int, int, int]) -> Slots:
    def slot(name: SlotName, partition: int, values: tuple[int, int, int]) -> Slot:
        word = Attributes(values[0], values[1], bool(values[2])).encode(1 << 60)
        return Slot(name, Entry(partition, USR_TYPE, name.guid, name.label, 0, 1, word, 512))

    return Slots(a=slot(A, 3, a), b=slot(B, 4, b))


def shape(slots: Slots) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    def values(attributes: Attributes) -> tuple[int, int, int]:
        return attributes.priority, attributes.tries, int(attributes.successful)

    return values(slots.a.attributes), values(slots.b.attributes)


@pytest.mark.parametrize(
    ("change", "before", "after"),
    [
        (lambda s: invalidate(s, B, booted=A), [(1, 0, 1), (2, 0, 1)], [(1, 0, 1), (0, 0, 0)]),
        (lambda s: invalidate(s, A, booted=B), [(15, 15, 1), (1, 0, 1)], [(0, 0, 0), (1, 0, 1)]),
        (lambda s: arm_kexec(s, B, booted=A), [(1, 0, 1), (0, 0, 0)], [(1, 0, 1), (2, 0, 0)]),
        (lambda s: arm_kexec(s, B, booted=A), [(2, 0, 1), (0, 0, 0)], [(1, 0, 1), (2, 0, 0)]),
        (lambda s: arm_kexec(s, B, booted=A), [(1, 0, 1), (2, 0, 0)], [(1, 0, 1), (2, 0, 0)]),
        (lambda s: arm_kexec(s, A, booted=B), [(1, 0, 1), (15, 3, 1)], [(2, 0, 0), (1, 3, 1)]),
        (lambda s: arm_firmware(s, B, booted=A), [(2, 0, 1), (0, 0, 0)], [(1, 0, 1), (2, 1, 0)]),
        (lambda s: arm_firmware(s, A, booted=B), [(0, 0, 0), (1, 0, 1)], [(2, 1, 0), (1, 0, 1)]),
        (lambda s: disarm(s, B, booted=A), [(1, 0, 1), (2, 1, 0)], [(1, 0, 1), (0, 0, 0)]),
        (lambda s: disarm(s, B, booted=A), [(1, 0, 1), (2, 0, 1)], [(1, 0, 1), (2, 0, 1)]),
        (lambda s: disarm(s, B, booted=A), [(1, 1, 0), (0, 0, 0)], [(1, 1, 0), (0, 0, 0)]),
        (lambda s: abandon(s, B), [(1, 1, 0), (0, 0, 0)], [(1, 1, 0), (0, 0, 0)]),
        (lambda s: abandon(s, B), [(1, 0, 1), (2, 0, 0)], [(1, 0, 1), (0, 0, 0)]),
        (lambda s: abandon(s, A), [(2, 0, 1), (1, 0, 1)], [(0, 0, 0), (1, 0, 1)]),
        (lambda s: commit(s, B, booted=B), [(1, 0, 1), (2, 0, 0)], [(1, 0, 1), (2, 0, 1)]),
        (lambda s: commit(s, B, booted=B), [(1, 0, 1), (2, 3, 0)], [(1, 0, 1), (2, 0, 1)]),
        (lambda s: commit(s, B, booted=B), [(2, 0, 1), (1, 1, 0)], [(1, 0, 1), (2, 0, 1)]),
        (lambda s: commit(s, A, booted=A), [(7, 0, 0), (0, 0, 0)], [(1, 0, 1), (0, 0, 0)]),
        (lambda s: prioritize(s, A), [(0, 2, 0), (0, 1, 1)], [(1, 2, 0), (0, 1, 1)]),
    ],
)
def test_changes(
    change: Callable[[Slots], Slots], before: list[tuple[int, int, int]], after: list[tuple[int, int, int]]
) -> None:
    result = change(make(before[0], before[1]))
    assert list(shape(result)) == after
    assert list(shape(change(result))) == after, "a second time gives the same"
    assert result.a.entry.word & 1 << 60
    assert result.b.entry.word & 1 << 60


@pytest.mark.parametrize(
    ("change", "before", "says"),
    [
        (lambda s: invalidate(s, A, booted=A), [(1, 0, 1), (1, 0, 1)], "slot A is the booted one and may not be empt"),
        (lambda s: invalidate(s, B, booted=A), [(1, 0, 0), (1, 0, 1)], "slot A has P1 T0 S0; .* only while slot A is"),
        (lambda s: invalidate(s, B, booted=A), [(0, 0, 1), (1, 0, 1)], "slot A has P0 T0 S1"),
        (lambda s: arm_kexec(s, A, booted=A), [(1, 0, 1), (1, 0, 1)], "may not be armed; allowed: slot B"),
        (lambda s: arm_kexec(s, B, booted=A), [(1, 1, 0), (0, 0, 0)], "slot A has P1 T1 S0; slot B may be armed only"),
        (lambda s: arm_kexec(s, B, booted=A), [(0, 0, 1), (0, 0, 0)], "slot A has P0 T0 S1"),
        (lambda s: arm_firmware(s, B, booted=B), [(1, 0, 1), (1, 0, 1)], "slot B is the booted one"),
        (lambda s: arm_firmware(s, B, booted=A), [(1, 1, 0), (0, 0, 0)], "slot A has P1 T1 S0"),
        (lambda s: disarm(s, B, booted=B), [(1, 0, 1), (2, 0, 0)], "slot B is the booted one and may not be disarmed"),
        (lambda s: abandon(s, B), [(0, 0, 0), (2, 0, 0)], "slot A has P0 T0 S0"),
        (lambda s: commit(s, B, booted=A), [(1, 0, 1), (2, 0, 0)], r"slot B is not the booted one \(A\)"),
        (lambda s: commit(s, B, booted=B), [(1, 0, 1), (0, 0, 0)], r"slot B was given up \(priority 0\)"),
    ],
)
def test_refusals(change: Callable[[Slots], Slots], before: list[tuple[int, int, int]], says: str) -> None:
    with pytest.raises(UnsafeChangeError, match=says):
        change(make(before[0], before[1]))


OPERATIONS: list[Callable[[Slots, SlotName, SlotName], Slots]] = [
    lambda slots, name, booted: invalidate(slots, name, booted=booted),
    lambda slots, name, booted: arm_kexec(slots, name, booted=booted),
    lambda slots, name, booted: arm_firmware(slots, name, booted=booted),
    lambda slots, name, booted: disarm(slots, name, booted=booted),
    lambda slots, name, booted: commit(slots, name, booted=booted),
    lambda slots, name, booted: abandon(slots, name),
]


def test_no_change_ever_leaves_a_machine_that_cannot_boot() -> None:
    """From every state: what is allowed leaves a slot that boots after any number of resets."""
    allowed = 0
    for a, b, booted, name, operation in product(VALUES, VALUES, SlotName, SlotName, OPERATIONS):
        before = make((0, 0, 0), (0, 0, 0)).with_attributes(A, a).with_attributes(B, b)
        try:
            after = operation(before, name, booted)
        except UnsafeChangeError:
            continue
        if after == before:
            continue
        allowed += 1
        assert after.a.attributes.good or after.b.attributes.good, (before, after)
        assert choose(after.in_table_order) is not None
    assert allowed > 1000


def test_an_armed_slot_loses_to_the_old_one_at_the_next_reset() -> None:
    for booted in SlotName:
        slots = make((0, 0, 0), (0, 0, 0)).with_attributes(booted, Attributes(1, 0, True))
        armed = arm_kexec(slots, booted.other, booted=booted)
        assert armed[booted.other].attributes.priority > armed[booted].attributes.priority
        chosen = choose(armed.in_table_order)
        assert chosen is not None
        assert chosen.name is booted


@pytest.mark.parametrize(
    ("priorities", "index", "top", "expected"),
    [
        ([4, 3], 0, None, (2, 1)),
        ([1, 0], 0, None, (1, 0)),
        ([0, 0], 1, None, (0, 1)),
        ([0, 1], 0, 13, (13, 12)),
        ([6, 5], 0, 14, (14, 13)),
        ([14, 11, 0], 0, None, (2, 1, 0)),
        ([11, 15, 9], 0, None, (3, 2, 1)),
        ([2, 0, 1, 0, 2, 1, 2, 1], 2, None, (2, 0, 3, 0, 2, 1, 2, 1)),
        ([4, 1, 3, 4, 4, 0, 0, 1, 2, 0, 0, 0, 2, 3, 0], 6, None, (4, 1, 3, 4, 4, 0, 5, 1, 2, 0, 0, 0, 2, 3, 0)),
        (
            [1, 7, 9, 9, 8, 14, 11, 2, 14, 13, 6, 12, 13, 3, 4],
            1,
            None,
            (1, 12, 7, 7, 6, 11, 8, 2, 11, 10, 5, 9, 10, 3, 4),
        ),
        ([0, 2, 1, 1, 2, 1, 1, 2, 0, 0, 2, 1, 0, 1, 0], 11, 5, (0, 4, 3, 3, 4, 3, 3, 4, 0, 0, 4, 5, 0, 3, 0)),
    ],
)
def test_renumbering_is_that_of_cgpt(
    priorities: list[int], index: int, top: int | None, expected: tuple[int, ...]
) -> None:
    """Expected values were read from the real cgpt."""
    assert prioritize_all(priorities, index, top=top) == expected


def test_renumbering_more_groups_than_there_are_numbers() -> None:
    assert prioritize_all([*range(1, 16), 0], 15) == (1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
    assert prioritize_all([3, 2, 1], 2, top=1) == (1, 1, 1)
    with pytest.raises(ValueError, match="top is 16; allowed: 1 to 15"):
        prioritize_all([1], 0, top=16)


GOOD = [
    NewPartition(3, USR_TYPE, A.guid, "USR-A", MIB),
    NewPartition(4, USR_TYPE, B.guid, "USR-B", MIB),
    NewPartition(9, ROOT_TYPE, UUID(int=9), "ROOT", MIB),
]


def write_disk(path: Path, partitions: list[NewPartition]) -> Path:
    create_disk(path, tuple(partitions), sector_size=512, disk_guid=UUID(int=1))
    return path


def test_slots_are_found_wherever_they_are(tmp_path: Path) -> None:
    parts = [
        NewPartition(40, USR_TYPE, A.guid, "USR-A", MIB),
        NewPartition(1, ROOT_TYPE, UUID(int=9), "ROOT", MIB),
        NewPartition(7, USR_TYPE, B.guid, "USR-B", 2 * MIB),
    ]
    slots = read_slots(write_disk(tmp_path / "disk.img", parts))
    assert (slots.a.partition, slots.b.partition) == (40, 7)
    assert [slot.name for slot in slots.in_table_order] == [B, A]
    assert (slots.b.start, slots.b.size) == (3 * MIB, 2 * MIB)


@pytest.mark.parametrize(
    ("partitions", "says"),
    [
        ([GOOD[0], GOOD[2]], "slot B: found partitions none; allowed: exactly one, with label 'USR-B'"),
        ([GOOD[2]], "slot A: found partitions none"),
        ([GOOD[0], NewPartition(4, USR_TYPE, B.guid, "other", MIB)], "slot B: found partitions 4 .'other'"),
        ([GOOD[0], NewPartition(4, USR_TYPE, UUID(int=5), "USR-B", MIB)], "slot B: found partitions 4 .'USR-B'"),
        ([GOOD[0], NewPartition(4, ROOT_TYPE, B.guid, "USR-B", MIB)], "slot B: found partitions 4"),
        ([*GOOD, NewPartition(5, USR_TYPE, UUID(int=5), "USR-C", MIB)], "partition 5 .'USR-C'.* has the type of an OS"),
        ([*GOOD, NewPartition(5, USR_TYPE, A.guid, "USR-A", MIB)], "slot A: found partitions 3 .*, 5"),
        ([*GOOD, NewPartition(5, ROOT_TYPE, UUID(int=5), "USR-A", MIB)], "slot A: found partitions 3 .*, 5"),
    ],
)
def test_doubtful_slots_are_refused(tmp_path: Path, partitions: list[NewPartition], says: str) -> None:
    path = write_disk(tmp_path / "disk.img", partitions)
    with pytest.raises(AmbiguousSlotsError, match=says):
        read_slots(path)


@pytest.mark.parametrize(("priority", "tries"), [(16, 0), (-1, 0), (0, 16), (0, -1)])
def test_attributes_that_do_not_fit_are_refused(priority: int, tries: int) -> None:
    with pytest.raises(ValueError, match="allowed: 0 to 15"):
        Attributes(priority, tries, False)


def test_known_attribute_words() -> None:
    assert Attributes.decode(0x0102 << 48) == Attributes(2, 0, True)
    assert Attributes.decode(0x0013 << 48) == Attributes(3, 1, False)
    assert Attributes(3, 0, False).encode(0) == 0x0003 << 48
    assert str(Attributes(3, 1, False)) == "P3 T1 S0"
