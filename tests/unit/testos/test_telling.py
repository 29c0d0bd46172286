"""What the demo on virtual machines tells, and when it says that all was as it should be."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from careen.disk.types import Attributes
from testos.demo import Result, Returned, Updated
from testos.inspection import SlotOnDisk
from testos.telling import dump_result, print_result
from testos.timeline import Moves, Passage

MIB = 1 << 20
PASSAGE = Passage(0, 20, 30, 32, 35, 45, 60, 62, Moves(256 * MIB, 7 * MIB, 30 * MIB, 219 * MIB))
GOOD = (
    SlotOnDisk("A", Attributes(1, 0, True), "1", next=False),
    SlotOnDisk("B", Attributes(2, 0, True), "2", next=True),
)
BACK = (SlotOnDisk("A", Attributes(0, 0, False), "3", next=False), replace(GOOD[1], attributes=Attributes(1, 0, True)))
UNDECIDED = (GOOD[0], replace(GOOD[1], attributes=Attributes(2, 1, False)))
RESULT = Result(
    updated=[Updated(name, PASSAGE, "2", "Kexec", GOOD) for name in ("vm-1", "vm-2")],
    most_down=1,
    returned=[Returned("vm-1", PASSAGE, 48.0, "2", "Panic", BACK)],
    untouched=["vm-2"],
    halted="TooManyFailures: vm-1 went back",
)


def test_shows_steps_bytes_slots_and_the_return() -> None:
    console = Console(file=StringIO(), width=120)
    print_result(console, RESULT)
    assert isinstance(console.file, StringIO)
    shown = console.file.getvalue()
    for words in (
        "agent back",
        "25.0",
        "7.0 MiB",
        "P2 T0 S1",
        "cause Panic",
        "TooManyFailures",
        "all was as it should be",
    ):
        assert words in shown, shown


def test_the_document_has_the_same() -> None:
    document = dump_result(RESULT)
    assert document["ok"]
    assert document["updated"][1]["seconds"]["drained"] == 2
    assert document["returned"][0]["bytes"]["fetched"] == 7 * MIB
    assert document["returned"][0]["slots"][1] == {
        "slot": "B", "priority": 1, "tries": 0, "successful": True, "version": "2", "next": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    "broken",
    [
        replace(RESULT, updated=RESULT.updated[:1]),
        replace(RESULT, updated=[RESULT.updated[0], replace(RESULT.updated[1], boot_method="Firmware")]),
        replace(RESULT, updated=[RESULT.updated[0], replace(RESULT.updated[1], runs="1")]),
        replace(RESULT, updated=[RESULT.updated[0], replace(RESULT.updated[1], slots=UNDECIDED)]),
        replace(RESULT, most_down=2),
        replace(RESULT, returned=[]),
        replace(RESULT, returned=[replace(RESULT.returned[0], cause="TrialLost")]),
        replace(RESULT, returned=[replace(RESULT.returned[0], runs="3")]),
        replace(RESULT, untouched=[]),
        replace(RESULT, halted=""),
    ],
)
def test_anything_amiss_is_no_success(broken: Result) -> None:
    assert not broken.ok
