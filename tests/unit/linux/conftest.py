"""Linux machines in folders, and the agent's host on one of them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from careen.agent.linux import bootfiles
from careen.agent.linux.host import LinuxHost
from careen.agent.linux.root import Answer
from linux_hosts import INITRD, KERNEL, TRIAL, FakeKexec, settings
from linux_machines import BOOT_ID, MACHINE_ID, FakeMachine


@pytest.fixture
def bare(tmp_path: Path) -> FakeMachine:
    """A machine with an identity and no disk."""
    machine = FakeMachine(tmp_path / "root")
    machine.write("/proc/sys/kernel/random/boot_id", BOOT_ID + "\n")
    machine.write("/etc/machine-id", MACHINE_ID + "\n")
    machine.write("/etc/os-release", 'PRETTY_NAME="Test OS 1"\nIMAGE_VERSION=1.0.0\n')
    machine.write("/proc/cmdline", "console=ttyS0 careen.slot=A careen.boot=firmware quiet\n")
    machine.write("/proc/meminfo", "MemTotal: 4000000 kB\nMemAvailable: 2000000 kB\n")
    machine.write("/sys/kernel/kexec_loaded", "0\n")
    machine.write("/proc/sys/kernel/kexec_load_disabled", "0\n")
    machine.mount()
    for folder in ("/run", "/var/lib/careen", "/tmp"):
        machine.root.at(folder).mkdir(parents=True, exist_ok=True)
    return machine


@pytest.fixture
def machine(bare: FakeMachine) -> FakeMachine:
    """A machine that runs slot A of /dev/vda through dm-verity."""
    bare.add_disk("vda")
    bare.run_from("vda2")
    return bare


@pytest.fixture
def sha256() -> Callable[[bytes], str]:
    return lambda data: hashlib.sha256(data).hexdigest()


@pytest.fixture
def slot_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is seen when a slot is mounted."""
    tree = tmp_path / "slot"
    (tree / "boot").mkdir(parents=True)
    (tree / "boot" / "vmlinuz").write_bytes(KERNEL)
    (tree / "boot" / "initrd").write_bytes(INITRD)

    @contextmanager
    def mounted(device: Path, filesystem: str, place: Path) -> Iterator[Path]:
        assert (device.name, filesystem) == ("vda3", "ext4")
        yield tree

    monkeypatch.setattr(bootfiles, "mounted", mounted)
    return tree


@pytest.fixture
def kexec() -> FakeKexec:
    return FakeKexec()


@pytest.fixture
async def host(machine: FakeMachine, kexec: FakeKexec) -> AsyncIterator[LinuxHost]:
    machine.commands.answers["systemctl is-system-running"] = Answer(0, "running\n")
    async with LinuxHost(settings(), root=machine.root, commands=machine.commands, kexec=kexec) as opened:
        yield opened


@pytest.fixture
def trial(bare: FakeMachine) -> FakeMachine:
    """A machine that runs slot B on trial."""
    bare.add_disk("vda", attributes={"USR-B": TRIAL})
    bare.run_from("vda3")
    bare.write("/proc/cmdline", "quiet careen.slot=B careen.boot=kexec careen.order=order-1")
    return bare
