"""The test loader's shell code against the package's own table code: two writings of one rule."""

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from careen.disk.boot import choose_entry
from careen.disk.image import create_image
from careen.disk.table import open_table
from careen.disk.types import Attributes

GPT = Path(__file__).parents[3] / "tools/testos/files/gpt.sh"
MIB = 1 << 20

BUSYBOX = shutil.which("busybox")
pytestmark = pytest.mark.skipif(BUSYBOX is None, reason="busybox is not installed (tools/packages vm)")

attributes = st.builds(Attributes, priority=st.integers(0, 15), tries=st.integers(0, 15), successful=st.booleans())


def run_shell(disk: Path, script: str) -> str:
    """Output of a script that has the loader's functions; the table is read before."""
    work = disk.with_suffix(".work")
    work.mkdir(exist_ok=True)
    text = f". {GPT}\nDISK={disk} WORK={work}\nread_table || exit 9\n{script}"
    # Only busybox's own commands, as inside the loader.
    done = subprocess.run(
        [str(BUSYBOX), "sh", "-c", text],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": str(_applets(disk.parent))},
        check=True,
    )
    assert not done.stderr
    return done.stdout.strip()


def _applets(folder: Path) -> Path:
    place = folder / "bin"
    if not place.exists():
        place.mkdir()
        for name in subprocess.run([str(BUSYBOX), "--list"], capture_output=True, text=True, check=True).stdout.split():
            (place / name).symlink_to(str(BUSYBOX))
    return place


def make_disk(folder: Path, a: Attributes, b: Attributes) -> Path:
    disk = folder / "disk.img"
    disk.unlink(missing_ok=True)
    create_image(disk, usr_bytes=MIB, root_bytes=MIB, attributes_a=a, attributes_b=b)
    return disk


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(a=attributes, b=attributes)
def test_chooses_what_the_package_chooses(tmp_path: Path, a: Attributes, b: Attributes) -> None:
    disk = make_disk(tmp_path, a, b)
    with open_table(disk) as opened:
        expected = choose_entry(opened.table)
    chosen = run_shell(disk, 'choose_slot " "')
    assert chosen == (str(expected.partition) if expected else "")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(a=attributes, b=attributes)
def test_uses_one_try_and_changes_nothing_else(tmp_path: Path, a: Attributes, b: Attributes) -> None:
    disk = make_disk(tmp_path, a, b)
    before = disk.read_bytes()
    run_shell(disk, "use_try 4 || exit 8")
    with open_table(disk) as opened:
        found = {entry.partition: entry.attributes for entry in opened.table.entries}
        assert opened.table.faults == ()
    assert found[3] == a
    assert found[4] == Attributes(b.priority, max(b.tries - 1, 0), b.successful)
    if b.tries == 0:
        assert disk.read_bytes() == before


def test_takes_the_next_slot_when_one_is_passed(tmp_path: Path) -> None:
    disk = make_disk(tmp_path, Attributes(1, 0, True), Attributes(2, 1, False))
    assert run_shell(disk, 'choose_slot " "; choose_slot " 4 "; choose_slot " 4 3 "').split("\n") == ["4", "3"]


@pytest.mark.parametrize(("damaged", "words"), [(512, "bad good"), (1024, "bad good"), (-512, "good bad")])
def test_reads_the_copy_that_is_right_and_repairs_the_other(tmp_path: Path, damaged: int, words: str) -> None:
    disk = make_disk(tmp_path, Attributes(2, 3, True), Attributes(1, 0, True))
    with disk.open("r+b") as file:
        file.seek(damaged, 0 if damaged > 0 else 2)
        file.write(b"\xff" * 16)
    assert run_shell(disk, "echo $PRIMARY $BACKUP; choose_slot ' '; use_try 3").split("\n") == [words, "3"]
    with open_table(disk) as opened:
        assert opened.table.faults == ()
        assert opened.table.entries[0].attributes == Attributes(2, 2, True)
    # And a slot without tries repairs as well.
    assert run_shell(disk, "echo $PRIMARY $BACKUP") == "good good"


def test_refuses_a_disk_with_two_bad_copies(tmp_path: Path) -> None:
    disk = make_disk(tmp_path, Attributes(1, 0, True), Attributes(0, 0, False))
    with disk.open("r+b") as file:
        file.seek(1024)
        file.write(b"\xff" * 16)
        file.seek(-512, 2)
        file.write(b"\xff" * 16)
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run_shell(disk, "echo read")
    assert caught.value.returncode == 9
