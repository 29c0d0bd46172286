"""The unit files on a machine, and what was started in this boot: in a folder that does not outlive the boot."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from careen.units.file import hash_text
from careen.units.names import check_name

from .sight import Launch
from .systemd import Shelved

logger = logging.getLogger(__name__)

FILES = "units"
"""Folder of the unit files."""
MEMORY = "units.json"
"""What was started, and whether systemd has read the files."""
FILE_MODE = 0o644
"""systemd warns of unit files that not everybody can read; they hold no secrets."""


class FolderShelf:
    """The shelf in a folder: /run/careen on a real machine.

    Files are written beside their place and renamed: an agent that is killed leaves a whole file or none. They are not
    flushed to a disk, since a tmpfs has none.
    """

    def __init__(self, folder: Path) -> None:
        self.files = folder / FILES
        self._memory = folder / MEMORY
        self._hashes: dict[str, tuple[tuple[int, int, int], str]] = {}

    def look(self) -> Shelved:
        """What is there now. A file that has not changed since the last look is not read again."""
        launches, unread = self._load()
        return Shelved(self._look_at_files(), launches, unread)

    def read(self, name: str) -> str | None:
        """The file of one unit."""
        try:
            return (self.files / name).read_text()
        except FileNotFoundError:
            return None

    def write(self, name: str, text: str) -> None:
        """Write a unit's file."""
        if (fault := check_name(name)) is not None:
            raise ValueError(f"{name!r} can't be a file of units: {fault}")
        self.files.mkdir(parents=True, exist_ok=True, mode=0o755)
        _write(self.files / name, text, FILE_MODE)

    def remove(self, name: str) -> None:
        """Take a unit's file away."""
        (self.files / name).unlink(missing_ok=True)

    def note_launch(self, name: str, launch: Launch | None) -> None:
        """Remember that a unit was started; None: forget it."""
        launches, unread = self._load()
        if launches.get(name) == launch:
            return
        changed = {**launches, name: launch} if launch else {key: launches[key] for key in launches if key != name}
        self._save(changed, unread)

    def note_unread(self, unread: bool) -> None:
        """Remember whether systemd has still to read the files."""
        launches, before = self._load()
        if before != unread:
            self._save(launches, unread)

    def _look_at_files(self) -> dict[str, str]:
        held: dict[str, str] = {}
        seen: dict[str, tuple[tuple[int, int, int], str]] = {}
        try:
            entries = sorted(os.scandir(self.files), key=lambda each: each.name)
        except FileNotFoundError:
            entries = []
        for entry in entries:
            if check_name(entry.name) is not None or not entry.is_file(follow_symlinks=False):
                continue
            with suppress(FileNotFoundError):
                stat = entry.stat(follow_symlinks=False)
                stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
                known = self._hashes.get(entry.name)
                found = known[1] if known and known[0] == stamp else _hash(Path(entry.path))
                seen[entry.name], held[entry.name] = (stamp, found), found
        self._hashes = seen
        return held

    def _load(self) -> tuple[dict[str, Launch], bool]:
        try:
            document: dict[str, Any] = json.loads(self._memory.read_bytes())
            launches = {name: Launch(**launch) for name, launch in document["launches"].items()}
            return launches, bool(document["unread"])
        except FileNotFoundError:
            return {}, False
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            # Somebody else wrote it. What runs counts as not started by us, and a start of it changes nothing.
            logger.error("%s can't be read, so units may be started again: %s", self._memory, error)
            return {}, True

    def _save(self, launches: dict[str, Launch], unread: bool) -> None:
        told = {name: asdict(each) for name, each in launches.items()}
        self._memory.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        _write(self._memory, json.dumps({"launches": told, "unread": unread}), 0o600)


class MemoryShelf:
    """The shelf of a machine that lives in memory. `clear` at each boot."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything, as at a boot."""
        self._files: dict[str, str] = {}
        self._launches: dict[str, Launch] = {}
        self._unread = False

    def look(self) -> Shelved:
        """What is there now."""
        held = {name: hash_text(text) for name, text in sorted(self._files.items())}
        return Shelved(held, dict(self._launches), self._unread)

    def read(self, name: str) -> str | None:
        """The file of one unit."""
        return self._files.get(name)

    def write(self, name: str, text: str) -> None:
        """Write a unit's file."""
        self._files[name] = text

    def remove(self, name: str) -> None:
        """Take a unit's file away."""
        self._files.pop(name, None)

    def note_launch(self, name: str, launch: Launch | None) -> None:
        """Remember that a unit was started; None: forget it."""
        if launch is None:
            self._launches.pop(name, None)
        else:
            self._launches[name] = launch

    def note_unread(self, unread: bool) -> None:
        """Remember whether systemd has still to read the files."""
        self._unread = unread


def _hash(path: Path) -> str:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()


def _write(path: Path, text: str, mode: int) -> None:
    # One name for all: that of a unit may be as long as a name can be.
    fresh = path.with_name(".new")
    fresh.write_text(text)
    fresh.chmod(mode)
    fresh.replace(path)
