"""Why the boot before this one ended, where the firmware or the watchdog kept it."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from careen.release.durable import PRIVATE, write_durably

from .root import Root

logger = logging.getLogger(__name__)

Reset = Literal["Panic", "Watchdog"]

_PLACES = ("/sys/fs/pstore", "/var/lib/systemd/pstore")
"""Where the kernel shows what it said last, and where systemd moves that to."""
_CARD_RESET = 0x20
"""WDIOF_CARDRESET of a watchdog's bootstatus: it reset the machine."""


@dataclass(frozen=True)
class Memory:
    """Panics, by the hash of what was said: those there before this boot, and those there now."""

    boot: str = ""
    before: list[str] = field(default_factory=list)
    now: list[str] = field(default_factory=list)


def find_reset(root: Root, memory: Path, boot_id: str) -> Reset | None:
    """Why the last boot ended. memory: file in the state folder with the panics of all earlier boots.

    A panic stays in its store until somebody clears it; only one that was not there in an earlier boot is news. One
    that can't be remembered, on a full disk, is news once more in the next boot: that is better than no agent.
    """
    known = _load(memory)
    # systemd may move a panic from store to store while this boot lasts: what it says stays.
    now = sorted(set(_read_panics(root)))
    before = known.before if known.boot == boot_id else known.now
    if (found := Memory(boot_id, before, now)) != known:
        try:
            write_durably(memory, json.dumps(asdict(found)).encode(), mode=PRIVATE)
        except OSError as error:
            logger.warning("the panics of this boot are not remembered: %s", error)
    if set(now) - set(before):
        return "Panic"
    return "Watchdog" if _has_watchdog_fired(root) else None


def _read_panics(root: Root) -> list[str]:
    """Hashes of the kept kernel messages that end in a panic. Their names are used again and again by some stores."""
    found = []
    for place in _PLACES:
        folder = root.at(place)
        for path in sorted(folder.rglob("dmesg-*")) if folder.is_dir() else ():
            try:
                if path.is_file() and (data := path.read_bytes()).startswith(b"Panic"):
                    found.append(hashlib.sha256(data).hexdigest())
            except OSError as error:
                logger.warning("%s can't be read: %s", path, error)
    return found


def _load(path: Path) -> Memory:
    try:
        return Memory(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return Memory()
    except (OSError, ValueError, TypeError) as error:
        logger.warning("%s can't be read and is made anew: %s", path, error)
        return Memory()


def _has_watchdog_fired(root: Root) -> bool:
    for name in root.names("/sys/class/watchdog"):
        status = root.read(f"/sys/class/watchdog/{name}/bootstatus")
        if status and status.isdigit() and int(status) & _CARD_RESET:
            return True
    return False
