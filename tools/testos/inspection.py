"""What lies on a machine's disk, read from outside as a firmware would."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from careen.disk.boot import choose
from careen.disk.slots import find_slots
from careen.disk.table import open_table
from careen.disk.types import Attributes, Slot
from careen.release.bootblock import BOOT_BLOCK_BYTES, decode_boot_block

from .disk import ESP_TYPE
from .esp import list_entries


@dataclass(frozen=True)
class SlotOnDisk:
    """One slot."""

    letter: str
    attributes: Attributes
    version: str
    """Version by its boot block; empty when it holds none."""
    next: bool
    """Whether a reset would boot it."""


def read_slots_of(disk: Path) -> tuple[SlotOnDisk, SlotOnDisk]:
    """Both slots, A first. Raises DiskError when the table can't be understood, ReleaseInvalidError, OSError."""
    with open_table(disk) as opened:
        slots = find_slots(opened.table)
    chosen = choose(slots.in_table_order)
    a, b = (
        SlotOnDisk(letter, slot.attributes, _read_version(disk, slot), chosen is slot)
        for letter, slot in (("A", slots.a), ("B", slots.b))
    )
    return a, b


def read_boot_entries(disk: Path) -> list[str]:
    """Names of systemd-boot's entries, sorted. Raises TestOsError, and ValueError if there is no ESP or another one."""
    with open_table(disk) as opened:
        (esp,) = (entry for entry in opened.table.entries if entry.type_guid == ESP_TYPE)
        start = esp.start
    return list_entries(disk, start)


def _read_version(disk: Path, slot: Slot) -> str:
    with disk.open("rb") as opened:
        opened.seek(slot.start + slot.size - BOOT_BLOCK_BYTES)
        block = decode_boot_block(opened.read(BOOT_BLOCK_BYTES))
    return block.version if block is not None else ""
