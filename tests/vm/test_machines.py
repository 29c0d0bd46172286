"""The test machines alone: the loader honours the attributes, and whatever goes wrong in B ends in A."""

import re
from dataclasses import replace

import pytest

from careen.disk.slots import find_slots
from careen.disk.table import open_table, read_slots
from careen.disk.types import SlotName
from testos.image import OsImage
from testos.machine import BlockFault, Machine
from testos.variant import Fault

from .by_hand import arm, kexec_into_b, read_attributes
from .conftest import BOOT_SECONDS, MakeMachine, image, wait_up

A, B = SlotName.A, SlotName.B


def test_boots_verified_and_kexecs_into_the_other_slot(make_machine: MakeMachine) -> None:
    two = image("2")
    machine = make_machine(passive=two)
    arm(machine.disk, method="kexec")
    with machine:
        wait_up(machine, "1", A, "firmware")
        assert "V" in machine.shell.run("dmsetup status usr").split()
        assert machine.shell.run("systemctl is-system-running --wait", 120) == "running"
        kexec_into_b(machine, two)
        wait_up(machine, "2", B, "kexec")
        assert machine.shell.run("cat /proc/sys/kernel/bootloader_type") == "208"
        # Nobody marked B good: the next reset is for A.
        machine.reset()
        wait_up(machine, "1", A, "firmware")


@pytest.mark.parametrize("fault", [Fault.PANIC, Fault.INIT_EXITS])
def test_a_broken_system_in_b_ends_in_a(make_machine: MakeMachine, fault: Fault) -> None:
    broken = image("2", fault)
    machine = make_machine(passive=broken)
    arm(machine.disk, method="kexec")
    with machine:
        wait_up(machine, "1", A, "firmware")
        kexec_into_b(machine, broken)
        machine.console.wait_for(f"OS fault: {fault.replace('-', '.')}", BOOT_SECONDS)
        machine.console.wait_for("Kernel panic", BOOT_SECONDS)
        wait_up(machine, "1", A, "firmware")


def test_the_loader_takes_one_try_and_goes_back_after_a_power_cut(make_machine: MakeMachine) -> None:
    machine = make_machine(passive=image("2"))
    arm(machine.disk, method="firmware")
    with machine:
        wait_up(machine, "2", B, "firmware")
        assert [str(found) for found in read_attributes(machine)] == ["P1 T0 S1", "P2 T0 S0"]
        machine.cut_power()
        machine.start()
        wait_up(machine, "1", A, "firmware")


@pytest.mark.short
def test_a_flipped_bit_in_b_panics_and_ends_in_a(make_machine: MakeMachine) -> None:
    two = image("2")
    machine = make_machine(passive=two)
    arm(machine.disk, method="kexec")
    _spoil(machine, two)
    with machine:
        wait_up(machine, "1", A, "firmware")
        kexec_into_b(machine, two)
        machine.console.wait_for("dm-verity.*corrupted", BOOT_SECONDS)
        wait_up(machine, "1", A, "firmware")


def test_an_empty_slot_is_passed_over(make_machine: MakeMachine) -> None:
    machine = make_machine()
    arm(machine.disk, method="firmware")
    with machine:
        machine.console.wait_for("slot B has no boot block", BOOT_SECONDS)
        wait_up(machine, "1", A, "firmware")


def test_a_disk_without_a_table_never_ends_in_a_prompt(make_machine: MakeMachine) -> None:
    machine = make_machine()
    with machine.disk.open("r+b") as disk:
        disk.seek(512)
        disk.write(bytes(512))
        disk.seek(-512, 2)
        disk.write(bytes(512))
    with machine:
        for _ in range(2):
            machine.console.wait_for("giving up: no disk with a partition table", BOOT_SECONDS)


def test_the_disk_fails_where_a_test_wants_it(make_machine: MakeMachine) -> None:
    machine = make_machine()
    sector = read_slots(machine.disk).b.start // 512 + 4096
    machine.options = replace(machine.options, faults=(BlockFault("read", sector), BlockFault("write", sector, 28)))
    with machine:
        wait_up(machine, "1", A, "firmware")
        code, output = machine.shell.try_run(f"dd if=/dev/vda of=/dev/null bs=512 count=1 iflag=direct skip={sector}")
        assert (code, "Input/output error" in output) == (1, True), output
        machine.shell.run(f"dd if=/dev/vda of=/dev/null bs=512 count=1 iflag=direct skip={sector + 8}")
        code, output = machine.shell.try_run(f"dd if=/dev/zero of=/dev/vda bs=512 count=1 oflag=direct seek={sector}")
        assert code == 1, output


def _spoil(machine: Machine, two: OsImage) -> None:
    """Flip a bit of systemd, which the boot must read."""
    data = two.image.read_bytes()
    found = re.search(rb"systemd\.unified_cgroup_hierarchy", data)
    assert found is not None
    with open_table(machine.disk) as opened:
        start = find_slots(opened.table)[B].start
    with machine.disk.open("r+b") as disk:
        disk.seek(start + found.start())
        disk.write(bytes([data[found.start()] ^ 1]))
