"""Which disk, which slots, which side runs; and a refusal with a sentence whenever that is not certain."""

from __future__ import annotations

import pytest

from careen.agent.linux.discovery import find_machine
from careen.disk.types import AmbiguousSlotsError, GptInvalidError, SlotName
from linux_machines import FakeMachine

A, B = SlotName.A, SlotName.B


@pytest.mark.parametrize(
    ("disk", "slot_a", "slot_b"),
    [("vda", "vda2", "vda3"), ("sda", "sda2", "sda3"), ("nvme0n1", "nvme0n1p2", "nvme0n1p3"),
     ("mmcblk0", "mmcblk0p2", "mmcblk0p3")],
)  # fmt: skip
@pytest.mark.parametrize("booted", [A, B])
def test_the_booted_side_is_found_through_dm_verity(
    bare: FakeMachine, disk: str, slot_a: str, slot_b: str, booted: SlotName
) -> None:
    bare.add_disk(disk)
    bare.run_from(slot_a if booted is A else slot_b)
    bare.write("/proc/cmdline", f"careen.slot={booted}")
    found = find_machine(bare.root)
    assert (found.booted, found.a.name, found.b.name) == (booted, slot_a, slot_b)
    assert found.disk == bare.root.at(f"/dev/{disk}")


def test_partitions_may_be_in_any_order(bare: FakeMachine) -> None:
    bare.add_disk("vda", order=("ROOT", "USR-B", "EFI-SYSTEM", "USR-A"), first=3)
    bare.run_from("vda4")
    bare.write("/proc/cmdline", "quiet")
    found = find_machine(bare.root)
    assert (found.booted, found.a.name, found.b.name) == (B, "vda6", "vda4")


def test_a_plain_mount_and_an_overlay_of_extensions_are_seen_through(bare: FakeMachine) -> None:
    bare.add_disk("vda")
    bare.mount("252:2 /usr ext4 /dev/vda2")
    assert find_machine(bare.root).booted is A
    bare.mount("252:2 /usr ext4 /dev/vda2", "0:30 /usr overlay sysext ro,lowerdir=/run/ext/x/usr:/usr")
    assert find_machine(bare.root).booted is A


def test_a_btrfs_usr_is_found_by_its_source(bare: FakeMachine) -> None:
    bare.add_disk("vda")
    bare.mount("0:44 /usr btrfs /dev/vda3")
    bare.write("/proc/cmdline", "quiet")
    assert find_machine(bare.root).booted is B


def test_device_mapper_on_device_mapper_is_followed(bare: FakeMachine) -> None:
    bare.add_disk("vda")
    bare.add_device("dm-1", "254:1", slaves=["vda2"])
    bare.run_from("dm-1")
    assert find_machine(bare.root).booted is A


def refusal(machine: FakeMachine) -> str:
    with pytest.raises(AmbiguousSlotsError) as caught:
        find_machine(machine.root)
    return str(caught.value)


def test_usr_on_the_writable_partition_is_refused(bare: FakeMachine) -> None:
    bare.add_disk("vda")
    bare.mount("252:4 / ext4 /dev/vda4")
    assert "/dev/vda4, which is none of /dev/vda2 (USR-A) and /dev/vda3 (USR-B)" in refusal(bare)


def test_usr_on_no_block_device_is_refused(bare: FakeMachine) -> None:
    bare.add_disk("vda")
    bare.mount("0:50 /usr nfs server:/usr")
    assert "server:/usr (nfs, 0:50), which is no block device" in refusal(bare)


def test_usr_on_a_whole_disk_is_refused(bare: FakeMachine) -> None:
    bare.add_disk("vda")
    bare.mount("252:0 /usr ext4 /dev/vda")
    assert "/dev/vda, which is no partition" in refusal(bare)


def test_usr_on_two_partitions_is_refused(bare: FakeMachine) -> None:
    bare.add_disk("vda")
    bare.add_device("dm-0", "254:0", slaves=["vda2", "vda3"])
    bare.mount("254:0 /usr ext4 /dev/mapper/usr")
    assert "2 devices (/dev/vda2, /dev/vda3)" in refusal(bare)


def test_a_second_disk_with_slots_is_refused(machine: FakeMachine) -> None:
    machine.add_disk("vdb", major=253)
    assert "/dev/vdb2 is labelled USR-A too" in refusal(machine)


def test_a_second_disk_without_slots_is_no_matter(machine: FakeMachine) -> None:
    machine.add_disk("vdb", major=253)
    for number in (2, 3):
        machine.write(f"/sys/devices/vdb/vdb{number}/uevent", "PARTNAME=data\n")
    assert find_machine(machine.root).disk_name == "vda"


def test_a_command_line_that_says_the_other_slot_is_refused(machine: FakeMachine) -> None:
    machine.write("/proc/cmdline", "careen.slot=B quiet")
    assert "careen.slot=B, and /usr runs from slot A" in refusal(machine)


def test_a_table_that_the_kernel_has_not_read_is_refused(machine: FakeMachine) -> None:
    machine.write("/sys/devices/vda/vda3/start", "999")
    assert "the table was changed since the disk was read" in refusal(machine)


def test_a_partition_that_the_kernel_does_not_show_is_refused(machine: FakeMachine) -> None:
    machine.write("/sys/devices/vda/vda3/partition", "7")
    assert "no partition 3 (USR-B)" in refusal(machine)


def test_a_disk_without_a_table_is_refused(machine: FakeMachine) -> None:
    disk = machine.root.at("/dev/vda")
    disk.write_bytes(bytes(disk.stat().st_size))
    with pytest.raises(GptInvalidError):
        find_machine(machine.root)
