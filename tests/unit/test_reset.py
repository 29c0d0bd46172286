"""The marker of a reset: what it says, what is deleted, and what a power cut half-way leaves."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from careen.agent import reset
from careen.agent.reset import KEPT, MARKER, MarkerError, format_marker, obey_reset, parse_marker, prepare_reset


def grow(root: Path) -> None:
    """A machine's ROOT with all that may lie there."""
    for path in (
        "etc/machine-id", "etc/ssh/ssh_host_ed25519_key", "etc/ssh/ssh_host_ed25519_key.pub", "etc/ssh/sshd_config",
        "etc/careen/agent.kubeconfig", "etc/hostname", "var/lib/careen/journal.json", "var/lib/careen/releases/a.json",
        "var/lib/careenx/f", "var/lib/kubelet/pods/a/b", "var/log/messages", "home/core/.profile", ".hidden",
    ):  # fmt: skip
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    (root / "link").symlink_to("etc")
    (root / "var" / "run").symlink_to("/nowhere")


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir() or path.is_symlink()}


SCRIPT = Path(__file__).parents[2] / "tools" / "testos" / "files" / "reset.sh"


def obey_in_shell(root: Path) -> bool:
    """What the test OS's initramfs does."""
    there = (root / MARKER).exists()
    command = ["sh", "-c", f'. "{SCRIPT}"; obey_reset "$1"', "sh", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise MarkerError(f"allowed: a marker that can be read; {done.stderr}")
    return there


Obey = Callable[[Path], bool]
OBEYERS = pytest.mark.parametrize("obey", [obey_reset, obey_in_shell], ids=["python", "shell"])
KEPT_FILES = {
    "etc/machine-id", "etc/ssh/ssh_host_ed25519_key", "etc/ssh/ssh_host_ed25519_key.pub",
    "etc/careen/agent.kubeconfig", "var/lib/careen/journal.json", "var/lib/careen/releases/a.json",
}  # fmt: skip


@OBEYERS
def test_all_is_deleted_but_the_machines_identity_and_memory(tmp_path: Path, obey: Obey) -> None:
    grow(tmp_path)
    prepare_reset(tmp_path)
    assert obey(tmp_path)
    assert files(tmp_path) == KEPT_FILES


@OBEYERS
def test_without_a_marker_nothing_is_deleted(tmp_path: Path, obey: Obey) -> None:
    grow(tmp_path)
    before = files(tmp_path)
    assert not obey(tmp_path)
    assert files(tmp_path) == before


@OBEYERS
def test_a_link_to_a_kept_folder_is_no_way_around_it(tmp_path: Path, obey: Obey) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    root = tmp_path / "root"
    (root / "var").mkdir(parents=True)
    (root / "var" / "lib").symlink_to(outside)
    prepare_reset(root)
    assert obey(root)
    assert (outside / "precious").exists()


def test_a_power_cut_at_any_deletion_only_means_to_begin_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class PowerCutError(Exception):
        pass

    real = Path.unlink
    for survives in range(12):
        root = tmp_path / str(survives)
        root.mkdir()
        grow(root)
        prepare_reset(root)
        left = [survives]

        def unlink(path: Path, missing_ok: bool = False, left: list[int] = left) -> None:
            if not left[0]:
                raise PowerCutError
            left[0] -= 1
            real(path, missing_ok=missing_ok)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", unlink)
            try:
                obey_reset(root)
            except PowerCutError:
                assert (root / MARKER).exists(), "the marker goes last"
                assert files(root) >= KEPT_FILES
        obey_reset(root)
        assert files(root) == KEPT_FILES


def test_the_marker_says_what_an_initramfs_needs() -> None:
    text = format_marker(KEPT)
    assert text.splitlines()[0] == "careen-reset 1"
    assert "keep etc/ssh/ssh_host_*\n" in text
    assert parse_marker(text) == KEPT


@pytest.mark.parametrize(
    "text",
    [
        "", "careen-reset 2\nkeep a\n", "careen-reset 1\ndrop a\n", "careen-reset 1\nkeep /etc\n",
        "careen-reset 1\nkeep ../x\n", "careen-reset 1\nkeep a*/b\n", "careen-reset 1\nkeep \n",
    ],
)  # fmt: skip
@OBEYERS
def test_a_marker_that_can_not_be_read_deletes_nothing(tmp_path: Path, text: str, obey: Obey) -> None:
    grow(tmp_path)
    (tmp_path / MARKER).write_text(text)
    before = files(tmp_path)
    with pytest.raises(MarkerError, match="allowed: "):
        obey(tmp_path)
    assert files(tmp_path) == before


def test_dropping_it_twice_is_no_error(tmp_path: Path) -> None:
    prepare_reset(tmp_path)
    reset.drop_reset(tmp_path)
    reset.drop_reset(tmp_path)
    assert not reset.is_prepared(tmp_path)
