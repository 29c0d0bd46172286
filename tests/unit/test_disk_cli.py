"""`careen disk` as a user sees it: output and exit codes."""

from __future__ import annotations

import errno
import json
import os
import random
import struct
from pathlib import Path
from uuid import UUID

import pytest
from typer.testing import CliRunner

from careen.cli import disk
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


def test_show_prints_every_field_and_what_boots_next(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    create_image(path, usr_bytes=MIB, root_bytes=MIB, disk_guid=UUID(int=1), root_guid=UUID(int=2))
    with open_table(path, writable=True) as opened:
        opened.set_words({4: 1 << 60 | 1 << 0})
    code, output = careen("show", path)
    assert code == 0
    assert (
        output
        == f"""\
disk     {path}
GUID     00000000-0000-0000-0000-000000000001
sectors  10240 of 512 bytes; usable LBA 34 to 10206
table    128 entries, the primary copy counts

  3  USR-A               1.0 MiB  P1 T0 S1  <- boots next
     type  5dfbf5f4-2848-4bac-aa5e-0d9a20b745a6  coreos-usr
     GUID  7130c94a-213a-4e5a-8e26-6cce9662f132
     LBA   2048 to 4095 (2048 sectors)
     word  0x0101000000000000

  4  USR-B               1.0 MiB  P0 T0 S0
     type  5dfbf5f4-2848-4bac-aa5e-0d9a20b745a6  coreos-usr
     GUID  e03dd35c-7c2d-4a47-b3fe-27f15780a57c
     LBA   4096 to 6143 (2048 sectors)
     word  0x1000000000000001  required, read-only

  9  ROOT                1.0 MiB  -
     type  3884dd41-8582-4404-b9a8-e9b84f2df50e  coreos-resize
     GUID  00000000-0000-0000-0000-000000000002
     LBA   6144 to 8191 (2048 sectors)
     word  0x0000000000000000

boots next: partition 3 (USR-A)
"""
    )


@pytest.mark.parametrize("arguments", [["--json"], ["--output", "json"], ["-o", "json"]])
def test_show_json(image: Path, arguments: list[str]) -> None:
    code, output = careen("show", image, *arguments)
    document = json.loads(output)
    assert code == 0
    assert document["source"] == "primary"
    assert document["faults"] == []
    assert document["nextBoot"] == 3
    expected = {
        "partition": 3, "label": "USR-A", "type": "5dfbf5f4-2848-4bac-aa5e-0d9a20b745a6", "typeName": "coreos-usr",
        "guid": "7130c94a-213a-4e5a-8e26-6cce9662f132", "firstLBA": 2048, "lastLBA": 4095, "sizeBytes": MIB,
        "attributes": "0x0101000000000000", "priority": 1, "tries": 0, "successful": True,
    }  # fmt: skip
    assert document["partitions"][0] == expected
    assert "priority" not in document["partitions"][2]
    assert json.loads(careen("show", image, "-i", 3, *arguments)[1]) == expected


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
    code, output = careen("repair", image)
    assert (code, output.splitlines()) == (0, [
        "repaired: the primary copy is not valid: no GPT signature at LBA 1",
        "restored the primary copy from the backup: header at LBA 1, entries at LBA 2",
    ])  # fmt: skip
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
    commands: list[list[object]] = [["show"], ["show", "-i", 3, "-P"], ["next"], ["explain"], ["verify"], ["repair"]]
    commands += [["repair", "--dry-run"], ["set", "--partition", 3, "--priority", 2], ["prioritize", "-i", 3]]
    for command in commands:
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


def test_prioritize_puts_a_slot_first_and_keeps_all_else(image: Path) -> None:
    careen("add", image, "-i", 4, "-P", 5, "-T", 3)
    code, output = careen("prioritize", "-i", 3, image)
    assert code == 0
    assert output.splitlines() == [
        "partition 3 (USR-A): P1 T0 S1 -> P2 T0 S1",
        "partition 4 (USR-B): P5 T3 S0 -> P1 T3 S0",
    ]
    assert read_slots(image).b.attributes == Attributes(1, 3, False)
    assert careen("prioritize", "-i", 3, image) == (0, "nothing to change\n")
    assert careen("prioritize", "-P", 9, image)[0] == 0
    assert [slot.attributes.priority for slot in read_slots(image).in_table_order] == [9, 8]


def test_prioritize_refuses_what_is_no_slot_and_friends_of_nobody(image: Path) -> None:
    before = image.read_bytes()
    code, output = careen("prioritize", "-i", 9, image)
    assert (code, "partition 9 is not an OS slot; allowed: 3 (USR-A), 4 (USR-B)" in output) == (1, True)
    for wrong in (["-f"], ["-P", 0], ["-P", 16]):
        assert careen("prioritize", image, *wrong)[0] == 2
    assert image.read_bytes() == before


def test_raw_attributes_are_set_at_once_and_low_bits_stay(image: Path) -> None:
    with open_table(image, writable=True) as opened:
        opened.set_words({4: 0x1234})
    code, output = careen("add", image, "-i", 4, "-A", "0x9102")
    assert code == 0
    assert "attribute word 0x0000000000001234 -> 0x9102000000001234" in output
    with open_table(image) as opened:
        assert opened.table.entries[1].word == 0x9102_0000_0000_1234
    assert careen("show", image, "-i", 4, "-A") == (0, "0x9102\n")
    assert careen("add", image, "-i", 4, "-A", "0")[0] == 0


@pytest.mark.parametrize("wrong", [["-A", "0x10000"], ["-A", "-1"], ["-A", "x"], ["-A", "1", "-P", "1"]])
def test_raw_attributes_that_do_not_fit_are_refused(image: Path, wrong: list[str]) -> None:
    before = image.read_bytes()
    assert careen("add", image, "-i", 4, *wrong)[0] == 2
    assert image.read_bytes() == before


def test_raw_attributes_that_leave_nothing_to_boot_are_refused(image: Path) -> None:
    before = image.read_bytes()
    code, output = careen("add", image, "-i", 3, "-A", "0x0003")
    assert (code, "no slot could boot after this change (USR-A P3 T0 S0" in output) == (1, True)
    assert image.read_bytes() == before
    assert careen("add", image, "-i", 3, "-A", "0x0003", "--force")[0] == 0


@pytest.mark.parametrize("wrong", [["-P"], ["-i", "3", "-P", "-T"], ["-i", "0"]])
def test_single_values_need_one_partition_and_one_field(image: Path, wrong: list[str]) -> None:
    assert careen("show", image, *wrong)[0] == 2


def test_show_of_a_partition_that_is_not_there(image: Path) -> None:
    code, output = careen("show", image, "-i", 5, "-P")
    assert (code, "there is no partition 5; allowed: 3 (USR-A), 4 (USR-B), 9 (ROOT)" in output) == (1, True)


def test_next_names_the_slot_and_uses_up_no_try(image: Path) -> None:
    careen("add", image, "-i", 4, "-P", 2, "-T", 1)
    before = image.read_bytes()
    assert careen("next", image) == (
        0, "a reset would boot USR-B (partition 4, P2 T1 S0), and would leave it P2 T0 S0\n",
    )  # fmt: skip
    assert careen("next", image, "-n") == (0, "4\n")
    assert careen("next", image, "-l") == (0, "USR-B\n")
    assert careen("next", image, "-u") == (0, "E03DD35C-7C2D-4A47-B3FE-27F15780A57C\n")
    document = json.loads(careen("next", image, "--output", "json")[1])
    assert (document["partition"], document["tries"], document["triesAfterBoot"]) == (4, 1, 0)
    assert image.read_bytes() == before
    assert careen("next", image, "-l", "-u")[0] == 2


def test_next_is_exit_code_1_when_nothing_can_boot(image: Path) -> None:
    careen("add", image, "-i", 3, "-S", 0, "--force")
    code, output = careen("next", image, "-n")
    assert (code, "no slot can boot" in output) == (1, True)


def test_explain_in_words_and_as_json(image: Path) -> None:
    careen("add", image, "-i", 4, "-P", 2, "-T", 1)
    last = "the reset after that boots USR-A (partition 3, P1 T0 S1)."
    assert careen("explain", image)[1].splitlines() == [
        "USR-B (partition 4, P2 T1 S0) boots next: its priority 2 is the highest of those that can boot.",
        "Booting it uses up a try, 1 -> 0, before anything of it runs.",
        f"USR-B is not marked good, so it boots once; if it crashes, {last}",
        "USR-A is marked good: however often it crashes, the next reset boots it again.",
    ]
    document = json.loads(careen("explain", image, "--json")[1])
    assert document["turns"] == [
        {"partition": 4, "label": "USR-B", "boots": 1},
        {"partition": 3, "label": "USR-A", "boots": None},
    ]
    assert (document["never"], document["ends"]) == ([], False)


def test_every_command_works_with_4096_byte_sectors_and_a_hybrid_mbr(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    create_image(path, usr_bytes=MIB, root_bytes=MIB, sector_size=4096)
    mbr = bytearray(path.read_bytes()[:4096])
    mbr[:446] = random.Random(1).randbytes(446)
    # A hybrid MBR: the protective partition, and an old-style, active one for the same bytes as USR-A.
    struct.pack_into("<B3sB3sII", mbr, 446 + 16, 0x80, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", 256, 256)
    with path.open("r+b") as file:
        file.write(mbr)
        file.seek(4096)
        file.write(bytes(4096))
    for command in (
        ["show"], ["next"], ["explain"], ["repair"], ["verify"], ["add", "-i", 4, "-P", 2, "-T", 1],
        ["prioritize", "-i", 3], ["add", "-i", 4, "-A", "0x0101"],
    ):  # fmt: skip
        assert careen(*command, path)[0] == 0
        assert path.read_bytes()[:4096] == mbr
    assert careen("show", path, "-i", 4, "-P") == (0, "1\n")
    assert "sectors  1280 of 4096 bytes" in careen("show", path)[1]
    os.truncate(path, path.stat().st_size + MIB)
    assert careen("repair", path)[0] == 0
    assert path.read_bytes()[:4096] == mbr
    assert careen("verify", path) == (0, "no problems found\n")


def test_an_io_error_is_one_sentence_that_names_the_byte(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int, data: bytes, offset: int) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pwrite", fail)
    code, output = careen("prioritize", "-i", 4, image)
    assert code == 1
    assert output == f"careen disk: writing {image} at byte 5225984: Input/output error\n"


def test_without_a_disk_the_machines_own_is_taken(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "find_disk", lambda wait_seconds: image)
    assert careen("show", "-i", 3, "-l") == (0, "USR-A\n")
    assert careen("prioritize", "-i", 4)[0] == 0
    assert read_slots(image).b.attributes.priority == 2
