"""The Linux host leaves its boot, and marks the next one good or gives it up."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from careen.agent.host import RebootError
from careen.agent.linux.host import LinuxHost
from careen.agent.linux.root import Answer
from careen.agent.linux.sdboot import LOADER_INFO
from careen.agent.record import Method, Stage
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
    ran,
    settings,
)
from linux_machines import FakeMachine


async def test_kexec_goes_through_systemd_with_a_forced_reset_behind_it(
    host: LinuxHost, machine: FakeMachine, kexec: FakeKexec, slot_tree: Path
) -> None:
    hold(machine, B, document())
    await journal(host)
    await host.arm(B, "Kexec")
    await host.request_reboot("Kexec", B)
    assert ran(machine, "systemd-run", "systemctl kexec", "systemctl reboot") == ["systemd-run", "systemctl kexec"]
    planted = next(line for line in machine.commands.ran if line.startswith("systemd-run"))
    assert "DefaultDependencies=no" in planted
    assert "read -r -t 180" in planted
    assert kexec.calls == ["load"]


@pytest.mark.parametrize("stage", [Stage.ARMED, Stage.UNDOING, Stage.REQUESTED])
async def test_a_kernel_that_a_killed_agent_has_loaded_stays_only_for_a_boot_that_was_asked_for(
    machine: FakeMachine, kexec: FakeKexec, stage: Stage
) -> None:
    async with LinuxHost(settings(), root=machine.root, commands=machine.commands, kexec=kexec) as host:
        await journal(host, stage=stage)
    kexec.loaded = b"", b"", ""
    async with LinuxHost(settings(), root=machine.root, commands=machine.commands, kexec=kexec):
        assert kexec.is_loaded() is (stage is Stage.REQUESTED)


async def test_a_kernel_that_somebody_else_has_loaded_is_left_alone(machine: FakeMachine, kexec: FakeKexec) -> None:
    kexec.loaded = b"", b"", ""
    async with LinuxHost(settings(), root=machine.root, commands=machine.commands, kexec=kexec):
        assert kexec.is_loaded()


async def test_a_kernel_that_got_lost_is_loaded_again(
    host: LinuxHost, machine: FakeMachine, kexec: FakeKexec, slot_tree: Path
) -> None:
    hold(machine, B, document())
    await journal(host)
    await host.request_reboot("Kexec", B)
    assert kexec.loaded is not None
    kexec.unload()
    kexec.error = errno.EPERM
    with pytest.raises(RebootError, match="kexec: the kernel refused"):
        await host.request_reboot("Kexec", B)


async def test_a_request_that_systemd_refuses_is_taken_back(host: LinuxHost, machine: FakeMachine) -> None:
    machine.commands.answers["systemctl reboot"] = Answer(1, "", "Access denied\n")
    with pytest.raises(RebootError, match="systemctl reboot: Access denied"):
        await host.request_reboot("Firmware", A)
    assert machine.commands.ran[-1] == "systemctl stop careen-forced-reboot.service"


def two_disks(machine: FakeMachine, _kexec: FakeKexec) -> None:
    machine.add_disk("sda", major=8, order=("USR-A", "USR-B"))


def stuck_kernel(_machine: FakeMachine, kexec: FakeKexec) -> None:
    def unload() -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    kexec.unload = unload  # type: ignore[method-assign]


def lost_document(machine: FakeMachine, _kexec: FakeKexec) -> None:
    machine.root.at("/var/lib/careen/slots.json").unlink()


@pytest.mark.parametrize(
    ("break_it", "method"), [(two_disks, "Firmware"), (stuck_kernel, "Firmware"), (lost_document, "Kexec")]
)
async def test_whatever_fails_before_systemd_is_asked_is_a_proven_failure(
    host: LinuxHost, machine: FakeMachine, kexec: FakeKexec, break_it: Callable[..., None], method: Method
) -> None:
    hold(machine, B, document())
    await journal(host)
    break_it(machine, kexec)
    with pytest.raises(RebootError):
        await host.request_reboot(method, B)
    assert ran(machine, "systemctl kexec", "systemctl reboot") == []


async def test_without_the_watchdog_that_was_promised_nothing_is_requested(
    host: LinuxHost, machine: FakeMachine, slot_tree: Path
) -> None:
    hold(machine, B, document())
    await journal(host, deadman="HardwareWatchdog")
    await host.arm(B, "Kexec")
    with pytest.raises(RebootError, match="watchdog that was to end a trial that hangs is gone"):
        await host.request_reboot("Kexec", B)
    assert ran(machine, "systemctl kexec") == []


@pytest.mark.parametrize("fault", ["watchdog", "kernel", "systemd"])
async def test_a_watchdog_is_not_left_armed_for_a_boot_that_does_not_come(
    machine: FakeMachine, kexec: FakeKexec, slot_tree: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def ioctl(*_: object) -> None:
        if fault == "watchdog":
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("careen.agent.linux.watchdog.fcntl.ioctl", ioctl)
    shown = {"identity": "i6300ESB timer", "nowayout": "0", "max_timeout": "2000", "state": "active"}
    for name, text in shown.items():
        machine.write(f"/sys/class/watchdog/watchdog0/{name}", text)
    machine.write("/sys/module/watchdog/parameters/stop_on_reboot", "0")
    device = machine.write("/dev/watchdog0", "")
    if fault == "systemd":
        machine.commands.answers["systemctl kexec"] = Answer(1, "", "Access denied")
    kexec.error = errno.EPERM if fault == "kernel" else 0
    hold(machine, B, document())
    async with LinuxHost(settings(), root=machine.root, commands=machine.commands, kexec=kexec) as host:
        await journal(host)
        with pytest.raises(RebootError):
            await host.request_reboot("Kexec", B)
        assert device.read_bytes() == b"V"


async def test_without_the_forced_reset_nothing_is_requested(host: LinuxHost, machine: FakeMachine) -> None:
    machine.commands.answers["systemd-run"] = Answer(1, "", "no bus")
    machine.commands.answers["systemctl is-active"] = Answer(3, "inactive\n")
    with pytest.raises(RebootError, match="was not started: no bus"):
        await host.request_reboot("Firmware", A)
    assert ran(machine, "systemctl reboot") == []


async def test_a_loaded_kernel_is_dropped_before_a_reboot_by_the_firmware(
    host: LinuxHost, machine: FakeMachine, kexec: FakeKexec
) -> None:
    kexec.loaded = b"", b"", ""
    await host.request_reboot("Firmware", A)
    assert kexec.loaded is None
    assert ran(machine, "systemctl reboot", "systemctl kexec") == ["systemctl reboot"]


async def test_the_booted_slot_is_started_again_without_the_words_of_a_trial(
    host: LinuxHost, machine: FakeMachine, kexec: FakeKexec
) -> None:
    hold(machine, A, document())
    machine.write("/usr/boot/vmlinuz", KERNEL)
    machine.write("/usr/boot/initrd", INITRD)
    await host.request_reboot("Kexec", A)
    assert kexec.loaded is not None
    assert "careen.slot=A" in kexec.loaded[2]
    assert "careen.order" not in kexec.loaded[2]
    assert ran(machine, "systemctl kexec") == ["systemctl kexec"]
    kexec.error = errno.EPERM
    await host.request_reboot("Kexec", A)
    assert ran(machine, "systemctl kexec", "systemctl reboot")[-1] == "systemctl reboot"


@pytest.fixture
def esp(machine: FakeMachine) -> Path:
    """The machine boots slot A by systemd-boot; the ESP has the kernel of an older release of slot B."""
    machine.write(LOADER_INFO, b"\x06\0\0\0" + "systemd-boot 252\0".encode("utf-16-le"))
    machine.mount("254:0 /usr ext4 /dev/mapper/usr", "252:1 /efi vfat /dev/vda1")
    machine.write("/efi/loader/entries/careen-A.conf", "title careen A\nsort-key careen\nversion 1\n")
    machine.write("/efi/careen/b/vmlinuz", b"an older kernel")
    machine.write("/efi/careen/b/entry", "version 2\noptions careen.slot=B careen.usrhash=0\n")
    return machine.root.at("/efi")


async def test_what_the_boot_loader_missed_at_the_arming_is_told_before_the_reboot_or_there_is_none(
    host: LinuxHost, machine: FakeMachine, esp: Path, slot_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    hold(machine, B, document())
    await journal(host)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfileobj", full)
        with pytest.raises(DiskError, match="No space left"):
            await host.arm(B, "Kexec")
        with pytest.raises(RebootError, match="No space left"):
            await host.request_reboot("Kexec", B)
        assert ran(machine, "systemctl kexec") == []
    assert not (esp / "careen/b/vmlinuz").exists()
    await host.request_reboot("Kexec", B)
    assert (esp / "careen/b/vmlinuz").read_bytes() == KERNEL
    assert f"careen.usrhash={ROOT_HASH}" in (esp / "careen/b/entry").read_text()
    assert ran(machine, "systemctl kexec") == ["systemctl kexec"]


async def test_a_trial_is_only_good_with_its_own_kernel_on_the_esp(trial: FakeMachine, kexec: FakeKexec) -> None:
    trial.write(LOADER_INFO, b"\x06\0\0\0" + "systemd-boot 252\0".encode("utf-16-le"))
    trial.mount("254:0 /usr ext4 /dev/mapper/usr", "252:1 /efi vfat /dev/vda1")
    trial.write("/efi/loader/entries/careen-A.conf", "version 1\n")
    trial.write("/efi/careen/b/vmlinuz", b"an older kernel")
    trial.write("/efi/careen/b/entry", "version 2\noptions careen.slot=B careen.usrhash=0\n")
    trial.root.at("/usr").mkdir()
    hold(trial, B, document())
    async with LinuxHost(settings(), root=trial.root, commands=trial.commands, kexec=kexec) as host:
        with pytest.raises(DiskError, match="no plain file boot/vmlinuz"):
            await host.mark_good(B)
        assert (attributes(trial, B), boots_next(trial)) == (TRIAL, A)
        trial.write("/usr/boot/vmlinuz", KERNEL)
        trial.write("/usr/boot/initrd", INITRD)
        await host.mark_good(B)
    assert attributes(trial, B) == Attributes(2, 0, True)
    assert trial.root.at("/efi/careen/b/vmlinuz").read_bytes() == KERNEL
    entry = trial.root.at("/efi/loader/entries/careen-B.conf").read_text()
    assert f"careen.usrhash={ROOT_HASH}" in entry
    assert "careen.order" not in entry


async def test_a_trial_that_is_given_up_boots_the_old_slot(trial: FakeMachine, kexec: FakeKexec) -> None:
    async with LinuxHost(settings(), root=trial.root, commands=trial.commands, kexec=kexec) as host:
        await host.abandon(B)
        assert (attributes(trial, B), boots_next(trial)) == (GIVEN_UP, A)


async def test_a_reset_is_left_to_the_next_boot(host: LinuxHost, machine: FakeMachine) -> None:
    await host.prepare_reset()
    assert (await host.look()).reset_prepared
    assert machine.root.at("/careen-reset").read_text().startswith("careen-reset 1\n")
    await host.drop_reset()
    assert not (await host.look()).reset_prepared
