"""Debian's cgpt as the oracle: what it prints and how it renumbers, on random tables.

That cgpt renumbers ChromeOS kernels only, so it gets a twin of the disk whose slots have that type.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path
from uuid import UUID

import pytest
from typer.testing import CliRunner

from careen.cli.disk import app
from careen.disk.edits import edit_priorities
from careen.disk.gpt import Table
from careen.disk.image import MIB, NewPartition, create_disk
from careen.disk.slots import prioritize_all
from careen.disk.table import open_table
from careen.disk.types import ROOT_TYPE, USR_TYPE, Attributes

KERNEL_TYPE = UUID("fe3a2a5d-4f32-41a7-b725-accc3285a309")
FLAGS = "bstulSTPRBA"


def cgpt(*arguments: object) -> tuple[int, str]:
    """Run the real one; a machine without it fails the test instead of skipping it."""
    program = shutil.which("cgpt", path="/usr/bin:/usr/sbin:/bin:/sbin")
    if program is None:
        pytest.fail("cgpt is not installed: install the package cgpt (apt-get install cgpt)")
    command = [program, *(str(argument) for argument in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return done.returncode, done.stdout


def careen(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def write_twins(folder: Path, parts: list[NewPartition]) -> tuple[Path, Path]:
    """The same disk twice: ours with the slots' type, the other with the type that cgpt knows."""
    ours, theirs = folder / "ours.img", folder / "theirs.img"
    for path, type_guid in ((ours, USR_TYPE), (theirs, KERNEL_TYPE)):
        path.unlink(missing_ok=True)
        twins = tuple(
            NewPartition(
                part.partition,
                type_guid if part.type_guid == USR_TYPE else part.type_guid,
                part.guid,
                part.label,
                part.size,
                part.attributes,
            )
            for part in parts
        )
        create_disk(path, twins, sector_size=512, disk_guid=UUID(int=1))
    return ours, theirs


def draw_parts(dice: random.Random) -> list[NewPartition]:
    highest = dice.choice([1, 3, 15])
    parts = []
    for number in dice.sample(range(1, 129), dice.choice([1, 2, 2, 3, 8, 20])):
        attributes = Attributes(dice.randint(0, highest), dice.randint(0, 15), dice.random() < 0.5)
        kind = USR_TYPE if dice.random() < 0.8 else ROOT_TYPE
        parts.append(NewPartition(number, kind, UUID(int=number), f"P{number}", MIB, attributes))
    return parts


def read_words(path: Path) -> dict[int, int]:
    with open_table(path) as opened:
        assert opened.table.faults == ()
        return {entry.partition: entry.word for entry in opened.table.entries}


def draw_arguments(dice: random.Random, parts: list[NewPartition]) -> list[object]:
    slots = [part.partition for part in parts if part.type_guid == USR_TYPE]
    arguments: list[object] = []
    if slots and dice.random() < 0.8:
        arguments += ["-i", dice.choice(slots)]
        if dice.random() < 0.4:
            arguments.append("-f")
    if dice.random() < 0.5:
        arguments += ["-P", dice.randint(1, 15)]
    return arguments


@pytest.mark.parametrize("seed", range(8))
def test_prioritize_gives_the_same_table_as_cgpt(tmp_path: Path, seed: int) -> None:
    """The words of all partitions, slots or not, for every combination of -i, -f and -P."""
    dice = random.Random(seed)
    changed = 0
    for _ in range(25):
        parts = draw_parts(dice)
        arguments = draw_arguments(dice, parts)
        ours, theirs = write_twins(tmp_path, parts)
        before = read_words(ours)
        assert cgpt("prioritize", *arguments, theirs)[0] == 0
        code, output = careen("prioritize", *arguments, ours, "--force")
        assert code == 0, output
        assert read_words(ours) == read_words(theirs), (seed, arguments, parts)
        changed += read_words(ours) != before
    assert changed >= 8, "the tables drawn left nothing to renumber"


