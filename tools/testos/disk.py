"""A machine's disk before its first boot: the first OS in slot A, an empty root, and who it is on the OEM partition."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

from careen.disk.ext4 import make_ext4
from careen.disk.image import FIRST_SLOT_ATTRIBUTES, NewPartition, create_disk, fill_slot
from careen.disk.table import open_table, read_slots
from careen.disk.types import ROOT_TYPE, USR_TYPE, Entry, SlotName
from careen.release.bootblock import BOOT_BLOCK_BYTES

from .esp import ESP_BYTES, make_esp
from .image import SLOT_BYTES, OsImage

MIB = 1 << 20
OEM_TYPE = UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
OEM_BYTES = 8 * MIB
ROOT_BYTES = 128 * MIB
ESP_TYPE = UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
_SECONDS = 60.0


@dataclass(frozen=True)
class Identity:
    """Who a machine is. It lies on the OEM partition, so that an emptied root comes back as the same machine."""

    machine_id: str
    """32 hex digits, as /etc/machine-id has them."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Files of /etc/careen by name: the agent's settings, kubeconfig and trust root."""


def make_disk(
    path: Path, image: OsImage, identity: Identity, *, root_bytes: int = ROOT_BYTES, uefi_words: str | None = None
) -> None:
    """Make the disk of a new machine with `image` in slot A. Raises FileExistsError if `path` exists.

    uefi_words: command line of the kernel, for a machine that boots by systemd-boot; None: there is no boot loader.
    """
    slot_bytes = SLOT_BYTES[image.flavor]
    esp = (NewPartition(1, ESP_TYPE, uuid4(), "EFI-SYSTEM", ESP_BYTES),) if uefi_words is not None else ()
    partitions = (
        *esp,
        NewPartition(3, USR_TYPE, SlotName.A.guid, SlotName.A.label, slot_bytes, FIRST_SLOT_ATTRIBUTES),
        NewPartition(4, USR_TYPE, SlotName.B.guid, SlotName.B.label, slot_bytes),
        NewPartition(6, OEM_TYPE, uuid4(), "OEM", OEM_BYTES),
        NewPartition(9, ROOT_TYPE, uuid4(), "ROOT", root_bytes),
    )
    create_disk(path, partitions, sector_size=512, disk_guid=uuid4())
    install(path, SlotName.A, image)
    with tempfile.TemporaryDirectory() as scratch:
        _write(path, _find(path, "OEM").start, _make_oem(Path(scratch), identity).read_bytes())
        if uefi_words is not None:
            made = Path(scratch) / "esp"
            make_esp(made, image, uefi_words)
            _write(path, _find(path, "EFI-SYSTEM").start, made.read_bytes())
    _format_root(path)


def install(path: Path, name: SlotName, image: OsImage) -> None:
    """Put an image and its boot block into a slot of a machine that is off. Asks nothing about what is there."""
    fill_slot(path, name, image.image)
    slot = read_slots(path)[name]
    _write(path, slot.start + slot.size - BOOT_BLOCK_BYTES, image.block.encode())


def _make_oem(scratch: Path, identity: Identity) -> Path:
    tree = scratch / "oem"
    (tree / "careen").mkdir(parents=True)
    (tree / "machine-id").write_text(f"{identity.machine_id}\n")
    for name, data in identity.files.items():
        (tree / "careen" / name).write_bytes(data)
        (tree / "careen" / name).chmod(0o600)
    made = scratch / "oem.ext4"
    make_ext4(tree, made, size=OEM_BYTES, uuid=uuid4(), label="OEM")
    return made


def _find(path: Path, label: str) -> Entry:
    with open_table(path) as opened:
        (found,) = (entry for entry in opened.table.entries if entry.label == label)
        return found


def _write(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as disk:
        disk.seek(offset)
        disk.write(data)


def _format_root(path: Path) -> None:
    entry = _find(path, "ROOT")
    program = shutil.which("mkfs.ext4", path="/usr/sbin:/sbin:/usr/bin") or "mkfs.ext4"
    options = f"offset={entry.start},lazy_itable_init=1,lazy_journal_init=1,nodiscard"
    command = [program, "-q", "-F", "-L", "ROOT", "-E", options, str(path), f"{entry.size // 1024}k"]
    subprocess.run(command, check=True, timeout=_SECONDS, capture_output=True)
