"""The machine folder as the agent's host: real disk image, real HTTP, and never a byte of the running slot."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from careen.agent.actions import StageImage, VerifySlot
from careen.agent.fetch import Deadlines, StageError
from careen.agent.imagehost import ImageHost, MachineFolder
from careen.agent.record import Journal
from careen.disk.boot import preview
from careen.disk.image import open_slot
from careen.disk.table import read_slots
from careen.disk.types import GIVEN_UP, Attributes, DiskError, SlotName, UnsafeChangeError
from careen.sandbox.firmware import power_on
from careen.sandbox.machine import create_machine, machine_id_of
from careen.sandbox.releases import IMAGE_BYTES, ReleaseServer, Repository, ServerFault

A, B = SlotName.A, SlotName.B


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    made = Repository.create(tmp_path_factory.mktemp("releases"))
    made.publish("1.0.0")
    made.publish("2.0.0")
    return made


@pytest.fixture
async def server(repository: Repository) -> AsyncIterator[ReleaseServer]:
    async with ReleaseServer(repository).running() as running:
        yield running


@pytest.fixture
def machine(repository: Repository, tmp_path: Path) -> MachineFolder:
    first = repository.image(repository.index.releases["1.0.0"])
    made = create_machine(tmp_path / "m", first, "1.0.0", machine_id=machine_id_of("m"))
    power_on(made.path)
    return made


@pytest.fixture
async def host(machine: MachineFolder) -> AsyncIterator[ImageHost]:
    async with ImageHost(machine.path, deadlines=Deadlines(connect=1.0, read=0.5, block=1.0)) as opened:
        yield opened


def image(server: ReleaseServer, version: str = "2.0.0") -> StageImage:
    entry = server.repository.index.releases[version]
    return StageImage("order-1", B, server.url + "/", entry.path, entry.digest, entry.size_bytes, version)


def check(image: StageImage, slot: SlotName = B, purpose: str = "order-1") -> VerifySlot:
    return VerifySlot(slot, image.digest, image.size, image.version, purpose)


def content(machine: MachineFolder, slot: SlotName) -> str:
    with open_slot(machine.disk, slot) as opened:
        return hashlib.sha256(opened.read(0, opened.size)).hexdigest()


async def stage(host: ImageHost, wanted: StageImage) -> None:
    await host.invalidate(B)
    await host.stage(wanted, lambda _: None)


async def test_it_sees_a_fresh_machine(host: ImageHost, repository: Repository) -> None:
    sight = await host.look()
    first = repository.index.releases["1.0.0"]
    assert sight.disk.booted is A
    assert (sight.disk.a.digest, sight.disk.a.version, sight.disk.a.attributes) == (
        first.digest, "1.0.0", Attributes(1, 0, True),
    )  # fmt: skip
    assert (sight.disk.b.digest, sight.disk.b.attributes) == (None, GIVEN_UP)
    assert sight.journal == Journal(machine_id_of("m"))
    assert sight.boot.machine_id == machine_id_of("m")
    assert 0 <= sight.boot.uptime < 60
    assert (sight.api_answered, sight.unhealthy) == (False, None)


async def test_staging_then_arming_then_committing(
    host: ImageHost, machine: MachineFolder, server: ReleaseServer
) -> None:
    running = content(machine, A)
    await stage(host, image(server))
    sight = await host.look()
    assert (sight.disk.b.digest, sight.disk.b.version, sight.disk.b.checked) == (image(server).digest, "2.0.0", "stage")
    assert sight.disk.b.attributes == GIVEN_UP
    assert await host.verify(check(image(server)))
    assert (await host.look()).disk.b.checked == "order-1"
    await host.arm(B, "Kexec")
    assert read_slots(machine.disk).b.attributes == Attributes(2, 0, False)
    chosen = preview(machine.disk)
    assert chosen is not None
    assert chosen.name is A
    await host.disarm(B)
    assert read_slots(machine.disk).b.attributes == GIVEN_UP
    await host.arm(B, "Firmware")
    assert read_slots(machine.disk).b.attributes == Attributes(2, 1, False)
    assert content(machine, A) == running


async def test_the_record_survives_the_agent_but_the_check_does_not(
    host: ImageHost, machine: MachineFolder, server: ReleaseServer
) -> None:
    await stage(host, image(server))
    await host.__aexit__()
    async with ImageHost(machine.path) as again:
        seen = (await again.look()).disk.b
        assert (seen.digest, seen.checked) == (image(server).digest, None)
    host._lock = -1
    await host.__aenter__()


@pytest.mark.parametrize(
    ("fault", "class_"),
    [
        (ServerFault.TRUNCATED, "Transfer"),
        (ServerFault.WRONG_BYTES, "Integrity"),
        (ServerFault.TOO_LARGE, "Size"),
        (ServerFault.DOWN, "Transfer"),
    ],
)
async def test_a_bad_release_leaves_nothing_that_boots(
    host: ImageHost, machine: MachineFolder, server: ReleaseServer, fault: ServerFault, class_: str
) -> None:
    running = content(machine, A)
    server.fault = fault
    with pytest.raises(StageError) as error:
        await stage(host, image(server))
    assert error.value.fault.class_ == class_
    sight = await host.look()
    assert (sight.disk.b.digest, sight.disk.b.attributes) == (None, GIVEN_UP)
    assert content(machine, A) == running
    server.fault = None
    await host.stage(image(server), lambda _: None)
    assert (await host.look()).disk.b.digest == image(server).digest


async def test_an_image_larger_than_the_slot_is_refused(host: ImageHost, server: ReleaseServer) -> None:
    await host.invalidate(B)
    with pytest.raises(StageError) as error:
        await host.stage(replace(image(server), size=9 * 1024 * 1024), lambda _: None)
    assert error.value.fault.class_ == "Size"
    assert server.requests == []


async def test_bits_that_rot_after_staging_are_found(
    host: ImageHost, machine: MachineFolder, server: ReleaseServer
) -> None:
    await stage(host, image(server))
    at = read_slots(machine.disk).b.start + IMAGE_BYTES // 2
    with machine.disk.open("r+b") as disk:
        disk.seek(at)
        old = disk.read(1)
        disk.seek(at)
        disk.write(bytes([old[0] ^ 1]))
    assert not await host.verify(check(image(server)))
    seen = (await host.look()).disk.b
    assert (seen.digest, seen.refuted, seen.checked) == (None, image(server).digest, None)


async def test_the_running_slot_is_never_written(host: ImageHost, server: ReleaseServer) -> None:
    with pytest.raises(UnsafeChangeError):
        await host.invalidate(A)
    with pytest.raises(UnsafeChangeError):
        await host.arm(A, "Kexec")
    with pytest.raises(DiskError):
        await host.stage(replace(image(server), slot=A), lambda _: None)


async def test_a_slot_that_was_not_given_up_is_not_written(host: ImageHost, server: ReleaseServer) -> None:
    await stage(host, image(server))
    await host.arm(B, "Firmware")
    with pytest.raises(UnsafeChangeError):
        await host.stage(image(server), lambda _: None)


async def test_a_staging_that_is_cancelled_leaves_no_record(host: ImageHost, server: ReleaseServer) -> None:
    await stage(host, image(server))
    server.fault = ServerFault.SLOW
    work = asyncio.create_task(host.stage(image(server), lambda _: None))
    await asyncio.sleep(0.3)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert (await host.look()).disk.b.digest is None


async def test_one_agent_a_machine(host: ImageHost, machine: MachineFolder) -> None:
    with pytest.raises(OSError, match="in use by another agent"):
        async with ImageHost(machine.path):
            pass


async def test_an_api_answer_is_remembered_until_the_next_boot(host: ImageHost, machine: MachineFolder) -> None:
    await host.note_api_answer()
    assert (await host.look()).api_answered
    power_on(machine.path)
    assert not machine.api_answered.exists()


async def test_the_local_gate_is_what_the_os_says(host: ImageHost, machine: MachineFolder) -> None:
    machine.unhealthy.write_text("kubelet is down\n")
    assert (await host.look()).unhealthy == "kubelet is down"


async def test_a_lost_record_is_found_again_by_hashing(
    host: ImageHost, machine: MachineFolder, server: ReleaseServer
) -> None:
    machine.records.write_text("{torn")
    assert (await host.look()).disk.a.digest is None
    assert (await host.look()).disk.a.version == "1.0.0"
    assert await host.verify(check(image(server, "1.0.0"), A, "booted"))
    assert (await host.look()).disk.a.digest == image(server, "1.0.0").digest
