"""Which disk of this machine holds the slots, when nobody has named one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from careen.disk.block import LOCK_WAIT_SECONDS
from careen.disk.table import open_table
from careen.disk.types import USR_TYPE, AmbiguousSlotsError, DiskBusyError, DiskError

SYSFS_BLOCK = Path("/sys/block")
DEVICES = Path("/dev")

_NO_DISKS = ("loop", "ram", "zram", "sr", "fd", "dm-", "md")
"""Names of block devices that no firmware boots from; a loop device may well hold another machine's image."""


def find_disk(*, sysfs: Path = SYSFS_BLOCK, devices: Path = DEVICES, wait_seconds: float = LOCK_WAIT_SECONDS) -> Path:
    """The one disk of this machine that has partitions with the slots' type.

    sysfs, devices: where the kernel lists its disks, and where their nodes are. Raises AmbiguousSlotsError if there
    is none, saying what was looked at, or more than one; DiskBusyError if a disk can't be looked at in time, since it
    may be a second one; DiskError without the right to read disks.
    """
    holders: list[Path] = []
    others: list[str] = []
    for path in _list_disks(sysfs, devices):
        reason = _look(path, wait_seconds)
        if reason is None:
            holders.append(path)
        else:
            others.append(f"{path} ({reason})")
    if len(holders) == 1:
        return holders[0]
    if holders:
        names = ", ".join(str(path) for path in holders)
        raise AmbiguousSlotsError(f"more than one disk holds slots: {names}; allowed: name the disk meant")
    looked = ", ".join(others) or f"no disks in {sysfs}"
    raise AmbiguousSlotsError(
        f"no disk of this machine holds slots, looked at: {looked}; allowed: name a disk or image"
    )


def _list_disks(sysfs: Path, devices: Path) -> Iterator[Path]:
    if not sysfs.is_dir():
        return
    for folder in sorted(sysfs.iterdir()):
        if folder.name.startswith(_NO_DISKS) or _is_empty(folder / "size"):
            continue
        # The kernel writes the slash of names like cciss/c0d0 as an exclamation mark.
        yield devices / folder.name.replace("!", "/")


def _is_empty(size: Path) -> bool:
    """True for a drive without a medium."""
    try:
        return int(size.read_text()) == 0
    except (OSError, ValueError):
        return False


def _look(path: Path, wait_seconds: float) -> str | None:
    """None if the disk holds slots, else why it does not."""
    try:
        with open_table(path, wait_seconds=wait_seconds) as opened:
            if any(entry.type_guid == USR_TYPE for entry in opened.table.entries):
                return None
            return "no partition has the slots' type"
    except DiskBusyError:
        raise
    except PermissionError as error:
        raise DiskError(f"looking for the disk with the slots: no right to read {path}; run it as root") from error
    except (DiskError, OSError) as error:
        return error.strerror or "unreadable" if isinstance(error, OSError) else str(error).split(":", 1)[0]
