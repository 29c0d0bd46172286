"""Which disk the OS runs from, where its two slots are, and which of them runs. Refuses what is not certain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from careen.disk.slots import Slots
from careen.disk.table import read_slots
from careen.disk.types import AmbiguousSlotsError, Slot, SlotName

from .cmdline import find_word
from .devices import Device, find_bottom, find_by_number, read_devices, read_partitions
from .mounts import Mount, find_mount, lower_folders, read_mounts
from .root import Root

_MAX_OVERLAYS = 8
SLOT_WORD = "careen.slot"


@dataclass(frozen=True)
class Machine:
    """The disk of a running machine. disk: its device node as seen from here; a, b: the slots' devices."""

    disk: Path
    disk_name: str
    booted: SlotName
    a: Device
    b: Device

    def __getitem__(self, name: SlotName) -> Device:
        return self.a if name is SlotName.A else self.b


def find_machine(root: Root) -> Machine:
    """The disk, the slots and the booted side.

    Raises AmbiguousSlotsError with a sentence if any of them is in doubt, and what reading a partition table raises.
    """
    running = find_running(root)
    if running.disk is None:
        raise AmbiguousSlotsError(f"/usr runs from {running.node}, which is no partition; allowed: USR-A or USR-B")
    disk = root.at(f"/dev/{running.disk}")
    slots = read_slots(disk)
    devices = {name: _match(root, running.disk, slots[name]) for name in SlotName}
    booted = next((name for name, device in devices.items() if device.number == running.number), None)
    if booted is None:
        raise AmbiguousSlotsError(
            f"/usr runs from {running.node}, which is none of {devices[SlotName.A].node} (USR-A) and "
            f"{devices[SlotName.B].node} (USR-B)"
        )
    _check_word(root, booted)
    _check_other_disks(root, running.disk)
    return Machine(disk, running.disk, booted, devices[SlotName.A], devices[SlotName.B])


def find_running(root: Root) -> Device:
    """The partition that /usr runs from, through dm-verity, overlay and btrfs. Raises AmbiguousSlotsError."""
    mounts = read_mounts(root)
    mount = find_mount(mounts, "/usr")
    if mount is None:
        raise AmbiguousSlotsError("the mounts of the machine can't be read: /proc/1/mountinfo is empty")
    device = _find_device(root, mounts, mount, _MAX_OVERLAYS)
    bottom = find_bottom(root, device)
    if len(bottom) != 1:
        names = ", ".join(sorted(part.node for part in bottom))
        raise AmbiguousSlotsError(f"/usr runs from {len(bottom)} devices ({names}); allowed: one partition")
    return bottom[0]


def _find_device(root: Root, mounts: Sequence[Mount], mount: Mount, depth: int) -> Device:
    if mount.kind == "overlay":
        lowers = lower_folders(mount)
        if not lowers or depth == 0:
            raise AmbiguousSlotsError(f"{mount.place} is an overlay whose lower folder can't be told: {mount.options}")
        # The last is the bottom: the OS itself, under extensions.
        below = find_mount([other for other in mounts if other is not mount], lowers[-1])
        if below is None:
            raise AmbiguousSlotsError(f"{mount.place} is an overlay over {lowers[-1]}, which is not mounted")
        return _find_device(root, mounts, below, depth - 1)
    device = find_by_number(root, mount.device)
    if device is None and mount.source.startswith("/dev/"):
        # btrfs shows a number of its own; its source is the device.
        device = _find_by_node(root, mount.source)
    if device is None:
        raise AmbiguousSlotsError(
            f"/usr runs from {mount.source} ({mount.kind}, {mount.device}), which is no block device; "
            "allowed: a partition, also through dm-verity or overlay"
        )
    return device


def _find_by_node(root: Root, node: str) -> Device | None:
    name = node.removeprefix("/dev/")
    if name.startswith("mapper/"):
        label = name.removeprefix("mapper/")
        devices = read_devices(root)
        return next((one for one in devices if root.read(f"/sys/class/block/{one.name}/dm/name") == label), None)
    return next((device for device in read_devices(root) if device.name == name), None)


def _match(root: Root, disk: str, slot: Slot) -> Device:
    """The device of a slot: the kernel's partition with its number, if it lies where the table says."""
    for device in read_partitions(root, disk):
        if device.partition == slot.partition:
            if (device.start, device.size) == (slot.start, slot.size):
                return device
            raise AmbiguousSlotsError(
                f"{device.node} lies at byte {device.start} with {device.size} bytes for the kernel, and at "
                f"{slot.start} with {slot.size} in the table; the table was changed since the disk was read"
            )
    raise AmbiguousSlotsError(f"the kernel shows no partition {slot.partition} ({slot.label}) of /dev/{disk}")


def _check_word(root: Root, booted: SlotName) -> None:
    word = find_word(root.read("/proc/cmdline") or "", SLOT_WORD)
    if word is not None and word != booted.value:
        raise AmbiguousSlotsError(f"the kernel was told {SLOT_WORD}={word}, and /usr runs from slot {booted}")


def _check_other_disks(root: Root, disk: str) -> None:
    """A copy of the disk in the same machine makes it a matter of luck which one the next boot finds."""
    for device in read_devices(root):
        if device.disk not in (None, disk) and device.label in {name.label for name in SlotName}:
            raise AmbiguousSlotsError(
                f"{device.node} is labelled {device.label} too, and the OS runs from /dev/{disk}; "
                "allowed: one disk with slots"
            )


def read_machine_slots(machine: Machine) -> Slots:
    """Both slots as the disk has them now. Raises what reading a partition table raises."""
    return read_slots(machine.disk)
