"""The Linux host and a partition table that is damaged or lost, and what a slot without a record says of itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from careen.agent.linux.host import LinuxHost
from careen.disk.table import inspect_slots
from careen.disk.types import GIVEN_UP, DiskError, GptInvalidError
from careen.release.bootblock import BOOT_BLOCK_BYTES, BootBlock
from linux_hosts import A, B, FakeKexec, attributes, document, hold, journal, settings
from linux_machines import FakeMachine


def lose(machine: FakeMachine, *copies: int) -> Callable[[], None]:
    """Overwrite the header of the first or the last sector's copy; the answer puts it back."""
    disk = machine.root.at("/dev/vda")
    data = bytearray(disk.read_bytes())
    before = bytes(data)
    for copy in copies:
        at = 512 if copy == 1 else len(data) - 512
        data[at : at + 512] = bytes(512)
    disk.write_bytes(data)

    def restore() -> None:
        disk.write_bytes(before)

    return restore


async def test_an_agent_that_starts_without_a_table_opens_and_says_so_until_it_has_one(
    machine: FakeMachine, kexec: FakeKexec
) -> None:
    restore = lose(machine, 1, 2)
    async with LinuxHost(settings(), root=machine.root, commands=machine.commands, kexec=kexec) as host:
        for _ in range(2):
            with pytest.raises(GptInvalidError, match="neither copy"):
                await host.look()
        assert not machine.root.at("/run/careen/committed").exists()
        restore()
        assert (await host.look()).disk.booted is A
        assert machine.root.at("/run/careen/committed").exists()


async def test_a_disk_that_is_in_doubt_at_the_start_is_told_too(machine: FakeMachine, kexec: FakeKexec) -> None:
    machine.add_disk("sda", major=8, order=("USR-A", "USR-B"))
    async with LinuxHost(settings(), root=machine.root, commands=machine.commands, kexec=kexec) as host:
        with pytest.raises(DiskError, match="one disk with slots"):
            await host.look()


@pytest.mark.parametrize("copy", [1, 2])
async def test_a_damaged_copy_is_seen_repaired_and_remembered(
    machine: FakeMachine, kexec: FakeKexec, caplog: pytest.LogCaptureFixture, copy: int
) -> None:
    lose(machine, copy)
    async with LinuxHost(settings(), root=machine.root, commands=machine.commands, kexec=kexec) as host:
        sight = await host.look()
        assert len(sight.disk.faults) == 1
        assert sight.disk.repair is None
        await host.repair_table()
        assert inspect_slots(machine.root.at("/dev/vda")).faults == ()
        assert "the partition table was repaired: " + sight.disk.faults[0] in caplog.text
        after = await host.look()
        assert after.disk.faults == ()
        assert after.disk.repair is not None
        assert after.disk.repair.faults == sight.disk.faults
    async with LinuxHost(settings(), root=machine.root, commands=machine.commands, kexec=kexec) as another:
        assert (await another.look()).disk.repair == after.disk.repair


async def test_what_is_repaired_before_an_arming_is_remembered_too(
    host: LinuxHost, machine: FakeMachine, slot_tree: Path
) -> None:
    hold(machine, B, document())
    await journal(host)
    lose(machine, 2)
    await host.arm(B, "Kexec")
    assert attributes(machine, B) != GIVEN_UP
    repair = (await host.look()).disk.repair
    assert repair is not None
    assert "the backup copy is not valid" in repair.faults[0]


def claim(machine: FakeMachine, device: str, version: str) -> None:
    block = BootBlock(
        version=version, digest="sha256:" + "c" * 64, verity_root="cd" * 32, data_blocks=1, size=4096
    ).encode()
    path = machine.root.at(f"/dev/{device}")
    with path.open("r+b") as opened:
        opened.seek(path.stat().st_size - BOOT_BLOCK_BYTES)
        opened.write(block)


async def test_the_version_of_a_slot_that_an_installer_wrote_is_told_though_it_does_not_run(
    host: LinuxHost, machine: FakeMachine
) -> None:
    claim(machine, "vda3", "0.9.0")
    claim(machine, "vda2", "0.1.0")
    sight = await host.look()
    assert (sight.disk.b.version, sight.disk.b.digest) == ("0.9.0", None)
    assert sight.disk.a.version == "1.0.0", "what runs says more of itself than its boot block"
    hold(machine, B, document())
    assert (await host.look()).disk.b.version == "2.0.0"


async def test_a_slot_that_can_not_be_read_has_no_version_and_blinds_nobody(
    host: LinuxHost, machine: FakeMachine
) -> None:
    machine.root.at("/dev/vda3").unlink()
    assert (await host.look()).disk.b.version is None
