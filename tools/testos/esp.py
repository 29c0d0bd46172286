"""An EFI system partition with systemd-boot, and one entry: that of slot A, marked good."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from careen.disk.ext4 import read_ext4_file

from .debian import TestOsError, build_root
from .image import OsImage

MIB = 1 << 20
ESP_BYTES = 96 * MIB
_PROGRAM = "usr/lib/systemd/boot/efi/systemd-bootx64.efi"
_SECONDS = 60.0


def make_esp(out: Path, image: OsImage, words: str) -> None:
    """Make the file system in the file `out`. words: of the kernel's command line but for those that name the slot.

    Raises TestOsError without mtools and dosfstools.
    """
    with out.open("wb") as file:
        file.truncate(ESP_BYTES)
    _run("mkfs.vfat", "-F", "32", "-n", "ESP", str(out))
    _run("mmd", "-i", str(out), "::/EFI", "::/EFI/BOOT", "::/loader", "::/loader/entries", "::/careen", "::/careen/a")
    with tempfile.TemporaryDirectory() as scratch:
        for path, data in _contents(image, words).items():
            source = Path(scratch) / "file"
            source.write_bytes(data)
            _run("mcopy", "-i", str(out), str(source), f"::/{path}")


def list_entries(disk: Path, offset: int) -> list[str]:
    """Names of the boot entries of the file system at a byte of a disk, sorted. Raises TestOsError."""
    listed = _run("mdir", "-b", "-i", f"{disk}@@{offset}", "::/loader/entries")
    return sorted(line.rsplit("/", 1)[-1] for line in listed.splitlines() if line.strip())


def _contents(image: OsImage, words: str) -> dict[str, bytes]:
    block = image.block
    assert block.kernel is not None
    assert block.initrd is not None
    options = f"{words} careen.slot=A careen.usrhash={block.verity_root} careen.boot=firmware"
    entry = [
        f"title careen A ({block.version})", "sort-key careen", "version 1", "linux /careen/a/vmlinuz",
        "initrd /careen/a/initrd", f"options {options}",
    ]  # fmt: skip
    return {
        "EFI/BOOT/BOOTX64.EFI": (build_root(image.packages) / "root" / _PROGRAM).read_bytes(),
        "loader/loader.conf": b"timeout 0\nconsole-mode keep\nauto-entries no\n",
        "loader/entries/careen-A.conf": "".join(f"{line}\n" for line in entry).encode(),
        "careen/a/vmlinuz": read_ext4_file(image.image, 0, f"/{block.kernel.path}"),
        "careen/a/initrd": read_ext4_file(image.image, 0, f"/{block.initrd.path}"),
    }


def _run(*command: str) -> str:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "MTOOLS_SKIP_CHECK": "1"},
        )
    except FileNotFoundError as error:
        raise TestOsError(f"{command[0]} is not installed; run tools/packages vm as root") from error
    if done.returncode:
        raise TestOsError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return done.stdout
