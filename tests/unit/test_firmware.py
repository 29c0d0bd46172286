"""The simulated firmware: the boot rule on a real disk image, and the faults that a release may carry."""

from __future__ import annotations

from pathlib import Path

import pytest

from careen.agent.imagehost import KEPT, BootRecord, MachineFolder
from careen.agent.reset import prepare_reset
from careen.disk.image import fill_slot
from careen.disk.slots import Slots
from careen.disk.table import change_slots, read_slots
from careen.disk.types import GIVEN_UP, Attributes, SlotName
from careen.release.errors import PublishError
from careen.sandbox.firmware import BootError, Fault, kexec, power_on
from careen.sandbox.machine import create_machine, machine_id_of
from careen.sandbox.releases import Repository

A, B = SlotName.A, SlotName.B


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    made = Repository.create(tmp_path_factory.mktemp("releases"))
    made.publish("1.0.0")
    made.publish("2.0.0")
    for fault in Fault:
        made.publish(f"2.0.0-{fault}", fault)
    return made


@pytest.fixture
def machine(repository: Repository, tmp_path: Path) -> MachineFolder:
    return create_machine(tmp_path / "m", repository.find("1.0.0"), machine_id=machine_id_of("m"))


def arm(machine: MachineFolder, repository: Repository, version: str, attributes: Attributes) -> None:
    fill_slot(machine.disk, B, repository.find(version).image)

    def change(slots: Slots) -> Slots:
        return slots.with_attributes(B, attributes)

    change_slots(machine.disk, change)


def test_a_fresh_machine_boots_slot_a(machine: MachineFolder) -> None:
    booted = power_on(machine.path)
    record = BootRecord.load(machine.boot)
    assert booted.record == record
    assert (record.slot, record.version, record.method) == ("A", "1.0.0", "Firmware")
    assert (record.os_image, booted.good, booted.fault) == ("Careen sandbox 1.0.0", True, None)


def test_each_boot_has_its_own_id_and_a_fresh_run_folder(machine: MachineFolder) -> None:
    first = power_on(machine.path).record.boot_id
    machine.api_answered.touch()
    machine.reboot.touch()
    assert power_on(machine.path).record.boot_id != first
    assert sorted(path.name for path in machine.run.iterdir()) == ["boot.json"]


def test_the_firmware_uses_up_a_try_and_then_goes_back(machine: MachineFolder, repository: Repository) -> None:
    arm(machine, repository, "2.0.0", Attributes(2, 1, False))
    booted = power_on(machine.path)
    assert (booted.record.slot, booted.record.version, booted.good) == ("B", "2.0.0", False)
    assert read_slots(machine.disk).b.attributes == Attributes(2, 0, False)
    assert power_on(machine.path).record.slot == "A"


def test_kexec_goes_past_the_rule(machine: MachineFolder, repository: Repository) -> None:
    arm(machine, repository, "2.0.0", Attributes(2, 0, False))
    booted = kexec(machine.path, B)
    assert (booted.record.slot, booted.record.method, booted.record.version) == ("B", "Kexec", "2.0.0")
    assert power_on(machine.path, reset="Panic").record.slot == "A"
    assert BootRecord.load(machine.boot).reset == "Panic"


@pytest.mark.parametrize("fault", list(Fault))
def test_an_os_carries_its_fault(machine: MachineFolder, repository: Repository, fault: Fault) -> None:
    arm(machine, repository, f"2.0.0-{fault}", Attributes(2, 0, False))
    assert kexec(machine.path, B).fault is fault
    unwell = fault in (Fault.UNHEALTHY, Fault.UNHEALTHY_ONCE)
    assert machine.unhealthy.exists() is unwell
    power_on(machine.path)
    assert not machine.unhealthy.exists()
    kexec(machine.path, B)
    assert machine.unhealthy.exists() is (fault is Fault.UNHEALTHY)


def test_nothing_boots_without_a_bootable_slot(machine: MachineFolder) -> None:
    change_slots(machine.disk, lambda slots: slots.with_attributes(A, GIVEN_UP))
    with pytest.raises(BootError, match="no slot may be booted"):
        power_on(machine.path)


def test_an_empty_slot_is_no_os(machine: MachineFolder) -> None:
    with pytest.raises(BootError, match="slot B holds no OS"):
        kexec(machine.path, B)


def test_images_are_the_same_bytes_each_time(repository: Repository, tmp_path: Path) -> None:
    again = Repository.create(tmp_path / "again")
    assert again.publish("2.0.0").document == repository.find("2.0.0").document
    with pytest.raises(PublishError, match="a version is never changed"):
        again.publish("2.0.0", Fault.PANIC)
    assert again.find("2.0.0").digest == repository.find("2.0.0").digest


def test_a_reset_empties_root_before_the_system_runs(machine: MachineFolder) -> None:
    (machine.root / "var").mkdir()
    (machine.root / "var" / "litter").write_text("x")
    before, kept = machine.machine_id.read_text(), machine.journal.read_bytes()
    slots = read_slots(machine.disk)
    prepare_reset(machine.root, KEPT)
    power_on(machine.path)
    assert sorted(path.name for path in machine.root.iterdir()) == ["careen", "machine-id"]
    assert (machine.machine_id.read_text(), machine.journal.read_bytes()) == (before, kept)
    assert read_slots(machine.disk) == slots
