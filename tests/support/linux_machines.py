"""A Linux machine in a folder: /sys, /proc, /dev and a real GPT disk, as the agent's Linux host sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

from careen.agent.linux.root import DEADLINE_SECONDS, Answer, Root
from careen.disk.image import MIB, NewPartition, create_disk
from careen.disk.table import read_slots
from careen.disk.types import GIVEN_UP, ROOT_TYPE, USR_TYPE, Attributes, SlotName

ESP_TYPE = UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
A, B = SlotName.A, SlotName.B
GOOD = Attributes(1, 0, True)
BOOT_ID = "0d4dcfd7-5a48-4b4a-9d20-000000000001"
MACHINE_ID = "0123456789abcdef0123456789abcdef"


@dataclass
class FakeCommands:
    """Answers by the beginning of the command line; everything else succeeds and says nothing."""

    answers: dict[str, Answer] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)

    def run(self, argv: Sequence[str], *, timeout: float = DEADLINE_SECONDS) -> Answer:
        line = " ".join(argv)
        self.ran.append(line)
        return next((answer for start, answer in self.answers.items() if line.startswith(start)), Answer(0, ""))


class FakeMachine:
    """The folder, and ways to change what the kernel shows in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = Root(path)
        self.commands = FakeCommands()

    def write(self, path: str, text: str | bytes) -> Path:
        file = self.root.at(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    def add_disk(
        self,
        name: str,
        *,
        major: int = 252,
        order: Sequence[str] = ("EFI-SYSTEM", "USR-A", "USR-B", "ROOT"),
        first: int = 1,
        attributes: dict[str, Attributes] | None = None,
        slot_bytes: int = 2 * MIB,
    ) -> Path:
        """A disk with these partitions in this order, numbered from `first`; slot A is good unless told otherwise."""
        given = {"USR-A": GOOD, "USR-B": GIVEN_UP} | (attributes or {})
        kinds = {"EFI-SYSTEM": ESP_TYPE, "USR-A": USR_TYPE, "USR-B": USR_TYPE, "ROOT": ROOT_TYPE}
        guids = {"USR-A": A.guid, "USR-B": B.guid}
        partitions = tuple(
            NewPartition(
                first + at, kinds[label], guids.get(label) or uuid4(), label,
                slot_bytes if label.startswith("USR") else MIB, given.get(label, GIVEN_UP),
            )
            for at, label in enumerate(order)
        )  # fmt: skip
        disk = self.root.at(f"/dev/{name}")
        disk.parent.mkdir(parents=True, exist_ok=True)
        create_disk(disk, partitions, sector_size=512, disk_guid=uuid4())
        self.add_device(name, f"{major}:0")
        start = MIB
        for at, partition in enumerate(partitions):
            number = first + at
            child = f"{name}p{number}" if name[-1].isdigit() else f"{name}{number}"
            self.add_device(
                child, f"{major}:{number}", parent=name, partition=number, start=start, size=partition.size,
                label=partition.label,
            )  # fmt: skip
            with self.root.at(f"/dev/{child}").open("wb") as file:
                file.truncate(partition.size)
            start += partition.size
        return disk

    def add_device(
        self,
        name: str,
        number: str,
        *,
        parent: str = "",
        start: int = 0,
        size: int = 0,
        label: str = "",
        slaves: Sequence[str] = (),
        partition: int = 0,
    ) -> None:
        """What /sys shows of a block device. slaves: names of the devices below it."""
        folder = f"/sys/devices/{parent}/{name}" if parent else f"/sys/devices/{name}"
        self.write(f"{folder}/dev", number)
        self.write(f"{folder}/start", str(start // 512))
        self.write(f"{folder}/size", str(size // 512))
        self.write(f"{folder}/uevent", f"DEVNAME={name}\n" + (f"PARTNAME={label}\n" if label else ""))
        if partition:
            self.write(f"{folder}/partition", str(partition))
        for inner in ("slaves", "holders"):
            self.root.at(f"{folder}/{inner}").mkdir(exist_ok=True)
        for link in (f"/sys/class/block/{name}", f"/sys/dev/block/{number}"):
            place = self.root.at(link)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to("../../" + folder.removeprefix("/sys/"))
        for slave in slaves:
            self.root.at(f"{folder}/slaves/{slave}").touch()
            self.root.at(f"/sys/class/block/{slave}/holders/{name}").touch()

    def mount(self, *lines: str) -> None:
        """Replace the mounts: `NUMBER PLACE KIND SOURCE [OPTIONS]` each, over a ROOT file system."""
        text = "1 0 0:1 / / rw - tmpfs root rw\n"
        for at, line in enumerate(lines, start=2):
            number, place, kind, source, *options = line.split(" ")
            text += f"{at} 1 {number} / {place} ro - {kind} {source} {' '.join(options) or 'ro'}\n"
        self.write("/proc/1/mountinfo", text)

    def run_from(self, name: str, number: str = "254:0") -> None:
        """Run /usr from this partition through dm-verity."""
        self.add_device("dm-0", number, slaves=[name])
        self.write("/sys/devices/dm-0/dm/name", "usr")
        self.mount(f"{number} /usr ext4 /dev/mapper/usr")

    def show_slot(self, name: SlotName) -> Attributes:
        disk = next(self.root.at("/dev").glob("[vsn]*[a-z0-9]"))
        return read_slots(disk)[name].attributes
