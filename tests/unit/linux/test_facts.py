"""What the machine tells about this boot."""

from __future__ import annotations

import json

import pytest

from careen.agent.linux.conflicts import find_conflict, find_kexec_hook
from careen.agent.linux.crashes import find_reset
from careen.agent.linux.facts import note_times, read_boot, read_method
from linux_machines import BOOT_ID, MACHINE_ID, FakeMachine


def test_identity_and_version(bare: FakeMachine) -> None:
    boot = read_boot(bare.root)
    assert (boot.boot_id, boot.machine_id, boot.os_image, boot.version) == (BOOT_ID, MACHINE_ID, "Test OS 1", "1.0.0")
    assert boot.started < boot.seen


def test_a_machine_without_an_identity_is_told_so(bare: FakeMachine) -> None:
    bare.root.at("/etc/machine-id").unlink()
    with pytest.raises(OSError, match="/etc/machine-id is empty or can't be read"):
        read_boot(bare.root)


@pytest.mark.parametrize(
    ("line", "loader", "method"),
    [
        ("quiet careen.boot=kexec", "208", "Kexec"),
        # A loader that is itself a kernel starts everything by kexec.
        ("quiet careen.boot=firmware", "208", "Firmware"),
        ("quiet", "208", "Kexec"),
        ("quiet", "33", "Firmware"),
        ("quiet", "176", "Firmware"),
        ("quiet", None, "Firmware"),
    ],
)
def test_how_the_kernel_was_started(bare: FakeMachine, line: str, loader: str | None, method: str) -> None:
    bare.write("/proc/cmdline", line)
    if loader:
        bare.write("/proc/sys/kernel/bootloader_type", loader)
    assert read_method(bare.root) == method


def reset(machine: FakeMachine, boot_id: str) -> str | None:
    return find_reset(machine.root, machine.root.at("/var/lib/careen/panics.json"), boot_id)


def test_why_the_boot_before_ended(bare: FakeMachine) -> None:
    assert reset(bare, "boot-1") is None
    bare.write("/sys/class/watchdog/watchdog0/bootstatus", "32")
    assert reset(bare, "boot-2") == "Watchdog"
    bare.write("/sys/fs/pstore/dmesg-erst-1", "Oops#1 Part1\nnot the end\n")
    assert reset(bare, "boot-3") == "Watchdog"
    bare.write("/sys/fs/pstore/dmesg-erst-2", "Panic#2 Part1\nKernel panic\n")
    assert reset(bare, "boot-4") == "Panic"


@pytest.mark.parametrize("moved", [False, True])
def test_a_panic_is_news_for_one_boot(bare: FakeMachine, moved: bool) -> None:
    kept = bare.write("/sys/fs/pstore/dmesg-efi-7", "Panic#1 Part1\n")
    assert reset(bare, "boot-1") == "Panic"
    if moved:
        bare.write("/var/lib/systemd/pstore/7/dmesg-efi-7", kept.read_bytes())
        kept.unlink()
    assert reset(bare, "boot-1") == "Panic"
    assert reset(bare, "boot-2") is None
    # The same place again, as a store of few places does.
    bare.write("/sys/fs/pstore/dmesg-efi-7", "Panic#1 Part1\nanother\n")
    assert reset(bare, "boot-3") == "Panic"
    assert reset(bare, "boot-4") is None


def test_times_are_those_of_the_first_agent_of_the_boot(bare: FakeMachine) -> None:
    path = bare.root.at("/run/times.json")
    first = note_times(path, read_boot(bare.root))
    path.write_text(json.dumps({"kernel": first.kernel, "agent": "2026-01-01T00:00:00Z"}))
    assert note_times(path, read_boot(bare.root)).agent == "2026-01-01T00:00:00Z"
    path.write_text("{")
    assert note_times(path, read_boot(bare.root)).kernel.endswith("Z")


@pytest.mark.parametrize("program", ["update_engine", "locksmithd", "kured", "zincati"])
def test_another_updater_is_named(bare: FakeMachine, program: str) -> None:
    bare.write("/proc/7/comm", "bash\n")
    assert find_conflict(bare.root) is None
    bare.write("/proc/812/comm", program + "\n")
    sentence = find_conflict(bare.root)
    assert sentence is not None
    assert sentence.startswith(f"{program} runs on this machine (process 812)")


def test_debians_kexec_at_reboot_is_named(bare: FakeMachine) -> None:
    bare.write("/etc/default/kexec", "# x\nLOAD_KEXEC=true\n")
    assert find_kexec_hook(bare.root) is None
    bare.write("/vmlinuz", "")
    sentence = find_kexec_hook(bare.root)
    assert sentence is not None
    assert "LOAD_KEXEC=true" in sentence
    bare.write("/etc/default/kexec", "LOAD_KEXEC=false\n")
    assert find_kexec_hook(bare.root) is None
