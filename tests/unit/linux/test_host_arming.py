"""The Linux host writes to the passive slot and arms it: in which order, and what it refuses."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from careen.agent.actions import StageImage
from careen.agent.host import KexecRefusedError
from careen.agent.linux.host import LinuxHost
from careen.agent.staging.fault import StageError
from careen.disk.table import change_slots
from careen.disk.types import GIVEN_UP, Attributes, DiskError
from linux_hosts import (
    INITRD,
    KERNEL,
    ROOT_HASH,
    TRIAL,
    A,
    B,
    FakeKexec,
    attributes,
    boots_next,
    document,
    hold,
    journal,
)
from linux_machines import FakeMachine


async def test_arming_by_kexec_loads_a_checked_kernel_and_leaves_every_reset_to_the_old_slot(
    host: LinuxHost, machine: FakeMachine, kexec: FakeKexec, slot_tree: Path
) -> None:
    hold(machine, B, document())
    await journal(host)
    await host.arm(B, "Kexec")
    assert kexec.loaded is not None
    kernel, initrd, line = kexec.loaded
    assert (kernel, initrd) == (KERNEL, INITRD)
    assert line == (
        f"console=ttyS0 quiet careen.slot=B careen.usrhash={ROOT_HASH} careen.boot=kexec careen.order=order-1 "
        "panic=10 oops=panic softlockup_panic=1 hung_task_panic=1 systemd.mask=systemd-bless-boot.service"
    )
    assert (attributes(machine, B), boots_next(machine)) == (TRIAL, A)
    assert not machine.root.at("/run/careen/next").exists()
    await host.disarm(B)
    assert (attributes(machine, B), kexec.loaded) == (GIVEN_UP, None)


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOSYS, errno.EBUSY, errno.ENOEXEC, errno.ENOMEM])
async def test_a_kernel_that_is_refused_is_told_before_anything_is_armed(
    host: LinuxHost, machine: FakeMachine, kexec: FakeKexec, slot_tree: Path, code: int
) -> None:
    hold(machine, B, document())
    await journal(host)
    kexec.error = code
    with pytest.raises(KexecRefusedError, match="refused to load"):
        await host.arm(B, "Kexec")
    assert attributes(machine, B) == GIVEN_UP


async def test_another_failure_of_the_load_is_no_refusal(
    host: LinuxHost, machine: FakeMachine, kexec: FakeKexec, slot_tree: Path
) -> None:
    hold(machine, B, document())
    kexec.error = errno.EIO
    with pytest.raises(OSError, match="kexec_file_load"):
        await host.arm(B, "Kexec")
    assert attributes(machine, B) == GIVEN_UP


@pytest.mark.parametrize("path", ["boot/vmlinuz", "boot/initrd"])
@pytest.mark.parametrize("damage", ["other", "missing", "link"])
async def test_a_kernel_or_initrd_that_is_not_the_signed_one_is_never_loaded(
    host: LinuxHost, machine: FakeMachine, kexec: FakeKexec, slot_tree: Path, path: str, damage: str
) -> None:
    hold(machine, B, document())
    file = slot_tree / path
    data = file.read_bytes()
    file.unlink()
    if damage == "other":
        file.write_bytes(data[:-1] + b"!")
    if damage == "link":
        (slot_tree / "elsewhere").write_bytes(data)
        file.symlink_to(slot_tree / "elsewhere")
    with pytest.raises(DiskError, match=path):
        await host.arm(B, "Kexec")
    assert (kexec.calls, attributes(machine, B)) == ([], GIVEN_UP)


async def test_a_release_without_a_kernel_is_refused(host: LinuxHost, machine: FakeMachine, slot_tree: Path) -> None:
    hold(machine, B, document(kernel=False))
    for method in ("Kexec", "Firmware"):
        with pytest.raises(StageError, match="has no kernel") as caught:
            await host.arm(B, method)  # type: ignore[arg-type]
        assert caught.value.fault.class_ == "Refused"
    assert attributes(machine, B) == GIVEN_UP


async def test_arming_for_the_firmware_gives_one_try_and_loads_nothing(
    host: LinuxHost, machine: FakeMachine, kexec: FakeKexec, slot_tree: Path
) -> None:
    hold(machine, B, document())
    await host.arm(B, "Firmware")
    assert (attributes(machine, B), boots_next(machine)) == (Attributes(2, 1, False), B)
    assert kexec.calls == ["unload"]


async def test_debians_own_kexec_at_reboot_is_refused(host: LinuxHost, machine: FakeMachine, slot_tree: Path) -> None:
    hold(machine, B, document())
    machine.write("/etc/default/kexec", "LOAD_KEXEC=true\n")
    machine.write("/vmlinuz", "")
    with pytest.raises(StageError, match="LOAD_KEXEC"):
        await host.arm(B, "Firmware")


async def test_nothing_is_touched_beside_another_updater(
    host: LinuxHost, machine: FakeMachine, slot_tree: Path
) -> None:
    change_slots(machine.root.at("/dev/vda"), lambda slots: slots.with_attributes(B, Attributes(1, 0, True)))
    machine.write("/proc/99/comm", "update_engine\n")
    image = StageImage("order-1", B, "http://127.0.0.1:1/", "releases/2.0.0.json", "sha256:" + "0" * 64, 1, "2.0.0")
    for call in (host.admit(image), host.invalidate(B), host.stage(image, lambda _: None), host.arm(B, "Kexec")):
        with pytest.raises(StageError, match="update_engine runs on this machine") as caught:
            await call
        assert caught.value.fault.class_ == "Refused"
    assert attributes(machine, B) == Attributes(1, 0, True)


async def test_a_passive_slot_in_use_is_not_even_given_up(host: LinuxHost, machine: FakeMachine) -> None:
    change_slots(machine.root.at("/dev/vda"), lambda slots: slots.with_attributes(B, Attributes(1, 0, True)))
    machine.mount("254:0 /usr ext4 /dev/mapper/usr", "252:3 /mnt ext4 /dev/vda3")
    with pytest.raises(DiskError, match="/dev/vda3 is mounted at /mnt"):
        await host.invalidate(B)
    assert attributes(machine, B) == Attributes(1, 0, True)
    machine.mount("254:0 /usr ext4 /dev/mapper/usr")
    await host.invalidate(B)
    assert attributes(machine, B) == GIVEN_UP
