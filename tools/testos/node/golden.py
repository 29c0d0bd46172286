"""A node that has booted and has all images, saved with its memory: a copy joins a cluster without booting."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from careen.sandbox.workspace import Workspace
from testos.cache import digest_inputs, keep
from testos.disk import Identity, make_disk
from testos.image import Loader, OsImage
from testos.machine import Machine, MachineOptions

from .pods import write_images_disk

MIB = 1 << 20
MEMORY_MIB = 1024
PROCESSORS = 2
ROOT_BYTES = 1280 * MIB
"""Of the writable partition, with all images of the pods in it twice: as they came, and unpacked."""
IDENTITY_BYTES = 256 * 1024
"""Size of the disk with a node's identity: the same with and without one."""
IDENTITY, IMAGES = "identity", "images"
"""Serial numbers of a node's further disks, as files/identity.sh and files/images.sh look for them."""
BOOT_SECONDS = 300.0
SETTLE_SECONDS = 120.0
_COPY_SECONDS = 120.0
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Golden:
    """What to copy. folder: of the cache."""

    folder: Path

    @property
    def disk(self) -> Path:
        """Its disk."""
        return self.folder / "disk.img"

    @property
    def memory(self) -> Path:
        """All of its state but the disk."""
        return self.folder / "memory"

    @property
    def images(self) -> Path:
        """The disk with the images of the pods, which all copies read."""
        return self.folder / "images.tar"

    def copy_disk(self, path: Path) -> None:
        """Copy its disk, which is mostly empty."""
        command = ["cp", "--sparse=always", "--reflink=auto", str(self.disk), str(path)]
        subprocess.run(command, check=True, timeout=_COPY_SECONDS, capture_output=True)


def describe_node(address: str, identity: Path, images: Path, port: int | None = None) -> MachineOptions:
    """What a node is made of. Each of them, and the saved one, must have the same devices.

    port: of the host's loopback, that leads to its kubelet.
    """
    return MachineOptions(
        memory_mib=MEMORY_MIB,
        processors=PROCESSORS,
        address=address,
        forwards={port: 10250} if port else {},
        media={IDENTITY: identity, IMAGES: images},
    )


def build_golden(
    image: OsImage, loader: Loader, archives: Sequence[Path], aliases: Mapping[str, str] | None = None
) -> Golden:
    """Boot a node with `image` in slot A and the images of these archives, and save it; from the cache if it is there.

    aliases: see write_images_disk. Raises TestOsError, ConsoleTimeoutError, ShellError.
    """
    names = aliases or {}
    sources = (_HERE / "golden.py", _HERE / "pods.py", _HERE.parent / "machine.py", _HERE.parent / "disk.py")
    key = digest_inputs(image.folder.name, loader.initrd, loader.kernel, str(names), *archives, *sources)

    def build(folder: Path) -> None:
        golden = Golden(folder)
        write_images_disk(golden.images, archives, names)
        (folder / IDENTITY).write_bytes(bytes(IDENTITY_BYTES))
        make_disk(golden.disk, image, Identity("0" * 31 + "1"), root_bytes=ROOT_BYTES)
        workspace = Workspace()
        try:
            _save(golden, loader, workspace)
        finally:
            workspace.remove()
        shutil.copy(workspace.logs / "golden-console.log", folder / "console.log")

    return Golden(keep("golden", key, build))


def _save(golden: Golden, loader: Loader, workspace: Workspace) -> None:
    options = describe_node("10.0.2.15", golden.folder / IDENTITY, golden.images)
    machine = Machine("golden", golden.disk, loader, folder=workspace.path, logs=workspace.logs, options=options)
    with machine:
        machine.console.wait_for("NODE images are there", BOOT_SECONDS)
        machine.shell.run("systemctl is-system-running --wait", SETTLE_SECONDS)
        machine.shell.run("sync && echo 1 > /proc/sys/vm/drop_caches", SETTLE_SECONDS)
        machine.save(golden.memory)
