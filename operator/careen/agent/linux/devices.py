"""Block devices as /sys shows them: which disk a device lies on, through device mapper and md."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from careen.disk.types import AmbiguousSlotsError

from .root import Root

_SECTOR = 512
"""Unit of `start` and `size` in /sys, whatever the disk's sectors are."""
_MAX_DEPTH = 16


@dataclass(frozen=True)
class Device:
    """A block device. name: the kernel's, such as vda3; number: `major:minor`; disk: name of the disk it is a part of.

    partition: its number, None for a whole disk. start, size: bytes. label: of the partition, as the kernel read it.
    """

    name: str
    number: str
    disk: str | None
    partition: int | None
    start: int
    size: int
    label: str | None

    @property
    def node(self) -> str:
        """Path of its device node."""
        return f"/dev/{self.name}"


def read_device(root: Root, name: str) -> Device:
    """One device by its name in /sys/class/block. Raises AmbiguousSlotsError if it is not there."""
    folder = _folder(root, f"/sys/class/block/{name}")
    number = _text(folder / "dev")
    if number is None:
        raise AmbiguousSlotsError(f"/sys/class/block/{name} shows no device; allowed: a block device")
    partition = _text(folder / "partition")
    return Device(
        name=name.replace("!", "/"),
        number=number,
        disk=folder.parent.name if partition else None,
        partition=int(partition) if partition else None,
        start=int(_text(folder / "start") or 0) * _SECTOR,
        size=int(_text(folder / "size") or 0) * _SECTOR,
        label=_uevent(folder).get("PARTNAME"),
    )


def find_by_number(root: Root, number: str) -> Device | None:
    """The device with this `major:minor`; None if there is none (major 0: overlay, tmpfs and the like)."""
    link = root.at(f"/sys/dev/block/{number}")
    if link.exists():
        return read_device(root, _resolve(link, root).name)
    return next((device for device in read_devices(root) if device.number == number), None)


def read_devices(root: Root) -> tuple[Device, ...]:
    """All block devices; one that goes away meanwhile is left out."""
    found = []
    for name in root.names("/sys/class/block"):
        try:
            found.append(read_device(root, name))
        except AmbiguousSlotsError:
            continue
    return tuple(found)


def find_bottom(root: Root, device: Device) -> tuple[Device, ...]:
    """What a device consists of in the end: itself, or the partitions below its device mapper and md devices."""
    found: dict[str, Device] = {}
    _descend(root, device, found, _MAX_DEPTH)
    return tuple(found.values())


def read_holders(root: Root, device: Device) -> tuple[str, ...]:
    """Names of the device mapper and md devices that lie on this one."""
    return tuple(root.names(f"/sys/class/block/{device.name.replace('/', '!')}/holders"))


def read_partitions(root: Root, disk: str) -> tuple[Device, ...]:
    """The partitions of a disk."""
    return tuple(device for device in read_devices(root) if device.disk == disk)


def _descend(root: Root, device: Device, found: dict[str, Device], depth: int) -> None:
    slaves = root.names(f"/sys/class/block/{device.name.replace('/', '!')}/slaves")
    if not slaves:
        found[device.name] = device
        return
    if depth == 0:
        raise AmbiguousSlotsError(f"{device.node} lies on more than {_MAX_DEPTH} layers of devices")
    for slave in slaves:
        _descend(root, read_device(root, slave), found, depth - 1)


def _folder(root: Root, path: str) -> Path:
    return _resolve(root.at(path), root)


def _resolve(link: Path, root: Root) -> Path:
    """Follow one link by hand: an absolute one in a fake root must not lead out of it."""
    if not link.is_symlink():
        return link
    target = link.readlink()
    return root.at(str(target)) if target.is_absolute() else (link.parent / target).resolve()


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _uevent(folder: Path) -> dict[str, str]:
    lines = (_text(folder / "uevent") or "").splitlines()
    return {key: value for key, separator, value in (line.partition("=") for line in lines) if separator}