def test_renumbering_equals_cgpt_for_every_pair_of_priorities(tmp_path: Path) -> None:
    """One disk, all that a machine with two slots can have: 5 x 5 priorities, with each option."""
    guids = UUID(int=3), UUID(int=4)
    for first, second in [(a, b) for a in (0, 1, 2, 7, 15) for b in (0, 1, 2, 7, 15)]:
        values = (Attributes(first, 3, True), Attributes(second, 0, True))
        parts = [
            NewPartition(at, USR_TYPE, guid, f"P{at}", MIB, value)
            for at, guid, value in zip((3, 4), guids, values, strict=True)
        ]
        arguments: list[object]
        for index, top, friends in [(None, None, False), (1, None, False), (0, 1, True), (1, 15, False)]:
            arguments = [] if index is None else ["-i", index + 3]
            arguments += ["-f"] * friends + (["-P", top] if top else [])
            _, theirs = write_twins(tmp_path, parts)
            assert cgpt("prioritize", *arguments, theirs)[0] == 0
            got = tuple(Attributes.decode(word).priority for word in read_words(theirs).values())
            assert prioritize_all([first, second], index, top=top, friends=friends) == got


@pytest.mark.parametrize("flag", FLAGS)
def test_single_values_are_written_as_cgpt_writes_them(tmp_path: Path, flag: str) -> None:
    dice = random.Random(flag)
    for _ in range(5):
        parts = draw_parts(dice)
        ours, _ = write_twins(tmp_path, parts)
        words = {part.partition: part.attributes.encode(dice.getrandbits(64)) for part in parts}
        with open_table(ours, writable=True) as opened:
            opened.set_words(words)
        for part in parts:
            expected = cgpt("show", "-i", part.partition, f"-{flag}", ours)
            assert careen("show", "-i", part.partition, f"-{flag}", ours) == expected


def test_add_sets_what_cgpt_sets(tmp_path: Path) -> None:
    dice = random.Random(3)
    for _ in range(40):
        parts = [NewPartition(3, USR_TYPE, UUID(int=3), "A", MIB, Attributes(1, 0, True))]
        ours, theirs = write_twins(tmp_path, parts)
        values = {"-P": dice.randint(0, 15), "-T": dice.randint(0, 15), "-S": dice.randint(0, 1)}
        arguments = [word for flag in dice.sample(list(values), dice.randint(1, 3)) for word in (flag, values[flag])]
        if dice.random() < 0.3:
            arguments = ["-A", hex(dice.getrandbits(16))]
        assert cgpt("add", "-i", 3, *arguments, theirs)[0] == 0
        assert careen("add", "-i", 3, *arguments, ours, "--force")[0] == 0
        assert read_words(ours) == read_words(theirs), arguments


def test_cgpt_reads_what_we_write(tmp_path: Path) -> None:
    parts = draw_parts(random.Random(11))
    _, theirs = write_twins(tmp_path, parts)
    with open_table(theirs, writable=True) as opened:
        opened.set_words({part.partition: Attributes(7, 5, True).encode(1 << 60) for part in parts})
    code, output = cgpt("show", theirs)
    assert code == 0
    assert "INVALID" not in output
    kernels = [part for part in parts if part.type_guid == USR_TYPE]
    assert output.count("priority=7 tries=5 successful=1") == len(kernels) > 0


def test_our_repair_of_a_grown_disk_is_sound_for_cgpt(tmp_path: Path) -> None:
    ours, _ = write_twins(tmp_path, draw_parts(random.Random(2)))
    words = read_words(ours)
    with ours.open("r+b") as file:
        file.truncate(ours.stat().st_size + MIB)
    assert careen("repair", ours)[0] == 0
    code, output = cgpt("show", "-v", ours)
    assert (code, "INVALID" in output) == (0, False)
    assert read_words(ours) == words


def test_edits_leave_partitions_of_other_types_alone(tmp_path: Path) -> None:
    parts = [
        NewPartition(1, ROOT_TYPE, UUID(int=1), "R", MIB, Attributes(9, 0, True)),
        NewPartition(2, USR_TYPE, UUID(int=2), "U", MIB, Attributes(1, 0, True)),
    ]
    ours, _ = write_twins(tmp_path, parts)
    with open_table(ours) as opened:
        table: Table = opened.table
    assert set(edit_priorities(table, 2)) == {2}
