"""The boot order in words: equal to what the boot rule really does, reset after reset."""

from __future__ import annotations

import random
from itertools import product
from pathlib import Path
from uuid import UUID

import pytest

from careen.disk.boot import boot
from careen.disk.image import MIB, NewPartition, create_disk, create_image
from careen.disk.order import explain_boots, order_boots
from careen.disk.table import open_table
from careen.disk.types import ROOT_TYPE, USR_TYPE, Attributes, Entry, SlotName

LABELS = ("USR-A", "USR-B", "USR-C")


def make(*values: tuple[int, int, int]) -> list[Entry]:
    words = [Attributes(p, t, bool(s)).encode(0) for p, t, s in values]
    return [Entry(at + 3, USR_TYPE, UUID(int=at + 1), LABELS[at], 0, 1, word, 512) for at, word in enumerate(words)]


def simulate(values: list[list[int]], resets: int) -> list[int | None]:
    """Partition booted at each reset, by the rule's description and nothing of ours."""
    booted: list[int | None] = []
    for _ in range(resets):
        best = None
        for index, (priority, tries, successful) in enumerate(values):
            if priority and (tries or successful) and (best is None or priority > values[best][0]):
                best = index
        if best is not None and values[best][1]:
            values[best][1] -= 1
        booted.append(None if best is None else best + 3)
    return booted


def test_the_turns_are_what_reset_after_reset_boots() -> None:
    small = list(product((0, 1, 2), (0, 1, 3), (0, 1)))
    for table in [*product(small, small), *(random.Random(1).sample(list(product(small, small, small)), 300))]:
        order = order_boots(make(*table))
        expected = simulate([list(value) for value in table], 12)
        told: list[int | None] = []
        for turn in order.turns:
            told += [turn.entry.partition] * (12 - len(told) if turn.boots is None else turn.boots)
        told += [None] * (12 - len(told))
        assert told == expected, table
        assert order.ends is (expected[-1] is None)
        assert (order.next.partition if order.next else None) == expected[0]
        assert [entry.partition for entry in order.never] == [
            at + 3 for at, (p, t, s) in enumerate(table) if not (p and (t or s))
        ]


def test_the_first_turns_are_those_of_the_simulated_firmware(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    create_image(
        path, usr_bytes=MIB, root_bytes=MIB, attributes_a=Attributes(1, 0, True), attributes_b=Attributes(2, 3, False)
    )
    with open_table(path) as opened:
        turns = order_boots(opened.table.entries).turns
    booted = [slot.name for slot in (boot(path) for _ in range(5)) if slot]
    assert booted == [SlotName.B] * 3 + [SlotName.A] * 2
    assert [(turn.entry.label, turn.boots) for turn in turns] == [("USR-B", 3), ("USR-A", None)]


ON_TRIAL = "no tries left and not marked good. If it runs now it is on trial, and any reset ends the trial."
THEN_A = "the reset after that boots USR-A (partition 3, P1 T0 S1)."
TIE = "it has the same priority as USR-B and stands before it in the table."
A_NEXT = "USR-A (partition 3, P1 T0 S1) boots next: it is the only slot that can boot."
A_FOREVER = "USR-A is marked good: however often it crashes, the next reset boots it again."


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        (
            (1, 0, 1), (0, 0, 0),
            [A_NEXT, A_FOREVER,
             "USR-B (partition 4, P0 T0 S0) can't boot: priority 0 means given up, empty or being written."],
        ),
        (
            (1, 0, 1), (2, 0, 0),
            [A_NEXT, A_FOREVER,
             "USR-B (partition 4, P2 T0 S0) can't boot: " + ON_TRIAL],
        ),
        (
            (1, 0, 1), (2, 2, 0),
            ["USR-B (partition 4, P2 T2 S0) boots next: its priority 2 is the highest of those that can boot.",
             "Booting it uses up a try, 2 -> 1, before anything of it runs.",
             "USR-B is not marked good, so it boots up to 2 times; if it crashes each time, " + THEN_A,
             A_FOREVER],
        ),
        (
            (1, 0, 1), (1, 0, 1),
            ["USR-A (partition 3, P1 T0 S1) boots next: " + TIE,
             A_FOREVER],
        ),
        (
            (2, 1, 1), (0, 3, 1),
            ["USR-A (partition 3, P2 T1 S1) boots next: it is the only slot that can boot.",
             "Booting it uses up a try, 1 -> 0, before anything of it runs.",
             A_FOREVER,
             "USR-B (partition 4, P0 T3 S1) can't boot: priority 0 means given up, empty or being written."],
        ),
        (
            (1, 1, 0), (0, 0, 0),
            ["USR-A (partition 3, P1 T1 S0) boots next: it is the only slot that can boot.",
             "Booting it uses up a try, 1 -> 0, before anything of it runs.",
             "USR-A is not marked good, so it boots once; if it crashes, nothing is left that boots.",
             "USR-B (partition 4, P0 T0 S0) can't boot: priority 0 means given up, empty or being written."],
        ),
        (
            (0, 0, 1), (1, 0, 0),
            ["Nothing boots: no slot has priority 1 or more and tries left or the mark of success.",
             "Mark a slot that holds a complete OS good: careen disk add DISK -i N -P 1 -S 1.",
             "USR-A (partition 3, P0 T0 S1) can't boot: priority 0 means given up, empty or being written.",
             "USR-B (partition 4, P1 T0 S0) can't boot: " + ON_TRIAL],
        ),
    ],
)  # fmt: skip
def test_explanations(tmp_path: Path, a: tuple[int, int, int], b: tuple[int, int, int], says: list[str]) -> None:
    parts = (
        NewPartition(3, USR_TYPE, SlotName.A.guid, "USR-A", MIB, Attributes(a[0], a[1], bool(a[2]))),
        NewPartition(4, USR_TYPE, SlotName.B.guid, "USR-B", MIB, Attributes(b[0], b[1], bool(b[2]))),
        NewPartition(9, ROOT_TYPE, UUID(int=9), "ROOT", MIB, Attributes(15, 15, True)),
    )
    path = tmp_path / "disk.img"
    create_disk(path, parts, sector_size=512, disk_guid=UUID(int=1))
    with open_table(path) as opened:
        assert list(explain_boots(opened.table)) == says
    with path.open("r+b") as file:
        file.seek(512)
        file.write(bytes(512))
    with open_table(path) as opened:
        assert list(explain_boots(opened.table)) == [
            "The primary copy of the table is not valid, so boot loaders go by the backup copy.",
            *says,
        ]
