"""Throw-away folders that vanish with the process that made them."""

import fcntl
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from careen.sandbox.binaries import SandboxError, cache_folder

_MEMORY = Path("/dev/shm")  # noqa: S108

KEPT_LOGS = 8

# Waits for the end of its standard input, which comes when the owner closes it or dies. By then the
# owner's children are being killed, but may write for a moment more: hence the tries.
_JANITOR = """
read -r _
tries=0
while [ -e "$1" ] && [ $tries -lt 25 ]; do
  rm -rf -- "$1" 2>/dev/null
  tries=$((tries + 1))
  [ -e "$1" ] && sleep 0.2
done
"""


class Workspace:
    """A private folder, in memory where there is a memory file system, and a folder for logs that stays.

    Three things remove the first: `remove`; a janitor process when this one ends in any way, SIGKILL included;
    and the next Workspace of this user, should the janitor have been killed too.
    """

    path: Path
    """The folder, readable by its owner only."""
    logs: Path
    """The folder for logs; those of the last few workspaces are kept."""

    def __init__(self) -> None:
        base = base_folder()
        with _locked(base / "lock"):
            _sweep(base)
            self.path = Path(tempfile.mkdtemp(prefix="plane-", dir=base))
            self._owned = _mark_owned(self.path)
        self.logs, self._logging = _make_log_folder()
        self._janitor = subprocess.Popen(
            ["/bin/sh", "-c", _JANITOR, "sh", str(self.path)],
            stdin=subprocess.PIPE,
            # Its own session: Ctrl-C in the terminal must not end it before its work.
            start_new_session=True,
        )

    def remove(self) -> None:
        """Remove the folder. Its users must have ended."""
        shutil.rmtree(self.path, ignore_errors=True)
        for lock in (self._owned, self._logging):
            lock.close()
        try:
            self._janitor.communicate(b"done\n", timeout=10)
        except subprocess.TimeoutExpired:
            self._janitor.kill()


def base_folder() -> Path:
    """The folder of this user's workspaces; raises SandboxError when it belongs to somebody else."""
    parent = _MEMORY if os.access(_MEMORY, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
    base = parent / f"careen-{os.getuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    # Keys are kept here: a folder that another user made beforehand would let that user read them.
    if base.is_symlink() or base.stat().st_uid != os.getuid():
        raise SandboxError(f"{base} belongs to another user: remove it")
    return base


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _take_lock(path: Path) -> IO[str] | None:
    """Lock a file for as long as this process lives; None when somebody else holds it.

    A lock rather than a process id: the kernel drops it with its holder, and it can't be mistaken for
    a later process with the same number.
    """
    lock = path.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def _mark_owned(folder: Path) -> IO[str]:
    """Lock a new folder for ourselves."""
    lock = _take_lock(folder / "owner")
    assert lock is not None, f"{folder} is new, but locked"
    return lock


def _sweep(base: Path) -> None:
    """Remove the folders whose owners are dead."""
    for folder in base.glob("plane-*"):
        _remove_unowned(folder)


def _remove_unowned(folder: Path) -> None:
    if lock := _take_lock(folder / "owner"):
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()


def _make_log_folder() -> tuple[Path, IO[str]]:
    """Make a folder named by the time, and remove old ones that nobody writes to any more."""
    base = cache_folder() / "logs"
    base.mkdir(parents=True, exist_ok=True)
    with _locked(base.parent / "logs.lock"):
        for old in sorted(base.iterdir())[: 1 - KEPT_LOGS]:
            _remove_unowned(old)
        folder = base / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{secrets.token_hex(2)}"
        folder.mkdir()
        return folder, _mark_owned(folder)
