"""systemd-boot's counted entries: `careen-B+1.conf` is tried once, `careen-B.conf` is good. Files lie on the ESP."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from careen.agent.durable import sync_directory
from careen.disk.table import open_table
from careen.disk.types import DiskError, SlotName

from .bootfiles import mount_read_write, unmount
from .devices import Device, read_partitions
from .discovery import Machine
from .loaders import ArmedBoot
from .mounts import read_mounts
from .root import RUN, Root

ESP_TYPE = UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
LOADER_INFO = "/sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"

_ENTRY = re.compile(r"careen-(?P<slot>[AB])(?:\+(?P<left>\d+)(?:-(?P<done>\d+))?)?\.conf")


class EspError(DiskError):
    """The ESP is missing, full or not as it must be."""


@dataclass(frozen=True)
class Entry:
    """A boot entry of ours. left: tries it has; None if it is not counted, which means good."""

    path: Path
    slot: SlotName
    left: int | None


def is_systemd_boot(root: Root) -> bool:
    """Whether systemd-boot started this machine; its note stays over a kexec."""
    try:
        data = root.at(LOADER_INFO).read_bytes()[4:]
    except OSError:
        return False
    return data.decode("utf-16-le", errors="replace").startswith("systemd-boot")


class SystemdBoot:
    """The back end. opened: gives the ESP's folder, mounted for writing while it is used."""

    name = "systemd-boot"
    needs_files = True

    def __init__(self, opened: Callable[[], AbstractContextManager[Path]]) -> None:
        self._opened = opened

    def arm(self, boot: ArmedBoot) -> None:
        """Copy the slot's kernel there; with the firmware as method, write the entry that is tried once.

        Before a boot by kexec there is no entry yet: until it is marked good, any reset must boot the other slot.
        """
        if boot.files is None:
            raise EspError("systemd-boot needs the slot's kernel, and the release has none")
        with self._opened() as esp:
            self._remove(esp, boot.slot)
            folder = _files_of(esp, boot.slot)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                _install(boot.files.kernel, folder / "vmlinuz")
                if boot.files.initrd:
                    _install(boot.files.initrd, folder / "initrd")
                else:
                    (folder / "initrd").unlink(missing_ok=True)
                _write(folder / "entry", _describe(boot, _next_rank(esp), folder))
                if boot.method == "Firmware":
                    _write(_entries(esp) / f"careen-{boot.slot}+1.conf", (folder / "entry").read_bytes())
            except OSError as error:
                raise EspError(f"the ESP: {error.strerror or error} ({error.filename})") from error

    def commit(self, slot: SlotName) -> None:
        """Make the slot's entry one without a count, with all its files checked to be there."""
        with self._opened() as esp:
            folder, good = _files_of(esp, slot), _entries(esp) / f"careen-{slot}.conf"
            counted = [entry for entry in _read_entries(esp) if entry.slot is slot and entry.left is not None]
            if not (folder / "vmlinuz").is_file():
                raise EspError(f"the ESP holds no kernel of slot {slot}; expected: {folder / 'vmlinuz'}")
            if counted:
                counted[0].path.replace(good)
            elif not good.is_file():
                _write(good, (folder / "entry").read_bytes())
            sync_directory(good.parent)
            for entry in counted[1:]:
                entry.path.unlink()

    def give_up(self, slot: SlotName) -> None:
        """Take the slot's entries away, so that systemd-boot does not know it any more."""
        with self._opened() as esp:
            self._remove(esp, slot)

    def _remove(self, esp: Path, slot: SlotName) -> None:
        entries = _read_entries(esp)
        others = [entry for entry in entries if entry.slot is slot.other]
        mine = [entry for entry in entries if entry.slot is slot]
        if mine and not any(entry.left is None for entry in others):
            raise EspError(f"slot {slot.other} has no entry of its own on the ESP; without {slot}'s nothing would boot")
        for entry in mine:
            entry.path.unlink()
        if mine:
            sync_directory(_entries(esp))


def _describe(boot: ArmedBoot, rank: int, folder: Path) -> bytes:
    """The entry's text. version ranks our entries: systemd-boot takes the highest that has tries left."""
    place = f"/careen/{folder.name}"
    lines = [
        f"title careen {boot.slot} ({boot.version})", "sort-key careen", f"version {rank}", f"linux {place}/vmlinuz",
    ]  # fmt: skip
    if boot.files and boot.files.initrd:
        lines.append(f"initrd {place}/initrd")
    return "\n".join([*lines, f"options {boot.line('Firmware')}", ""]).encode()


def _next_rank(esp: Path) -> int:
    ranks = [0]
    for entry in _read_entries(esp):
        match = re.search(r"^version (\d+)$", entry.path.read_text(errors="replace"), re.MULTILINE)
        ranks.append(int(match[1]) if match else 0)
    return max(ranks) + 1


def _read_entries(esp: Path) -> list[Entry]:
    found = []
    for path in sorted(_entries(esp).glob("careen-*.conf")):
        if match := _ENTRY.fullmatch(path.name):
            left = int(match["left"]) if match["left"] is not None else None
            found.append(Entry(path, SlotName(match["slot"]), left))
    return found


def _entries(esp: Path) -> Path:
    return esp / "loader" / "entries"


def _files_of(esp: Path, slot: SlotName) -> Path:
    return esp / "careen" / slot.value.lower()


def _install(source: Path, to: Path) -> None:
    """Copy a file under another name, flush it, give it its name, flush that."""
    fresh = to.with_name(f"{to.name}.new")
    try:
        with source.open("rb") as reader, fresh.open("wb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
            writer.flush()
            os.fsync(writer.fileno())
        fresh.replace(to)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    sync_directory(to.parent)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new")
    try:
        with fresh.open("wb") as writer:
            writer.write(data)
            writer.flush()
            os.fsync(writer.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def open_esp(root: Root, machine: Machine) -> Callable[[], AbstractContextManager[Path]]:
    """How to get at the ESP of the machine's disk: where it is mounted, else at a place of its own meanwhile."""

    @contextmanager
    def opened() -> Iterator[Path]:
        device = _find_esp(root, machine)
        for mount in read_mounts(root):
            if mount.device == device.number and root.at(mount.place).is_dir():
                yield root.at(mount.place)
                return
        place = root.at(f"{RUN}/esp")
        place.mkdir(parents=True, exist_ok=True)
        mount_read_write(root.at(device.node), "vfat", place)
        try:
            yield place
        finally:
            unmount(place)

    return opened


def _find_esp(root: Root, machine: Machine) -> Device:
    with open_table(machine.disk) as opened:
        numbers = [entry.partition for entry in opened.table.entries if entry.type_guid == ESP_TYPE]
    found = [device for device in read_partitions(root, machine.disk_name) if device.partition in numbers]
    if len(found) != 1:
        raise EspError(f"/dev/{machine.disk_name} has {len(found)} partitions of type EFI system; allowed: one")
    return found[0]
