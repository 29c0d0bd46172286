"""The simulated firmware of a machine folder: it picks a slot by the boot rule and says what it found there."""

from __future__ import annotations

import json
import shutil
import time
import uuid
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

from careen.agent.imagehost import BootRecord, MachineFolder
from careen.agent.record import Method
from careen.agent.reset import obey_reset
from careen.disk.boot import boot
from careen.disk.ext4 import read_ext4_file
from careen.disk.table import read_slots
from careen.disk.types import Slot, SlotName, ToolFailedError
from careen.release.durable import PRIVATE, write_durably

OS_RELEASE = "/lib/os-release"
FAULT_FILE = "/lib/careen-fault"
"""Below /usr, as which the image is mounted."""

Reset = Literal["Panic", "Watchdog"]


class Fault(StrEnum):
    """What is wrong with an OS, as its tree says in /usr/lib/careen-fault."""

    PANIC = "panic"
    """Its kernel panics; after that the reset's reason can be read."""
    HANG = "hang"
    """It hangs until the watchdog resets the machine."""
    NO_AGENT = "no-agent"
    """Its agent never starts; the timer outside the trial's user space resets the machine."""
    UNHEALTHY = "unhealthy"
    """Its local gates never pass."""
    UNHEALTHY_ONCE = "unhealthy-once"
    """Its local gates do not pass in its first boot on a machine."""


class BootError(Exception):
    """Nothing boots: no slot may be chosen, or the chosen one holds no OS."""


@dataclass(frozen=True)
class Booted:
    """What runs now."""

    record: BootRecord
    good: bool
    """Whether the slot is marked good; otherwise this is a trial."""
    fault: Fault | None


def power_on(folder: Path, *, reset: Reset | None = None) -> Booted:
    """Boot by the rule: the chosen slot loses a try, durably, before anything of it is read.

    reset: why the last boot ended, where a reason survives. Raises BootError, DiskError.
    """
    slot = boot(MachineFolder(folder).disk)
    if slot is None:
        raise BootError(f"{folder}: no slot may be booted")
    return _start(folder, slot, "Firmware", reset)


def kexec(folder: Path, name: SlotName) -> Booted:
    """Start the OS of one slot at once, without the firmware and its rule. Raises BootError, DiskError."""
    return _start(folder, read_slots(MachineFolder(folder).disk)[name], "Kexec", None)


def _start(folder: Path, slot: Slot, method: Method, reset: Reset | None) -> Booted:
    files = MachineFolder(folder)
    try:
        release = _read_release(files.disk, slot)
        fault = _read_fault(files.disk, slot)
    except (FileNotFoundError, ToolFailedError) as error:
        raise BootError(f"slot {slot.name} holds no OS: {error}") from error
    obey_reset(files.root)
    shutil.rmtree(files.run, ignore_errors=True)
    files.run.mkdir()
    version = release.get("VERSION_ID", "unknown")
    record = BootRecord(
        boot_id=str(uuid.uuid4()),
        slot=slot.name.value,
        method=method,
        version=version,
        os_image=release.get("PRETTY_NAME", version),
        started=time.clock_gettime(time.CLOCK_BOOTTIME),
        reset=reset,
    )
    if fault is Fault.UNHEALTHY or (fault is Fault.UNHEALTHY_ONCE and _count_boot(folder, version) == 1):
        files.unhealthy.write_text(f"/usr{FAULT_FILE} of version {version} says {fault}\n")
    record.save(files.boot)
    return Booted(record, slot.attributes.good, fault)


def _read_release(disk: Path, slot: Slot) -> dict[str, str]:
    text = read_ext4_file(disk, slot.start, OS_RELEASE).decode()
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip().strip('"') for key, _, value in pairs}


def _read_fault(disk: Path, slot: Slot) -> Fault | None:
    try:
        return Fault(read_ext4_file(disk, slot.start, FAULT_FILE).decode().strip())
    except FileNotFoundError:
        return None


def _count_boot(folder: Path, version: str) -> int:
    """How often this version was booted here, this time included; durable."""
    path = folder / "boots.json"
    counts: dict[str, int] = json.loads(path.read_bytes()) if path.exists() else {}
    counts[version] = counts.get(version, 0) + 1
    write_durably(path, json.dumps(counts).encode(), mode=PRIVATE)
    return counts[version]
