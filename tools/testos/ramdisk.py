"""The initramfs of the test OS and that of the loader: busybox, a few programs, kernel modules, and a script."""

from __future__ import annotations

import subprocess
from pathlib import Path

import zstandard

from .cache import digest_inputs, keep
from .cpio import Archive, resolve_inside
from .debian import HERE, TestOsError
from .kernel import read_modules

DISK_MODULES = ("virtio_pci", "virtio_blk")
CHECKSUM = "crc32c_generic"
"""ext4 asks for it by name only when it mounts, so that depmod does not list it; without it the mount fails. What erofs
needs asks for it when it is loaded."""
INITRD_MODULES = (*DISK_MODULES, CHECKSUM, "dm_verity", "overlay", "erofs", "ext4", "virtio_net")
"""No driver of a hardware watchdog: i6300esb stops its timer when it is loaded, and with it the only thing that ends a
trial which hangs. udev loads it."""
SOFTDOG = "softdog"
"""Loaded only when the command line asks for it: a machine has one watchdog or none."""
LOADER_MODULES = (*DISK_MODULES, CHECKSUM, "ext4", "erofs")
FILES = HERE / "files"
_APPLETS = (
    "sh", "cat", "cmp", "cp", "crc32", "cut", "dd", "find", "grep", "head", "hexdump", "insmod", "ln", "ls", "mkdir",
    "mount", "mv", "od", "printf", "reboot", "rm", "sed", "seq", "sha256sum", "sleep", "stat", "switch_root", "sync",
    "tail", "touch", "tr", "umount", "xxd", "chmod", "[", "echo",
)  # fmt: skip
_SECONDS = 60.0


def build_ramdisks(root: Path, root_key: str) -> Path:
    """A folder of the cache with `initrd` and `loader`, made with the programs and modules of a root tree."""
    inputs = (FILES / "common.sh", FILES / "gpt.sh", FILES / "loader.sh", FILES / "initrd.sh", Path(__file__))
    key = digest_inputs(root_key, *inputs, FILES / "reset.sh", HERE / "cpio.py", HERE / "kernel.py")

    def build(folder: Path) -> None:
        (folder / "initrd").write_bytes(_compress(_make_initrd(root)))
        (folder / "loader").write_bytes(_compress(_make_loader(root)))

    return keep("ramdisks", key, build)


def _make_initrd(root: Path) -> Archive:
    archive = _make_base(root, (*INITRD_MODULES, SOFTDOG), "initrd.sh", asked_for=SOFTDOG)
    archive.add_file("lib/reset.sh", (FILES / "reset.sh").read_bytes())
    _add_program(archive, root, "usr/sbin/veritysetup")
    return archive


def _make_loader(root: Path) -> Archive:
    archive = _make_base(root, LOADER_MODULES, "loader.sh")
    archive.add_file("lib/gpt.sh", (FILES / "gpt.sh").read_bytes())
    _add_program(archive, root, "usr/sbin/kexec")
    archive.add_link("bin/kexec", "../usr/sbin/kexec")
    return archive


def _make_base(root: Path, modules: tuple[str, ...], script: str, *, asked_for: str = "") -> Archive:
    archive = Archive()
    archive.add_file("init", (FILES / script).read_bytes(), 0o755)
    archive.add_file("lib/common.sh", (FILES / "common.sh").read_bytes())
    archive.add_file("bin/busybox", resolve_inside(root, "usr/bin/busybox").read_bytes(), 0o755)
    for applet in _APPLETS:
        archive.add_link(f"bin/{applet}", "busybox")
    for name in ("dev", "proc", "run", "sys", "sysroot", "slot"):
        archive.add_folder(name)
    paths = _order_modules(root, modules)
    for path in paths:
        archive.add_file(f"lib/modules/{path.name}", path.read_bytes())
    order = [path.name for path in paths if path.stem != asked_for]
    archive.add_file("lib/modules/order", "".join(f"{name}\n" for name in order).encode())
    return archive


def _add_program(archive: Archive, root: Path, path: str) -> None:
    """Add a program with the libraries that it loads, under the names that it asks for."""
    archive.add_file(path, resolve_inside(root, path).read_bytes(), 0o755)
    listed = subprocess.run(
        ["chroot", str(root), "ldd", f"/{path}"], capture_output=True, text=True, check=True, timeout=_SECONDS
    )
    for line in listed.stdout.splitlines():
        library = next((word for word in line.split() if word.startswith("/")), None)
        if library is not None:
            archive.add_file(library.lstrip("/"), resolve_inside(root, library).read_bytes(), 0o755)


def _order_modules(root: Path, wanted: tuple[str, ...]) -> list[Path]:
    modules = read_modules(root)
    ordered = modules.find(wanted)
    if not any("virtio_blk" in path for path in ordered):
        raise TestOsError(f"the kernel in {root} has no module virtio_blk")
    return [modules.folder / path for path in ordered]


def _compress(archive: Archive) -> bytes:
    return zstandard.ZstdCompressor(level=9).compress(archive.dump())
