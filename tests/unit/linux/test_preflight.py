"""Kexec or firmware, decided from what the machine shows, with the reason that stands first in the way."""

from __future__ import annotations

import os
import struct
from types import SimpleNamespace

import pytest

from careen.agent.linux.preflight import Preflight, Staged, decide, is_possible, read_platform
from linux_machines import FakeMachine

MIB = 1 << 20
SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


def reason(machine: FakeMachine, staged: Staged | None = None, **settings: object) -> tuple[str, str]:
    platform = read_platform(machine.root, watchdog=False)
    decision = decide(platform, Preflight(**settings), staged or Staged())  # type: ignore[arg-type]
    assert decision.message
    return decision.method, decision.reason


def test_a_plain_machine_boots_by_kexec(bare: FakeMachine) -> None:
    assert reason(bare) == ("Kexec", "Supported")


@pytest.mark.parametrize(
    ("path", "content", "expected"),
    [
        ("/proc/sys/kernel/kexec_load_disabled", "1\n", "Disabled"),
        ("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n", "Lockdown"),
        (SECURE_BOOT, struct.pack("<IB", 6, 1), "SecureBoot"),
        ("/sys/class/dmi/id/sys_vendor", "Google\n", "DenyListed"),
        ("/sys/class/dmi/id/sys_vendor", "Microsoft Corporation\n", "DenyListed"),
    ],
)
def test_what_stands_in_the_way_is_named(bare: FakeMachine, path: str, content: str | bytes, expected: str) -> None:
    bare.write(path, content)
    assert reason(bare) == ("Firmware", expected)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/sys/kernel/security/lockdown", "[none] integrity confidentiality\n"),
        (SECURE_BOOT, struct.pack("<IB", 6, 0)),
        ("/sys/class/dmi/id/sys_vendor", "QEMU\n"),
    ],
)
def test_what_is_there_and_open_is_no_hindrance(bare: FakeMachine, path: str, content: str | bytes) -> None:
    bare.write(path, content)
    assert reason(bare) == ("Kexec", "Supported")


def test_a_kernel_without_kexec_goes_through_the_firmware(bare: FakeMachine) -> None:
    bare.root.at("/sys/kernel/kexec_loaded").unlink()
    assert reason(bare) == ("Firmware", "Unsupported")


@pytest.mark.parametrize(("free_mib", "expected"), [(179, "LowMemory"), (180, "Supported")])
def test_memory_must_hold_kernel_and_initrd_three_times(bare: FakeMachine, free_mib: int, expected: str) -> None:
    bare.write("/proc/meminfo", f"MemAvailable: {free_mib * 1024} kB\n")
    assert reason(bare, Staged(boot_bytes=60 * MIB))[1] == expected


@pytest.mark.parametrize(("pages", "expected"), [(15359, "LowMemory"), (15360, "Supported")])
def test_run_must_hold_their_copies(
    bare: FakeMachine, monkeypatch: pytest.MonkeyPatch, pages: int, expected: str
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=pages, f_frsize=4096))
    assert reason(bare, Staged(boot_bytes=60 * MIB))[1] == expected


def test_a_release_without_a_kernel_can_not_be_loaded(bare: FakeMachine) -> None:
    assert reason(bare, Staged(boot_bytes=0)) == ("Firmware", "NoKernel")


def test_the_deny_list_is_a_setting(bare: FakeMachine) -> None:
    bare.write("/sys/class/dmi/id/sys_vendor", "ACME Corp.\n")
    assert reason(bare, denied_vendors=("acme",)) == ("Firmware", "DenyListed")
    assert reason(bare, denied_vendors=()) == ("Kexec", "Supported")


def test_what_the_firmware_booted_and_kexec_did_not_is_remembered(bare: FakeMachine) -> None:
    assert reason(bare, Staged(blamed="sha256:00")) == ("Firmware", "KexecFailed")


def test_people_can_insist_on_kexec_against_a_guess_but_not_against_the_kernel(bare: FakeMachine) -> None:
    bare.write("/sys/class/dmi/id/sys_vendor", "Google\n")
    assert is_possible(read_platform(bare.root, watchdog=False), Preflight())
    bare.write("/proc/sys/kernel/kexec_load_disabled", "1")
    assert not is_possible(read_platform(bare.root, watchdog=False), Preflight())
    assert not is_possible(read_platform(bare.root, watchdog=False), Preflight(kexec=False))


@pytest.mark.parametrize(
    ("watchdog", "timer", "locked", "deadman"),
    [
        (True, True, False, "HardwareWatchdog"),
        (False, True, False, "TrialTimer"),
        (False, False, False, "Missing"),
        (True, True, True, "TrialTimer"),
        (True, False, True, "Missing"),
    ],
)
def test_what_ends_a_hung_trial(bare: FakeMachine, watchdog: bool, timer: bool, locked: bool, deadman: str) -> None:
    bare.write("/sys/kernel/security/lockdown", "[integrity]" if locked else "[none]")
    platform = read_platform(bare.root, watchdog=watchdog)
    assert decide(platform, Preflight(), Staged(trial_timer=timer)).deadman == deadman
