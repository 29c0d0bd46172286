"""systemd-boot's counted entries: `careen-B+1.conf` is tried once, `careen-B.conf` is good. Files lie on the ESP."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

from careen.agent.record import Method
from careen.disk.table import open_table
from careen.disk.types import DiskError, SlotName
from careen.release.durable import sync_folder
from careen.release.manifest import BootFile, Image

from .bootfiles import MOUNTED_ESP, mount_read_write, unmount
from .cmdline import find_word
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
        with self._opened() as esp:
            self._remove(esp, boot.slot)
            try:
                # First, so that nothing of an older release can ever be taken for this one's.
                _clear(_files_of(esp, boot.slot))
                text = _install_release(esp, boot)
                if boot.method == "Firmware":
                    _write(_counted(esp, boot.slot), text)
            except OSError as error:
                raise _explain(error) from error

    def is_armed(self, slot: SlotName, image: Image, method: Method) -> bool:
        """Whether the ESP holds this release's kernel, initrd and entry, and, for the firmware, one try of it."""
        with self._opened() as esp:
            try:
                text = _read_release(esp, slot, image)
                return text is not None and (method == "Kexec" or _counted(esp, slot).read_bytes() == text)
            except OSError:
                return False

    def commit(self, boot: ArmedBoot) -> None:
        """Make the slot's entry one without a count, with this very release's kernel, initrd and root hash behind it.

        What is missing or another release's is replaced, out of the slot that runs.
        """
        with self._opened() as esp:
            try:
                text = _read_release(esp, boot.slot, boot.image) or _install_release(esp, boot)
                if _read_release(esp, boot.slot, boot.image) != text:
                    raise EspError(f"the ESP does not hold what was written to {_files_of(esp, boot.slot)}")
                good = _entries(esp) / f"careen-{boot.slot}.conf"
                if not good.is_file() or good.read_bytes() != text:
                    _write(good, text)
                for entry in _read_entries(esp):
                    if entry.slot is boot.slot and entry.left is not None:
                        entry.path.unlink()
                sync_folder(good.parent)
            except OSError as error:
                raise _explain(error) from error

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
            sync_folder(_entries(esp))


def _explain(error: OSError) -> EspError:
    return EspError(f"the ESP: {error.strerror or error} ({error.filename})")


def _clear(folder: Path) -> None:
    """Forget a slot's files, the entry first: the others mean nothing without it."""
    for name in ("entry", "vmlinuz", "initrd"):
        (folder / name).unlink(missing_ok=True)
    if folder.is_dir():
        sync_folder(folder)


def _install_release(esp: Path, boot: ArmedBoot) -> bytes:
    """Copy kernel and initrd, then write the entry's text, which is returned: it vouches for the two."""
    if boot.files is None:
        raise EspError("systemd-boot needs the slot's kernel, and the release has none")
    folder = _files_of(esp, boot.slot)
    folder.mkdir(parents=True, exist_ok=True)
    text = _describe(boot, _next_rank(esp), folder)
    (folder / "entry").unlink(missing_ok=True)
    _install(boot.files.kernel, folder / "vmlinuz")
    if boot.files.initrd:
        _install(boot.files.initrd, folder / "initrd")
    else:
        (folder / "initrd").unlink(missing_ok=True)
    _write(folder / "entry", text)
    return text


def _read_release(esp: Path, slot: SlotName, image: Image) -> bytes | None:
    """The entry's text, if it names this release's root hash and the files beside it are the signed ones."""
    folder = _files_of(esp, slot)
    try:
        text = (folder / "entry").read_bytes()
    except FileNotFoundError:
        return None
    fields = dict(line.split(" ", 1) for line in text.decode(errors="replace").splitlines() if " " in line)
    options = fields.get("options", "")
    if find_word(options, "careen.usrhash") != image.verity_root or find_word(options, "careen.slot") != slot.value:
        return None
    expected = {"linux": (image.kernel, "vmlinuz"), "initrd": (image.initrd, "initrd")}
    for key, (file, name) in expected.items():
        place = f"/careen/{folder.name}/{name}" if file is not None else None
        if fields.get(key) != place or (file is not None and not _is_file(folder / name, file)):
            return None
    return text


def _is_file(path: Path, expected: BootFile) -> bool:
    if not path.is_file() or path.stat().st_size != expected.length:
        return False
    with path.open("rb") as reader:
        return hashlib.file_digest(reader, "sha256").hexdigest() == expected.sha256


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


def _counted(esp: Path, slot: SlotName) -> Path:
    """The entry that is tried once."""
    return _entries(esp) / f"careen-{slot}+1.conf"


def _files_of(esp: Path, slot: SlotName) -> Path:
    return esp / "careen" / slot.value.lower()


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file under another name, flush it, give it its name, flush that.

    Not write_durably, which also sets the mode: vfat has none, and refuses with EPERM.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new")
    try:
        with fresh.open("wb") as writer:
            yield writer
            writer.flush()
            os.fsync(writer.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _install(source: Path, to: Path) -> None:
    with source.open("rb") as reader, _replacing(to) as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)


def _write(path: Path, data: bytes) -> None:
    with _replacing(path) as writer:
        writer.write(data)


def open_esp(root: Root, machine: Machine) -> Callable[[], AbstractContextManager[Path]]:
    """How to get at the ESP of the machine's disk: where it is mounted, else at a place of its own meanwhile."""

    @contextmanager
    def opened() -> Iterator[Path]:
        device = _find_esp(root, machine)
        for mount in read_mounts(root):
            if mount.device == device.number and root.at(mount.place).is_dir():
                yield root.at(mount.place)
                return
        place = root.at(f"{RUN}/{MOUNTED_ESP}")
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
