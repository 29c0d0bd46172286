"""Kernel and initrd of a slot: copied out of its file system to a tmpfs, each checked against the signed document."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from careen.disk.types import DiskError, DiskIoError
from careen.release.manifest import BootFile, Image

MIB = 1 << 20
MOUNTED_SLOT, MOUNTED_ESP = "slot", "esp"
"""In /run/careen: where the passive slot and the ESP are mounted while they are needed."""
COPIES = "next"
"""In /run/careen: copies of the next kernel and initrd, while they are needed."""
_RDONLY, _NOSUID, _NODEV, _NOEXEC = 1, 2, 4, 8
_DETACH = 2


class BootFileError(DiskError):
    """The slot does not hold the kernel or initrd that the release's document names."""


@dataclass(frozen=True)
class BootFiles:
    """A kernel and an initrd, out of reach of whoever changes the slot."""

    kernel: Path
    initrd: Path | None


def mount_read_only(device: Path, filesystem: str, place: Path) -> None:
    """Mount without replaying a journal: not even the passive slot is written by looking at it. Raises OSError."""
    _mount(device, filesystem, place, _RDONLY, b"noload" if filesystem == "ext4" else None)


def mount_read_write(device: Path, filesystem: str, place: Path) -> None:
    """Mount for writing. Raises OSError."""
    _mount(device, filesystem, place, 0, None)


def unmount(place: Path) -> None:
    """Unmount, at the latest when the last reader is gone. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(place), _DETACH) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"unmounting {place}: {os.strerror(code)}")


def _mount(device: Path, filesystem: str, place: Path, flags: int, options: bytes | None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    all_flags = ctypes.c_ulong(flags | _NOSUID | _NODEV | _NOEXEC)
    if libc.mount(os.fsencode(device), os.fsencode(place), filesystem.encode(), all_flags, options) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"mounting {device} ({filesystem}): {os.strerror(code)}")


@contextmanager
def mounted(device: Path, filesystem: str, place: Path) -> Iterator[Path]:
    """A slot's file system, mounted for reading at a folder that is there meanwhile. Raises OSError."""
    place.mkdir(parents=True, exist_ok=True)
    try:
        mount_read_only(device, filesystem, place)
        try:
            yield place
        finally:
            unmount(place)
    finally:
        place.rmdir()


def release_left(run: Path) -> None:
    """Let go of what an agent that was killed has left in its folder below /run.

    A slot that stays mounted could not be written any more in this boot, and copies take the room of the next ones.
    """
    drop_boot_files(run / COPIES)
    for name in (MOUNTED_SLOT, MOUNTED_ESP):
        place = run / name
        with suppress(OSError):
            unmount(place)
        with suppress(OSError):
            place.rmdir()


def copy_boot_files(source: Path, image: Image, folder: Path) -> BootFiles:
    """Copy kernel and initrd to `folder`, which is made anew, and check their hashes.

    source: the slot's device, which is mounted beside `folder`, or the folder where it is mounted already. Raises
    BootFileError for a file that is missing or another one, DiskError if the slot can't be mounted or read.
    """
    if image.kernel is None:
        raise BootFileError("the release has no kernel")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    place = folder.with_name(MOUNTED_SLOT)
    try:
        with nullcontext(source) if source.is_dir() else mounted(source, image.filesystem, place) as tree:
            kernel = _copy(tree, image.kernel, folder / "kernel")
            initrd = _copy(tree, image.initrd, folder / "initrd") if image.initrd else None
    except BootFileError:
        raise
    except OSError as error:
        raise DiskIoError(f"{source}: {error.strerror or error}") from error
    return BootFiles(kernel, initrd)


def drop_boot_files(folder: Path) -> None:
    """Free the memory that the copies take."""
    shutil.rmtree(folder, ignore_errors=True)


def _copy(tree: Path, file: BootFile, to: Path) -> Path:
    source = tree / file.path
    # A link in the image could lead anywhere on the machine that runs.
    if not source.is_file() or source.resolve() != tree.resolve() / file.path:
        raise BootFileError(f"the slot holds no plain file {file.path}, which the release's document names")
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as reader, to.open("wb") as writer:
        while part := reader.read(MIB):
            digest.update(part)
            size += len(part)
            writer.write(part)
    if size != file.length or digest.hexdigest() != file.sha256:
        raise BootFileError(
            f"{file.path} has {size} bytes with sha256 {digest.hexdigest()}; "
            f"the release's document says {file.length} and {file.sha256}"
        )
    return to
