"""Making disks and file systems from nothing, and staying inside a partition."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from careen.disk import ext4
from careen.disk.block import BlockFile
from careen.disk.ext4 import make_ext4, read_ext4_file
from careen.disk.image import (
    MIB,
    NewPartition,
    create_disk,
    create_image,
    fill_slot,
    open_passive,
    open_slot,
    partition_range,
)
from careen.disk.slots import commit, invalidate
from careen.disk.table import change_slots, read_slots
from careen.disk.types import (
    ROOT_TYPE,
    Attributes,
    DiskError,
    OutOfRangeError,
    SlotName,
    ToolFailedError,
    ToolMissingError,
    UnsafeChangeError,
)

A, B = SlotName.A, SlotName.B
FS_UUID = UUID("11111111-2222-3333-4444-555555555555")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    create_image(path, usr_bytes=4 * MIB, root_bytes=MIB)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "usr/lib").mkdir(parents=True)
    (root / "etc").mkdir()
    (root / "usr/lib/os-release").write_text('VERSION="1.0.0"\n')
    (root / "usr/lib/release").symlink_to("os-release")
    (root / "etc/absolute").symlink_to("/usr/lib/os-release")
    (root / "etc/long").symlink_to("../" * 30 + "usr/lib/release")
    (root / "etc/loop").symlink_to("loop")
    (root / "etc/folder").symlink_to("../usr/lib")
    (root / "etc/empty").touch()
    (root / os.fsdecode(b"etc/latin-\xe4")).write_text("latin")
    (root / 'etc/odd "name"').write_text("odd")
    (root / "run.sh").write_bytes(os.urandom(100_000))
    (root / "run.sh").chmod(0o750)
    return root


def test_a_new_image_is_sparse_and_boots_a(image: Path) -> None:
    slots = read_slots(image)
    assert (slots.a.partition, slots.b.partition) == (3, 4)
    assert slots.a.attributes == Attributes(1, 0, True)
    assert slots.b.attributes == Attributes(0, 0, False)
    assert partition_range(slots.b) == (5 * MIB, 4 * MIB)
    assert image.stat().st_size == 11 * MIB
    assert image.stat().st_blocks * 512 < MIB
    assert sorted(path.name for path in image.parent.iterdir()) == ["disk.img"]


def test_an_existing_disk_is_not_replaced(image: Path) -> None:
    before = image.read_bytes()
    with pytest.raises(FileExistsError):
        create_image(image, usr_bytes=MIB, root_bytes=MIB)
    assert image.read_bytes() == before
    assert sorted(path.name for path in image.parent.iterdir()) == ["disk.img"]


@pytest.mark.parametrize("size", [0, 1000, MIB + 512])
def test_odd_sizes_are_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(DiskError, match=f"USR-A is to have {size} bytes; allowed: multiples of 1048576"):
        create_image(tmp_path / "disk.img", usr_bytes=size, root_bytes=MIB)


def test_the_passive_slot_is_written_and_read_back_within_its_bounds(image: Path) -> None:
    before = image.read_bytes()
    with open_passive(image, B, booted=A) as slot:
        assert slot.size == 4 * MIB
        slot.write(0, b"first")
        slot.write(slot.size - 4, b"last")
        slot.sync()
        assert slot.read_back(0, 5) == b"first"
        assert slot.read(slot.size - 4, 4) == b"last"
        for offset, length in ((slot.size - 3, 4), (-1, 2), (slot.size, 1)):
            with pytest.raises(OutOfRangeError, match="of partition USR-B; allowed: 0 to 4194304"):
                slot.write(offset, b"x" * length)
            with pytest.raises(OutOfRangeError):
                slot.read(offset, length)
    after = image.read_bytes()
    assert after[: 5 * MIB] == before[: 5 * MIB]
    assert after[9 * MIB :] == before[9 * MIB :]
    assert after[5 * MIB : 5 * MIB + 5] == b"first"


def test_the_booted_slot_is_never_opened_for_writing(image: Path) -> None:
    says = "slot A is the booted one and is never written"
    with pytest.raises(UnsafeChangeError, match=says), open_passive(image, A, booted=A):
        pass


def test_a_slot_that_could_boot_is_not_opened_for_writing(image: Path) -> None:
    change_slots(image, lambda slots: slots.with_attributes(B, Attributes(2, 1, False)))
    says = "slot B has P2 T1 S0; allowed: writing to a slot that has P0 T0 S0"
    with pytest.raises(UnsafeChangeError, match=says), open_passive(image, B, booted=A):
        pass
    change_slots(image, lambda slots: invalidate(slots, B, booted=A))
    with open_passive(image, B, booted=A) as slot:
        slot.write(0, b"now")


def test_the_table_is_not_locked_while_a_slot_is_written(image: Path) -> None:
    with open_passive(image, B, booted=A), open_slot(image, A) as slot:
        assert slot.read(0, 4) == bytes(4)
        assert change_slots(image, lambda slots: commit(slots, A, booted=A), wait_seconds=0).repaired == ()


def test_the_same_tree_gives_the_same_file_system(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "a.ext4", tmp_path / "b.ext4"
    make_ext4(tree, first, size=2 * MIB, uuid=FS_UUID, label="USR-A")
    copy = tmp_path / "elsewhere" / "copy"
    shutil.copytree(tree, copy, symlinks=True)
    time.sleep(1.05)  # File systems keep whole seconds: without a pause the clock could not show up in the bytes.
    for path in copy.rglob("*"):
        os.utime(path, (5, 5), follow_symlinks=False)
        if os.getuid() == 0:
            os.chown(path, 1234, 1234, follow_symlinks=False)
    walk = os.walk

    def walk_in_another_order(top: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        for folder, folders, files in walk(top):
            folders.sort(reverse=True)
            yield folder, folders, sorted(files, reverse=True)

    monkeypatch.setattr(os, "walk", walk_in_another_order)
    make_ext4(copy, second, size=2 * MIB, uuid=FS_UUID, label="USR-A")
    assert first.read_bytes() == second.read_bytes()
    make_ext4(copy, second, size=2 * MIB, uuid=UUID(int=5), label="USR-A")
    assert first.read_bytes() != second.read_bytes()


def test_a_made_file_system_is_sound_and_gives_its_files_back(tree: Path, image: Path, tmp_path: Path) -> None:
    made = tmp_path / "usr.ext4"
    make_ext4(tree, made, size=2 * MIB, uuid=FS_UUID, label="USR-A")
    check = subprocess.run(
        [find_tool("e2fsck"), "-fn", str(made)], capture_output=True, text=True, timeout=30, check=False
    )
    assert check.returncode == 0, check.stdout
    assert fill_slot(image, A, made) == 2 * MIB
    start = read_slots(image).a.start
    for path in ("/usr/lib/os-release", "/usr/lib/release", "/etc/absolute", "/etc/long", "/etc/folder/release"):
        assert read_ext4_file(image, start, path) == b'VERSION="1.0.0"\n'
    assert read_ext4_file(image, start, "/run.sh") == (tree / "run.sh").read_bytes()
    assert read_ext4_file(image, start, '/etc/odd "name"') == b"odd"
    assert read_ext4_file(image, start, "/etc/empty") == b""
    assert read_ext4_file(image, start, os.fsdecode(b"/etc/latin-\xe4")) == b"latin"
    with pytest.raises(IsADirectoryError):
        read_ext4_file(image, start, "/etc")
    with pytest.raises(DiskError, match=r"/etc/loop in .* is a chain of more than 16 symlinks"):
        read_ext4_file(image, start, "/etc/loop")
    with pytest.raises(FileNotFoundError, match="/etc/missing is not in the file system at byte 1048576"):
        read_ext4_file(image, start, "/etc/missing")
    with pytest.raises(ToolFailedError, match="Bad magic"):
        read_ext4_file(image, read_slots(image).b.start, "/etc/empty")


def test_modes_and_owners_in_the_file_system(tree: Path, tmp_path: Path) -> None:
    made = tmp_path / "usr.ext4"
    make_ext4(tree, made, size=2 * MIB, uuid=FS_UUID, label="USR-A")
    listing = subprocess.run(
        [find_tool("debugfs"), "-R", "stat /run.sh", str(made)], capture_output=True, text=True, timeout=30, check=True
    ).stdout
    assert "Mode:  0750" in listing
    assert "User:     0   Group:     0" in listing
    assert "Type: regular" in listing
    assert listing.count("time: 0x3b9aca00") == 4


def find_tool(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        pytest.fail(f"{name} is not installed: install the package e2fsprogs (apt-get install e2fsprogs)")
    return found


def test_a_tree_that_does_not_fit_leaves_no_file(tree: Path, tmp_path: Path) -> None:
    (tree / "large").write_bytes(os.urandom(MIB))
    with pytest.raises(ToolFailedError):
        make_ext4(tree, tmp_path / "usr.ext4", size=MIB, uuid=FS_UUID, label="USR-A")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tree"]


@pytest.mark.parametrize(
    ("size", "label", "says"),
    [
        (5000, "x", "size is 5000; allowed: a multiple of 4096"),
        (0, "x", "size is 0"),
        (MIB, "a" * 17, "up to 16 bytes"),
    ],
)
def test_file_systems_that_cannot_be_made(tree: Path, tmp_path: Path, size: int, label: str, says: str) -> None:
    with pytest.raises(DiskError, match=says):
        make_ext4(tree, tmp_path / "usr.ext4", size=size, uuid=FS_UUID, label=label)


def test_special_files_are_refused(tree: Path, tmp_path: Path) -> None:
    os.mkfifo(tree / "pipe")
    with pytest.raises(DiskError, match="pipe is a special file; allowed: directories, files and symlinks"):
        make_ext4(tree, tmp_path / "usr.ext4", size=2 * MIB, uuid=FS_UUID, label="USR-A")


def test_without_e2fsprogs_one_sentence_says_what_to_install(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(ext4, "_PLACES", ())
    with pytest.raises(ToolMissingError, match=r"mkfs\.ext4 is not installed; install the package e2fsprogs"):
        make_ext4(tree, tmp_path / "usr.ext4", size=2 * MIB, uuid=FS_UUID, label="USR-A")


@pytest.mark.parametrize(("path", "says"), [("etc", "an absolute path"), ("/a\nrm /b", "without line breaks")])
def test_paths_that_are_no_paths(image: Path, path: str, says: str) -> None:
    with pytest.raises(DiskError, match=says):
        read_ext4_file(image, 0, path)
    with pytest.raises(FileNotFoundError):
        read_ext4_file(image.with_name("none"), 0, "/etc")


def test_an_image_larger_than_its_slot_is_refused_before_the_first_byte(image: Path, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"x" * (4 * MIB + 1))
    before = image.read_bytes()
    with pytest.raises(OutOfRangeError, match="has 4194305 bytes; allowed: 4194304, what USR-A has room for"):
        fill_slot(image, A, large)
    assert image.read_bytes() == before


def test_a_failing_disk_names_the_byte(image: Path) -> None:
    block = BlockFile.open_unlocked(image, writable=False, sector_size=512)
    with block, pytest.raises(DiskError, match=r"writing .*disk\.img at byte 4096: Bad file descriptor"):
        block.write(4096, b"x")


def test_disks_with_4096_byte_sectors(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    create_image(path, usr_bytes=2 * MIB, root_bytes=MIB, sector_size=4096)
    slots = read_slots(path)
    assert partition_range(slots.a) == (MIB, 2 * MIB)
    assert slots.a.first_lba == MIB // 4096
    with open_passive(path, B, booted=A) as slot:
        slot.write(0, b"data")
    assert path.read_bytes()[3 * MIB :][:4] == b"data"


def test_labels_of_any_script_survive(tmp_path: Path) -> None:
    part = NewPartition(1, ROOT_TYPE, UUID(int=1), "größe", MIB)
    create_disk(tmp_path / "disk.img", (part,), sector_size=512, disk_guid=UUID(int=2))
    with pytest.raises(DiskError, match="slot A: found partitions none"):
        read_slots(tmp_path / "disk.img")
