"""Files that are old or new after a kill or a power cut, never in between."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import ReleaseError

FRESH_SUFFIX = ".new"
PRIVATE = 0o600
"""The mode of files that only their owner may read."""
_POLL_SECONDS = 0.05


def write_durably(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace a file's contents: written beside it, flushed, renamed, and the rename flushed. Raises OSError."""
    fresh = path.with_name(f".{path.name}{FRESH_SUFFIX}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            # The mode is part of what was asked for; the caller's umask is not.
            os.fchmod(fd, mode)
            file.write(data)
            file.flush()
            os.fsync(fd)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def hold_folder(folder: Path, wait_seconds: float) -> Iterator[None]:
    """Hold a folder for one thread of one process. Raises ReleaseError if another has it for longer than that."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        until = time.monotonic() + wait_seconds
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if time.monotonic() >= until:
                raise ReleaseError(f"{folder} is in use by another process for more than {wait_seconds:g} s")
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(fd)
