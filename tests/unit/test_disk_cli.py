"""`careen disk` as a user sees it: output and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from careen.cli.disk import app
from careen.disk.image import MIB, create_image
from careen.disk.table import open_table, read_slots
from careen.disk.types import Attributes

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


def test_show_names_slots_attributes_and_what_boots_next(image: Path) -> None:
    code, output = careen("show", image)
    assert code == 0
    rows = [line.replace("│", " ").split() for line in output.splitlines() if "USR-" in line]
    assert rows == [
        ["3", "USR-A", "1.0", "MiB", "1", "0", "yes", "<-"],
        ["4", "USR-B", "1.0", "MiB", "0", "0", "no"],
    ]


def test_show_json(image: Path) -> None:
    code, output = careen("show", image, "--json")
    document = json.loads(output)
    assert code == 0
    assert document["source"] == "primary"
    assert document["faults"] == []
    assert document["nextBoot"] == 3
    assert document["partitions"][0] | {"guid": ""} == {
        "partition": 3, "label": "USR-A", "type": "5dfbf5f4-2848-4bac-aa5e-0d9a20b745a6", "guid": "",
        "firstLBA": 2048, "lastLBA": 4095, "sizeBytes": MIB, "priority": 1, "tries": 0, "successful": True,
    }  # fmt: skip
    assert "priority" not in document["partitions"][2]


def test_set_changes_what_is_given_and_nothing_else(image: Path) -> None:
    code, output = careen("set", image, "--partition", 4, "--priority", 2, "--tries", 3)
    assert (code, output.strip()) == (0, "partition 4 (USR-B): P0 T0 S0 -> P2 T3 S0")
    assert careen("set", image, "--partition", 4, "--successful", 1)[0] == 0
    assert read_slots(image).b.attributes == Attributes(2, 3, True)
    assert read_slots(image).a.attributes == Attributes(1, 0, True)
    assert careen("set", image, "--partition", 4, "--tries", 0, "--successful", 0)[0] == 0
    assert read_slots(image).b.attributes == Attributes(2, 0, False)


@pytest.mark.parametrize(
    "arguments", [["--priority", 0], ["--successful", 0], ["--priority", 0, "--tries", 5, "--successful", 0]]
)
def test_set_refuses_what_leaves_nothing_to_boot_unless_forced(image: Path, arguments: list[object]) -> None:
    before = image.read_bytes()
    code, output = careen("set", image, "--partition", 3, *arguments)
    assert code == 1
    assert "no slot could boot after this change (USR-A P" in output
    assert "--force does it all the same" in output
    assert image.read_bytes() == before
    assert careen("set", image, "--partition", 3, *arguments, "--force")[0] == 0
    assert not read_slots(image).a.attributes.bootable


def test_set_refuses_partitions_that_are_no_slot(image: Path) -> None:
    for partition in (9, 1, 500):
        code, output = careen("set", image, "--partition", partition, "--priority", 2, "--force")
        assert code == 1
        assert f"partition {partition} is not an OS slot; allowed: 3 (USR-A), 4 (USR-B)" in output


@pytest.mark.parametrize(
    "arguments",
    [
        ["--partition", 3],
        ["--priority", 3],
        ["--partition", 3, "--priority", 16],
        ["--partition", 3, "--tries", -1],
        ["--partition", 3, "--successful", 2],
        ["--partition", 3, "--priority", "high"],
    ],
)
def test_wrong_usage_is_exit_code_2(image: Path, arguments: list[object]) -> None:
    before = image.read_bytes()
    assert careen("set", image, *arguments)[0] == 2
    assert image.read_bytes() == before


def test_verify_and_repair(image: Path) -> None:
    assert careen("verify", image) == (0, "no problems found\n")
    assert careen("repair", image) == (0, "nothing to repair\n")
    damage(image, 1)
    code, output = careen("verify", image)
    assert (code, output) == (1, "the primary copy is not valid: no GPT signature at LBA 1\n")
    assert "fault: the primary copy is not valid" in careen("show", image)[1]
    assert careen("repair", image) == (0, "repaired: the primary copy is not valid: no GPT signature at LBA 1\n")
    assert careen("verify", image)[0] == 0


def test_set_repairs_first_and_says_so(image: Path) -> None:
    damage(image, 1)
    code, output = careen("set", image, "--partition", 4, "--priority", 1)
    assert code == 0
    assert output.startswith("repaired: the primary copy is not valid")


def test_verify_names_every_fault(image: Path) -> None:
    careen("set", image, "--partition", 3, "--priority", 0, "--force")
    damage(image, 0)
    code, output = careen("verify", image)
    assert code == 1
    assert "sector 0 has no MBR signature" in output
    assert "no slot can boot" in output
    assert "no slot can boot" in careen("show", image)[1]


def test_no_valid_table_is_exit_code_1_everywhere(image: Path) -> None:
    damage(image, 1)
    damage(image, image.stat().st_size // 512 - 1)
    before = image.read_bytes()
    for command in (["show"], ["verify"], ["repair"], ["set", "--partition", 3, "--priority", 2]):
        code, output = careen(*command, image)
        assert code == 1
        assert "neither copy of the partition table is valid" in output
    assert image.read_bytes() == before


def test_a_missing_file_and_a_busy_disk_are_exit_code_1(image: Path) -> None:
    code, output = careen("show", image.with_name("none"))
    assert (code, "none: No such file or directory" in output) == (1, True)
    with open_table(image, writable=True):
        code, output = careen("verify", image, "--wait-seconds", 0)
    assert code == 1
    assert "is locked by another process" in output
