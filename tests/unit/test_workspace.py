"""Throw-away folders: what stays, what goes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from careen.sandbox import workspace
from careen.sandbox.workspace import KEPT_LOGS, Workspace

OWNER = """
import os, pathlib, signal, sys
from careen.sandbox import workspace
workspace._MEMORY = pathlib.Path(sys.argv[1])
made = workspace.Workspace()
os.kill(made._janitor.pid, signal.SIGKILL)
print(made.path, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of the memory file system, and a cache of its own."""
    memory = tmp_path / "memory"
    memory.mkdir()
    monkeypatch.setattr(workspace, "_MEMORY", memory)
    monkeypatch.setenv("CAREEN_CACHE", str(tmp_path / "cache"))
    return memory


def test_removed_folder_leaves_only_its_logs(memory: Path) -> None:
    made = Workspace()
    assert made.path.stat().st_mode & 0o077 == 0
    (made.path / "data").write_text("x")
    (made.logs / "etcd.log").write_text("x")
    made.remove()
    assert not made.path.exists()
    assert (made.logs / "etcd.log").exists()


def test_next_workspace_sweeps_the_dead_and_spares_the_living(memory: Path) -> None:
    living = Workspace()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    owner = subprocess.run(
        [sys.executable, "-c", OWNER, str(memory)], env=environment, capture_output=True, text=True, check=False
    )
    assert owner.returncode == -signal.SIGKILL
    dead = Path(owner.stdout.strip())
    assert dead.exists(), "its janitor was killed too"
    later = Workspace()
    assert not dead.exists()
    assert living.path.exists()
    for each in (living, later):
        each.remove()


def test_logs_of_the_living_are_kept_beyond_the_count(memory: Path) -> None:
    oldest = Workspace()
    for _ in range(KEPT_LOGS + 2):
        Workspace().remove()
    assert oldest.logs.exists()
    assert len(list(oldest.logs.parent.iterdir())) <= KEPT_LOGS + 1
    oldest.remove()
