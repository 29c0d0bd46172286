"""`careen disk ... --dry-run`, and what `careen disk repair` says that it did."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from careen.cli.disk import app
from careen.disk.gpt import Table
from careen.disk.image import MIB, create_image
from careen.disk.table import open_table

RUNNER = CliRunner()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    create_image(path, usr_bytes=MIB, root_bytes=MIB)
    return path


def careen(*arguments: object) -> tuple[int, str]:
    result = RUNNER.invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def damage(path: Path, lba: int) -> None:
    with path.open("r+b") as file:
        file.seek(lba * 512)
        file.write(bytes(512))


CHANGES = [
    ["add", "-i", 4, "-P", 2, "-T", 1],
    ["prioritize", "-i", 4],
    ["prioritize", "-P", 7],
    ["repair"],
]


@pytest.mark.parametrize("damaged", ["sound", "no primary", "grown"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: " ".join(str(word) for word in change))
def test_a_dry_run_tells_before_and_after_truly_and_changes_nothing(
    image: Path, change: list[object], damaged: str
) -> None:
    if damaged == "no primary":
        damage(image, 1)
    elif damaged == "grown":
        os.truncate(image, image.stat().st_size + MIB)
    before, stamp = image.read_bytes(), image.stat().st_mtime_ns
    image.chmod(0o444)
    code, output = careen(*change, image, "--dry-run")
    assert code == 0
    assert (image.read_bytes(), image.stat().st_mtime_ns) == (before, stamp)
    told = output.splitlines()
    assert told[0] == "dry run, nothing is written; without --dry-run:"
    first, last = told.index("before:"), told.index("after:")
    code, done = careen(*change, image)
    assert code == 0
    assert told[1:first] == done.splitlines()
    rows = [[str(entry.partition), entry.label, f"{entry.word:#018x}"] for entry in read_table(image).entries]
    after = [line.split() for line in told[last + 1 :]]
    assert [[line[0], line[1], line[-1]] for line in after[:3]] == rows
    assert not any("fault" in line for line in after)
    assert any("fault" in line for line in told[first:last]) is (damaged != "sound")
    changed = {at for at, (old, new) in enumerate(zip(before, image.read_bytes(), strict=True)) if old != new}
    planned: set[int] = set()
    for line in told[first:last]:
        if found := re.search(r", (\d+) bytes at byte (\d+)$", line):
            planned |= set(range(int(found[2]), int(found[2]) + int(found[1])))
    assert changed <= planned


def read_table(path: Path) -> Table:
    with open_table(path) as opened:
        return opened.table


def test_a_dry_run_needs_no_exclusive_lock(image: Path) -> None:
    with open_table(image):
        assert careen("prioritize", "-i", 4, image, "--dry-run", "--wait-seconds", 0)[0] == 0
        assert careen("prioritize", "-i", 4, image, "--wait-seconds", 0)[0] == 1


def test_a_dry_run_refuses_what_the_change_would_refuse(image: Path) -> None:
    code, output = careen("add", image, "-i", 3, "-P", 0, "--dry-run")
    assert (code, "no slot could boot after this change" in output) == (1, True)


def test_repair_of_a_grown_disk_says_where_the_backup_went(image: Path) -> None:
    os.truncate(image, image.stat().st_size + MIB)
    code, output = careen("repair", image)
    assert code == 0
    assert output.splitlines()[1] == (
        "moved the backup copy from LBA 10239 to the end of the disk: header at LBA 12287, entries at LBA 12255; "
        "usable LBAs now end at 12254, before at 10206"
    )
    assert careen("verify", image) == (0, "no problems found\n")


@pytest.mark.parametrize(
    ("lba", "says"),
    [
        (10239, "wrote the backup copy anew from the primary: header at LBA 10239, entries at LBA 10207"),
        (10207, "wrote the backup copy anew from the primary: header at LBA 10239, entries at LBA 10207"),
        (2, "restored the primary copy from the backup: header at LBA 1, entries at LBA 2"),
    ],
)
def test_repair_says_which_copy_it_wrote(image: Path, lba: int, says: str) -> None:
    with image.open("r+b") as file:
        file.seek(lba * 512)
        file.write(b"\xff" * 512)
    assert careen("repair", image)[1].splitlines()[1:] == [says]


def test_repair_of_copies_that_differ_keeps_the_primary(image: Path) -> None:
    old = image.read_bytes()
    careen("add", image, "-i", 4, "-P", 2, "-T", 1)
    new = image.read_bytes()
    image.write_bytes(new[:17408] + old[17408:])
    assert careen("repair", image)[1].splitlines() == [
        "repaired: the copies differ; the primary counts",
        "rewrote the backup copy from the primary, which counts: header at LBA 10239, entries at LBA 10207",
    ]
    assert image.read_bytes() == new
