"""The passive slot is opened for writing only when nobody uses it, and nothing outside it can be reached."""

from __future__ import annotations

import pytest

from careen.agent.linux.discovery import Machine, find_machine
from careen.agent.linux.partition import SlotBusyError, open_for_reading, open_for_writing
from careen.disk.table import change_slots
from careen.disk.types import Attributes, OutOfRangeError, SlotName, UnsafeChangeError
from linux_machines import FakeMachine

A, B = SlotName.A, SlotName.B


@pytest.fixture
def found(machine: FakeMachine) -> Machine:
    return find_machine(machine.root)


def test_what_is_written_goes_to_the_slot_alone(machine: FakeMachine, found: Machine) -> None:
    before = machine.root.at("/dev/vda2").read_bytes()
    with open_for_writing(machine.root, found, B) as slot:
        slot.write(4096, b"x" * 4096)
        slot.sync()
        assert slot.read_back(4096, 4096) == b"x" * 4096
        slot.drop_cached()
        with pytest.raises(OutOfRangeError, match="/dev/vda3; allowed: 0 to 2097152"):
            slot.write(slot.size - 1, b"xx")
    assert machine.root.at("/dev/vda3").read_bytes()[4096:8192] == b"x" * 4096
    assert machine.root.at("/dev/vda2").read_bytes() == before
    with open_for_reading(machine.root, found, B) as slot:
        assert slot.read(4096, 1) == b"x"


def refusal(machine: FakeMachine, found: Machine, name: SlotName = B) -> str:
    with (
        pytest.raises((SlotBusyError, UnsafeChangeError)) as caught,
        open_for_writing(machine.root, found, name),
    ):
        pass
    return str(caught.value)


def test_the_booted_slot_is_refused(machine: FakeMachine, found: Machine) -> None:
    assert "never written" in refusal(machine, found, A)


def test_a_slot_that_could_boot_is_refused(machine: FakeMachine, found: Machine) -> None:
    change_slots(found.disk, lambda slots: slots.with_attributes(B, Attributes(1, 1, False)))
    assert "slot B has P1 T1 S0" in refusal(machine, found)


def test_a_mounted_slot_is_refused(machine: FakeMachine, found: Machine) -> None:
    machine.mount("254:0 /usr ext4 /dev/mapper/usr", "252:3 /mnt/other ext4 /dev/vda3")
    assert "/dev/vda3 is mounted at /mnt/other" in refusal(machine, found)


def test_a_slot_that_is_swapped_on_is_refused(machine: FakeMachine, found: Machine) -> None:
    machine.write("/proc/swaps", "Filename Type Size Used Priority\n/dev/vda3 partition 1 0 -2\n")
    assert "/dev/vda3 is swapped on" in refusal(machine, found)


def test_a_slot_held_by_device_mapper_or_md_is_refused(machine: FakeMachine, found: Machine) -> None:
    machine.add_device("dm-7", "254:7", slaves=["vda3"])
    assert "/dev/vda3 is held by dm-7" in refusal(machine, found)


def test_a_node_of_another_device_is_refused(machine: FakeMachine, found: Machine) -> None:
    machine.root.at("/dev/vda3").write_bytes(b"short")
    assert "has 5 bytes; expected 2097152" in refusal(machine, found)


def test_a_machine_that_has_changed_is_refused(machine: FakeMachine, found: Machine) -> None:
    machine.mount("252:3 /usr ext4 /dev/vda3")
    machine.write("/proc/cmdline", "quiet")
    assert "not what it was" in refusal(machine, found)


def test_a_slot_that_is_open_elsewhere_is_refused(
    machine: FakeMachine, found: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    real = os.open

    def busy(path: object, flags: int, *args: int) -> int:
        if flags & os.O_EXCL and str(path).endswith("vda3"):
            raise OSError(16, "Device or resource busy")
        return real(path, flags, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", busy)
    assert "in use by another program" in refusal(machine, found)
