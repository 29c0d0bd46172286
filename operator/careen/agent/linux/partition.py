"""The bytes of one slot through its own device node: the passive one for writing, refused while anybody uses it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from careen.disk.block import BlockFile
from careen.disk.image import PartitionFile
from careen.disk.types import GIVEN_UP, DiskError, SlotName, UnsafeChangeError

from .devices import Device, read_holders
from .discovery import Machine, find_machine, read_machine_slots
from .mounts import read_mounts, read_swaps
from .root import Root

_SECTOR = 512


class SlotBusyError(DiskError):
    """Somebody uses the passive slot; the message says who."""


@contextmanager
def open_for_reading(root: Root, machine: Machine, name: SlotName) -> Iterator[PartitionFile]:
    """A slot's bytes for reading. Raises OSError, DiskError."""
    with _opened(root, machine[name], os.O_RDONLY) as opened:
        yield opened


@contextmanager
def open_for_writing(root: Root, machine: Machine, name: SlotName) -> Iterator[PartitionFile]:
    """The passive slot's bytes for writing, held with O_EXCL so that nothing can be mounted from it meanwhile.

    Everything is looked up again first. Raises UnsafeChangeError for the booted slot and for one that could boot,
    SlotBusyError if it is in use, AmbiguousSlotsError if the machine has changed, OSError.
    """
    now = find_machine(root)
    if now != machine:
        raise UnsafeChangeError(f"the machine's disk is not what it was: {now.disk}, slot {now.booted} runs")
    if name is machine.booted:
        raise UnsafeChangeError(f"slot {name} is the booted one and is never written; allowed: slot {name.other}")
    attributes = read_machine_slots(machine)[name].attributes
    if attributes != GIVEN_UP:
        raise UnsafeChangeError(f"slot {name} has {attributes}; allowed: writing to a slot that has {GIVEN_UP}")
    require_unused(root, machine[name])
    with _opened(root, machine[name], os.O_RDWR | os.O_EXCL) as opened:
        yield opened


def require_unused(root: Root, device: Device) -> None:
    """Raise SlotBusyError if a device is mounted, swapped on, or below a device mapper or md device."""
    for mount in read_mounts(root):
        if mount.device == device.number or mount.source == device.node:
            raise SlotBusyError(f"{device.node} is mounted at {mount.place}; allowed: a slot that nobody uses")
    for path in read_swaps(root):
        if path == device.node:
            raise SlotBusyError(f"{device.node} is swapped on; allowed: a slot that nobody uses")
    if holders := read_holders(root, device):
        raise SlotBusyError(f"{device.node} is held by {', '.join(holders)}; allowed: a slot that nobody uses")


@contextmanager
def _opened(root: Root, device: Device, flags: int) -> Iterator[PartitionFile]:
    path = root.at(device.node)
    try:
        fd = os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise SlotBusyError(f"{device.node} is in use by another program or by the kernel") from error
        raise
    try:
        _check_node(fd, path, device)
        yield PartitionFile(BlockFile(path, fd, device.size, _SECTOR), device.node, 0, device.size)
    finally:
        os.close(fd)


def _check_node(fd: int, path: Path, device: Device) -> None:
    """The node must be the device that /sys spoke of."""
    status = os.fstat(fd)
    if stat.S_ISBLK(status.st_mode):
        number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
        if number != device.number:
            raise UnsafeChangeError(f"{path} is device {number}; expected {device.number}, the slot")
    elif status.st_size != device.size:
        raise UnsafeChangeError(f"{path} has {status.st_size} bytes; expected {device.size}, the slot")
