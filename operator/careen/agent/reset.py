"""The marker of a reset: a file at the top of the ROOT partition that the next boot's initramfs obeys.

Its first line is `careen-reset 1`, and each line after that is `keep PATTERN`: a shell pattern below ROOT whose last
part alone may hold wildcards. Whoever obeys it deletes all else on ROOT, and the marker as the very last thing, so
that a power cut half-way only means to begin again. A marker that can't be read is left alone, and nothing is deleted.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from careen.release.durable import PRIVATE, sync_folder, write_durably

MARKER: Final = "careen-reset"
"""Name of the marker at the top of ROOT."""
HEADER: Final = "careen-reset 1"
KEPT: Final = (
    "etc/machine-id",
    "etc/ssh/ssh_host_*",
    "etc/careen",
    "var/lib/careen",
)
"""What makes a Linux machine this machine: its identity, its SSH host keys, the agent's credentials and its memory."""


class MarkerError(ValueError):
    """A marker that is none; the message tells the line and what is allowed."""


def format_marker(kept: Sequence[str]) -> str:
    """The marker's text. Raises MarkerError for a pattern that could name something outside ROOT."""
    for pattern in kept:
        _check_pattern(pattern)
    return "".join(f"{line}\n" for line in (HEADER, *(f"keep {pattern}" for pattern in kept)))


def parse_marker(text: str) -> tuple[str, ...]:
    """The patterns to keep. Raises MarkerError."""
    header, *lines = text.splitlines() or [""]
    if header != HEADER:
        raise MarkerError(f"the first line is {header!r}; allowed: {HEADER!r}")
    kept = []
    for line in lines:
        word, _, pattern = line.partition(" ")
        if word != "keep":
            raise MarkerError(f"{line!r} is no line of a marker; allowed: 'keep PATTERN'")
        _check_pattern(pattern)
        kept.append(pattern)
    return tuple(kept)


def prepare_reset(root: Path, kept: Sequence[str] = KEPT) -> None:
    """Write the marker, durably. Raises OSError."""
    write_durably(root / MARKER, format_marker(kept).encode(), mode=PRIVATE)


def drop_reset(root: Path) -> None:
    """Take the marker away, durably. Raises OSError."""
    (root / MARKER).unlink(missing_ok=True)
    sync_folder(root)


def is_prepared(root: Path) -> bool:
    """Whether the next boot would reset the machine."""
    return (root / MARKER).exists()


def obey_reset(root: Path) -> bool:
    """Do what an initramfs does: empty ROOT but for what the marker keeps; whether there was a marker.

    Raises MarkerError, OSError.
    """
    marker = root / MARKER
    if not marker.exists():
        return False
    _empty(root, Path(), parse_marker(marker.read_text()))
    sync_folder(root)
    drop_reset(root)
    return True


def _empty(root: Path, folder: Path, kept: Sequence[str]) -> None:
    for entry in sorted((root / folder).iterdir()):
        path = folder / entry.name
        if str(path) == MARKER or any(fnmatchcase(str(path), pattern) for pattern in kept):
            continue
        if any(pattern.startswith(f"{path}/") for pattern in kept) and entry.is_dir() and not entry.is_symlink():
            _empty(root, path, kept)
        elif entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _check_pattern(pattern: str) -> None:
    parts = pattern.split("/")
    if any(part in ("", ".", "..") for part in parts) or any(c in "*?[" for part in parts[:-1] for c in part):
        raise MarkerError(
            f"{pattern!r} is no pattern of a marker; allowed: a path below ROOT, wildcards in its last part"
        )
