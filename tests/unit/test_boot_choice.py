"""The boot loader's rule, and the use of a try."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from uuid import UUID

import pytest

from careen.disk.boot import boot, choose, consume, preview
from careen.disk.image import MIB, NewPartition, create_disk, create_image
from careen.disk.table import change_slots, read_slots
from careen.disk.types import USR_TYPE, Attributes, SlotName

VALUES = list(product(range(16), range(16), range(2)))


@dataclass(frozen=True, eq=False)
class Candidate:
    attributes: Attributes


def literal_rule(words: list[tuple[int, int, int]]) -> int | None:
    """GRUB's loop, written from its description and nothing of ours: -1 or the index it ends with."""
    best, best_priority = -1, 0
    for index, (priority, tries, successful) in enumerate(words):
        if (tries or successful) and priority > best_priority:
            best, best_priority = index, priority
    return None if best < 0 else best


def test_the_choice_equals_the_rule_on_all_pairs() -> None:
    candidates = [(value, Candidate(Attributes(value[0], value[1], bool(value[2])))) for value in VALUES]
    for first_value, first in candidates:
        for second_value, second in candidates:
            expected = literal_rule([first_value, second_value])
            chosen = choose((first, second))
            # Different objects on both places, except where both have the same value: then the first must win.
            index = None if chosen is None else 0 if chosen is first else 1
            assert index == expected, (first_value, second_value)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ([], None),
        ([(0, 15, 1)], None),
        ([(15, 0, 0)], None),
        ([(1, 0, 1), (1, 1, 0)], 0),
        ([(1, 1, 0), (1, 0, 1)], 0),
        ([(1, 0, 1), (2, 0, 0)], 0),
        ([(1, 0, 1), (2, 1, 0)], 1),
        ([(3, 0, 1), (5, 1, 0), (5, 0, 1), (4, 2, 1)], 1),
    ],
)
def test_known_cases(table: list[tuple[int, int, int]], expected: int | None) -> None:
    candidates = [Candidate(Attributes(p, t, bool(s))) for p, t, s in table]
    chosen = choose(candidates)
    assert (None if chosen is None else candidates.index(chosen)) == expected


def test_a_try_is_used_up_whenever_there_is_one() -> None:
    for priority, tries, successful in VALUES:
        after = consume(Attributes(priority, tries, bool(successful)))
        assert after == Attributes(priority, tries - 1 if tries else 0, bool(successful))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    create_image(path, usr_bytes=MIB, root_bytes=MIB)
    return path


def set_slots(path: Path, a: Attributes, b: Attributes) -> None:
    change_slots(path, lambda slots: slots.with_attributes(SlotName.A, a).with_attributes(SlotName.B, b))


def test_three_boots_of_a_trial_with_two_tries(image: Path) -> None:
    set_slots(image, Attributes(1, 0, True), Attributes(2, 2, False))
    booted = [boot(image) for _ in range(4)]
    assert [slot and slot.name for slot in booted] == ["B", "B", "A", "A"]
    assert [slot and slot.attributes.tries for slot in booted] == [1, 0, 0, 0]
    assert read_slots(image).b.attributes == Attributes(2, 0, False)


def test_a_try_of_a_successful_slot_is_used_up_too(image: Path) -> None:
    set_slots(image, Attributes(2, 1, True), Attributes(1, 0, True))
    assert [boot(image), boot(image)] == [read_slots(image).a, read_slots(image).a]
    assert read_slots(image).a.attributes == Attributes(2, 0, True)


def test_preview_says_the_same_and_changes_nothing(image: Path) -> None:
    set_slots(image, Attributes(1, 0, True), Attributes(2, 1, False))
    before = image.read_bytes()
    seen = preview(image)
    assert seen is not None
    assert (seen.name, seen.attributes.tries) == (SlotName.B, 1)
    assert image.read_bytes() == before
    booted = boot(image)
    assert booted is not None
    assert booted.name is SlotName.B


def test_nothing_to_boot_is_an_answer_and_writes_nothing(image: Path) -> None:
    set_slots(image, Attributes(1, 0, False), Attributes(0, 5, True))
    before = image.read_bytes()
    assert boot(image) is None
    assert preview(image) is None
    assert image.read_bytes() == before


def test_the_firmware_boots_from_the_backup_when_the_primary_is_gone(image: Path) -> None:
    set_slots(image, Attributes(1, 0, True), Attributes(2, 1, False))
    with image.open("r+b") as file:
        file.seek(512)
        file.write(bytes(512))
    booted = boot(image)
    assert booted is not None
    assert booted.name is SlotName.B
    assert read_slots(image).b.attributes == Attributes(2, 0, False)


def test_equal_priorities_go_by_place_in_the_table_not_by_name(tmp_path: Path) -> None:
    path = tmp_path / "swapped.img"
    good = Attributes(1, 0, True)
    parts = (
        NewPartition(2, USR_TYPE, SlotName.B.guid, "USR-B", MIB, good),
        NewPartition(7, USR_TYPE, SlotName.A.guid, "USR-A", MIB, good),
    )
    create_disk(path, parts, sector_size=512, disk_guid=UUID(int=1))
    booted = boot(path)
    assert booted is not None
    assert booted.name is SlotName.B
