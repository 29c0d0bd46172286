"""What is mounted where, and what is swapped on, as the kernel tells it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .root import Root


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo. device: `major:minor`, of no block device where major is 0."""

    device: str
    place: str
    kind: str
    source: str
    options: str


def read_mounts(root: Root) -> tuple[Mount, ...]:
    """All mounts of the machine's first process; empty if they can't be read."""
    text = root.read("/proc/1/mountinfo") or root.read("/proc/self/mountinfo") or ""
    return tuple(mount for line in text.splitlines() if (mount := _parse(line)) is not None)


def find_mount(mounts: Sequence[Mount], path: str) -> Mount | None:
    """The mount that holds an absolute path: the longest place above it, of several at one place the last."""
    best: Mount | None = None
    for mount in mounts:
        inside = path == mount.place or path.startswith(mount.place.rstrip("/") + "/")
        if inside and (best is None or len(mount.place) >= len(best.place)):
            best = mount
    return best


def lower_folders(mount: Mount) -> tuple[str, ...]:
    """The lower folders of an overlay, the topmost first; paths with a colon can't be told apart, and none has one."""
    match = re.search(r"(?:^|,)lowerdir=([^,]*)", mount.options)
    return tuple(_unescape(part) for part in match[1].split(":") if part) if match else ()


def read_swaps(root: Root) -> tuple[str, ...]:
    """Paths of the devices and files that are swapped on."""
    lines = (root.read("/proc/swaps") or "").splitlines()[1:]
    return tuple(_unescape(line.split()[0]) for line in lines if line.split())


def _parse(line: str) -> Mount | None:
    """ID PARENT MAJ:MIN ROOT PLACE OPTIONS [FIELDS…] - KIND SOURCE SUPER-OPTIONS."""
    left, separator, right = line.partition(" - ")
    before, after = left.split(" "), right.split(" ")
    if not separator or len(before) < 6 or len(after) < 2:
        return None
    options = after[2] if len(after) > 2 else ""
    return Mount(before[2], _unescape(before[4]), after[0], _unescape(after[1]), options)


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
