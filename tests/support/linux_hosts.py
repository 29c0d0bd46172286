"""The agent's host on a Linux machine in a folder: what its slots hold, and what became of its kernel and its table."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import dataclass, field, replace
from pathlib import Path

from careen.agent.linux.health import HealthSettings
from careen.agent.linux.host import LinuxHost
from careen.agent.linux.settings import LinuxSettings
from careen.agent.record import Journal, OpenOrder, Stage
from careen.disk.boot import preview
from careen.disk.table import read_slots
from careen.disk.types import Attributes, SlotName
from careen.release.manifest import BootFile, Image, ReleaseDocument, StaticFile
from careen.release.verity import count_tree_bytes
from linux_machines import BOOT_ID, MACHINE_ID, FakeMachine

A, B = SlotName.A, SlotName.B
KERNEL, INITRD = b"kernel" * 1000, b"initrd" * 1000
ROOT_HASH = "cd" * 32
TRIAL = Attributes(2, 0, False)


@dataclass
class FakeKexec:
    """Remembers what was loaded, as it was then."""

    error: int = 0
    loaded: tuple[bytes, bytes, str] | None = None
    calls: list[str] = field(default_factory=list)

    def load(self, kernel: Path, initrd: Path | None, line: str) -> None:
        self.calls.append("load")
        if self.error:
            raise OSError(self.error, "kexec_file_load")
        self.loaded = kernel.read_bytes(), initrd.read_bytes() if initrd else b"", line

    def unload(self) -> None:
        self.calls.append("unload")
        self.loaded = None

    def is_loaded(self) -> bool:
        return self.loaded is not None


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def document(*, kernel: bool = True, capabilities: tuple[str, ...] = ()) -> ReleaseDocument:
    static = StaticFile(path="files/x", length=1, sha256="00" * 32)
    image = Image(
        filesystem="ext4",
        size=4 * 4096 + count_tree_bytes(4),
        sha256="00" * 32,
        data_blocks=4,
        verity_root=ROOT_HASH,
        kernel=BootFile(path="boot/vmlinuz", length=len(KERNEL), sha256=sha256(KERNEL)) if kernel else None,
        initrd=BootFile(path="boot/initrd", length=len(INITRD), sha256=sha256(INITRD)) if kernel else None,
        tree=static,
        table=static,
        frames=static,
    )
    return ReleaseDocument(
        version="2.0.0", product="test", capabilities=capabilities, images={platform.machine(): image}
    )


def hold(machine: FakeMachine, slot: SlotName, held: ReleaseDocument) -> str:
    """Make the agent's state folder say that a slot holds a release."""
    data = held.dump()
    digest = f"sha256:{sha256(data)}"
    machine.write(f"/var/lib/careen/releases/{sha256(data)}.json", data)
    path = machine.root.at("/var/lib/careen/slots.json")
    records = json.loads(path.read_text()) if path.exists() else {}
    image = held.images[platform.machine()]
    machine.write(
        "/var/lib/careen/slots.json",
        json.dumps({**records, slot.value: {"digest": digest, "size": image.size, "version": held.version}}),
    )
    return digest


def settings(**changes: object) -> LinuxSettings:
    return LinuxSettings(health=HealthSettings(free_bytes=0, kubelet=""), **changes)  # type: ignore[arg-type]


async def journal(host: LinuxHost, **changes: object) -> None:
    digest = "sha256:" + "b" * 64
    opened = OpenOrder("order-1", digest, "2.0.0", A, B, BOOT_ID, "Kexec", 0, 300, "Rollback", Stage.ARMED)
    opened = replace(opened, **changes)  # type: ignore[arg-type]
    await host.write_journal(Journal(MACHINE_ID, boots=(BOOT_ID,), open=opened))


def attributes(machine: FakeMachine, name: SlotName) -> Attributes:
    return read_slots(machine.root.at("/dev/vda"))[name].attributes


def boots_next(machine: FakeMachine) -> SlotName | None:
    chosen = preview(machine.root.at("/dev/vda"))
    return chosen.name if chosen else None


def ran(machine: FakeMachine, *starts: str) -> list[str]:
    """Which of these beginnings of commands were run, in the order in which they were."""
    return [start for line in machine.commands.ran for start in starts if line.startswith(start)]
