"""The index of the release that is being staged, kept in the state folder until the staging is done."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

from careen.release.durable import PRIVATE, write_durably
from careen.release.manifest import StaticFile

logger = logging.getLogger(__name__)

MAX_INDEX_BYTES = 16 << 20
"""Longer ones are fetched again: the whole state folder is to stay below 64 MiB."""
SPARE_BYTES = 32 << 20
"""What must stay free beside it: the journal and the records come first."""


class KeptIndex:
    """One file, for a staging that is cut short and begun again. It is only ever an offer: its hash must be right."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self, file: StaticFile) -> bytes | None:
        """What was kept, if it is this file of the repository."""
        try:
            data = self._path.read_bytes()
        except OSError:
            return None
        return data if hashlib.sha256(data).hexdigest() == file.sha256 else None

    def save(self, data: bytes) -> None:
        """Keep an index, in the place of any other, if it is not too long and there is room enough."""
        try:
            self._path.unlink(missing_ok=True)
            room = os.statvfs(self._path.parent)
            if len(data) <= min(MAX_INDEX_BYTES, room.f_bavail * room.f_frsize - SPARE_BYTES):
                write_durably(self._path, data, mode=PRIVATE)
        except OSError as error:
            logger.warning("the index is not kept for another try: %s", error)

    def drop(self) -> None:
        """Forget it."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("the index stays until the next staging: %s", error)
