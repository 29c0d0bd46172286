"""The machine folder as the agent's host: real disk image, real HTTP, and never a byte of the running slot."""

from __future__ import annotations

import asyncio
import hashlib
import platform
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from careen.agent.actions import StageImage, VerifySlot
from careen.agent.imagehost import ImageHost, MachineFolder
from careen.agent.record import Journal, Moved
from careen.agent.staging.fault import StageError
from careen.agent.staging.transfer import Deadlines
from careen.disk.boot import preview
from careen.disk.image import fill_slot, open_slot
from careen.disk.table import read_slots
from careen.disk.types import GIVEN_UP, Attributes, DiskError, SlotName, UnsafeChangeError
from careen.release.bootblock import BootBlock
from careen.sandbox.firmware import power_on
from careen.sandbox.machine import create_machine, machine_id_of
from careen.sandbox.releases import FILESYSTEM_BYTES, MIB, PRODUCT, ReleaseServer, Repository, ServerFault

A, B = SlotName.A, SlotName.B


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    made = Repository.create(tmp_path_factory.mktemp("releases"))
    made.publish("1.0.0")
    made.publish("2.0.0", payload_bytes=MIB)
    made.publish("3.0.0", min_version="2.0.0")
    made.publish("0.9.0")
    made.publish("4.0.0", architecture="vax")
    made.publish("5.0.0", filesystem_bytes=9 * MIB)
    return made


@pytest.fixture
async def server(repository: Repository) -> AsyncIterator[ReleaseServer]:
    async with ReleaseServer(repository).running() as running:
        yield running


@pytest.fixture
def machine(repository: Repository, tmp_path: Path) -> MachineFolder:
    made = create_machine(tmp_path / "m", repository.find("1.0.0"), machine_id=machine_id_of("m"))
    power_on(made.path)
    return made


QUICK = Deadlines(connect=1.0, read=0.5, piece=0.5, pause=0.01)


@pytest.fixture
async def host(machine: MachineFolder, repository: Repository) -> AsyncIterator[ImageHost]:
    async with ImageHost(machine.path, repository.trust_root, deadlines=QUICK) as opened:
        yield opened


def image(server: ReleaseServer, version: str = "2.0.0") -> StageImage:
    entry = server.repository.find(version)
    return StageImage("order-1", B, server.url + "/", entry.path, entry.digest, entry.size_bytes, version)


def files_asked(server: ReleaseServer) -> list[str]:
    return [path for path in server.requests if path.startswith("files/")]


def check(image: StageImage, slot: SlotName = B, purpose: str = "order-1") -> VerifySlot:
    return VerifySlot(slot, image.digest, image.size, image.version, purpose, image.repository, image.path)


def content(machine: MachineFolder, slot: SlotName) -> str:
    with open_slot(machine.disk, slot) as opened:
        return hashlib.sha256(opened.read(0, opened.size)).hexdigest()


async def stage(host: ImageHost, wanted: StageImage) -> Moved:
    seen = [Moved()]
    await host.invalidate(B)
    await host.stage(wanted, seen.append)
    return seen[-1]


async def test_it_sees_a_fresh_machine(host: ImageHost, repository: Repository) -> None:
    sight = await host.look()
    first = repository.find("1.0.0")
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
    async with ImageHost(machine.path, server.repository.trust_root) as again:
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


async def test_what_is_there_is_not_fetched(host: ImageHost, machine: MachineFolder, server: ReleaseServer) -> None:
    """1.0.0 runs and 2.0.0 has a payload of its own: little but that is fetched, and nothing the second time."""
    moved = await stage(host, image(server))
    assert MIB <= moved.fetched < 1.2 * MIB
    assert moved.done == moved.size == image(server).size
    server.requests.clear()
    again = await stage(host, image(server))
    assert again.skipped == again.size
    assert [path.rpartition(".")[2] for path in files_asked(server)] == ["tree"]


@pytest.mark.parametrize(
    ("version", "class_", "words"),
    [
        ("3.0.0", "Refused", "can be reached from 2.0.0 on; this machine runs 1.0.0"),
        ("0.9.0", "Refused", "allowDowngrade"),
        ("4.0.0", "Refused", "is for vax"),
        ("5.0.0", "Size", "the slot has 8388608"),
    ],
)
async def test_what_does_not_fit_this_machine_is_refused_before_anything_is_written(
    host: ImageHost, machine: MachineFolder, server: ReleaseServer, version: str, class_: str, words: str
) -> None:
    before = machine.disk.read_bytes()
    for call in (host.admit(image(server, version)), host.stage(image(server, version), lambda _: None)):
        with pytest.raises(StageError) as error:
            await call
        assert (error.value.fault.class_, words in error.value.fault.message) == (class_, True), error.value.fault
    assert machine.disk.read_bytes() == before
    assert files_asked(server) == []


async def test_a_downgrade_that_is_allowed(host: ImageHost, server: ReleaseServer) -> None:
    await stage(host, replace(image(server, "0.9.0"), allow_downgrade=True))
    assert (await host.look()).disk.b.version == "0.9.0"


@pytest.mark.parametrize("version", ["0.9.0", "3.0.0"])
async def test_what_an_installer_put_into_the_passive_slot_must_fit_as_well(
    host: ImageHost, machine: MachineFolder, server: ReleaseServer, version: str
) -> None:
    """An older one, and one that 1.0.0 can't be updated to."""
    put = server.repository.find(version)
    fill_slot(machine.disk, B, put.image, BootBlock.of(put.document, put.digest, platform.machine()).encode())
    with pytest.raises(StageError) as error:
        await host.verify(check(image(server, version)))
    assert error.value.fault.class_ == "Refused"
    seen = (await host.look()).disk.b
    assert (seen.checked, seen.refuted) == (None, None)
    if version == "0.9.0":
        assert await host.verify(replace(check(image(server, version)), allow_downgrade=True))


def forget_everything(machine: MachineFolder) -> None:
    machine.records.unlink()
    for path in (machine.state / "releases").iterdir():
        path.unlink()


async def test_a_machine_that_was_just_installed_finds_out_what_it_runs(
    host: ImageHost, machine: MachineFolder, server: ReleaseServer
) -> None:
    forget_everything(machine)
    await host.admit(image(server))
    seen = (await host.look()).disk.a
    assert (seen.digest, seen.version) == (image(server, "1.0.0").digest, "1.0.0")
    server.requests.clear()
    await host.admit(image(server))
    assert not any("1.0.0" in path for path in server.requests)


async def test_a_machine_that_was_just_installed_refuses_what_does_not_fit(
    machine: MachineFolder, tmp_path: Path
) -> None:
    """Older data and another product: its own version of itself tells of neither."""
    shop = Repository.create(tmp_path / "shop")
    shop.publish("1.0.0", state_version=2)
    shop.publish("2.0.0", state_version=1)
    shop.publish("2.1.0", state_version=2, product="another")
    shop.publish("2.2.0", state_version=2)
    installed = create_machine(tmp_path / "n", shop.find("1.0.0"), machine_id=machine_id_of("n"))
    power_on(installed.path)
    forget_everything(installed)
    async with (
        ReleaseServer(shop).running() as server,
        ImageHost(installed.path, shop.trust_root, deadlines=QUICK) as host,
    ):
        for version, words in (("2.0.0", "the data here have version 2"), ("2.1.0", f"this machine runs {PRODUCT}")):
            with pytest.raises(StageError, match=words):
                await host.admit(image(server, version))
        await host.admit(image(server, "2.2.0"))


@pytest.mark.parametrize("case", ["no boot block", "not what it says", "nobody signed it"])
async def test_what_runs_and_can_not_be_proved_is_not_believed(
    host: ImageHost, machine: MachineFolder, server: ReleaseServer, case: str
) -> None:
    forget_everything(machine)
    slots, claimed = read_slots(machine.disk), server.repository.find("2.0.0")
    block = bytearray(BootBlock.of(claimed.document, claimed.digest, platform.machine()).encode())
    if case == "nobody signed it":
        block = bytearray(bytes(block).replace(b'"2.0.0"', b'"2.0.9"'))
    with machine.disk.open("r+b") as disk:
        disk.seek(slots.a.start + slots.a.size - len(block))
        disk.write(bytes(len(block)) if case == "no boot block" else block)
    for _ in range(2):
        with pytest.raises(StageError, match=r"can be reached from 2\.0\.0 on; this machine runs 1\.0\.0"):
            await host.admit(image(server, "3.0.0"))
    assert (await host.look()).disk.a.digest is None
    await host.admit(image(server))


async def test_without_trust_nothing_is_written(
    host: ImageHost, machine: MachineFolder, server: ReleaseServer, tmp_path: Path
) -> None:
    """Forged metadata, another document than was ordered, another's keys, and no root at all."""
    before = machine.disk.read_bytes()
    stranger = Repository.create(tmp_path / "stranger")
    stranger.publish("1.0.0")
    await host.__aexit__()
    for case in ("forged", "mixed up", "stranger", "no root"):
        server.fault = ServerFault.FORGED if case == "forged" else None
        wanted = image(server)
        if case == "mixed up":
            wanted = replace(wanted, digest=image(server, "1.0.0").digest)
        roots = {"stranger": stranger.trust_root, "no root": tmp_path / "missing"}
        async with ImageHost(machine.path, roots.get(case, server.repository.trust_root), deadlines=QUICK) as again:
            with pytest.raises(StageError) as error:
                await again.admit(wanted)
            assert error.value.fault.class_ == "Trust", (case, error.value.fault)
            with pytest.raises(StageError):
                await again.stage(wanted, lambda _: None)
    assert machine.disk.read_bytes() == before
    assert files_asked(server) == []
    await host.__aenter__()


async def test_a_mirror_serves_the_files(host: ImageHost, server: ReleaseServer) -> None:
    server.fault = ServerFault.TRUNCATED
    async with ReleaseServer(server.repository).running() as mirror:
        await stage(host, replace(image(server), mirrors=(mirror.url,)))
    assert (await host.look()).disk.b.digest == image(server).digest


async def test_a_proxy_of_the_environment_serves_metadata_and_blocks(
    machine: MachineFolder, repository: Repository, server: ReleaseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    wanted = replace(image(server), repository="http://releases.invalid")
    async with ImageHost(machine.path, repository.trust_root, deadlines=QUICK) as host:
        await stage(host, wanted)
        assert (await host.look()).disk.b.digest == wanted.digest
    assert {path.partition("/")[0] for path in server.requests} == {"metadata", "targets", "files"}


async def test_a_lost_document_is_asked_for_again(
    host: ImageHost, machine: MachineFolder, server: ReleaseServer
) -> None:
    await stage(host, image(server))
    for path in (machine.state / "releases").iterdir():
        path.write_text("torn")
    assert await host.verify(check(image(server)))
    assert (await host.look()).disk.b.digest == image(server).digest


async def test_bits_that_rot_after_staging_are_found(
    host: ImageHost, machine: MachineFolder, server: ReleaseServer
) -> None:
    await stage(host, image(server))
    at = read_slots(machine.disk).b.start + FILESYSTEM_BYTES // 2
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


async def test_a_staging_that_is_cut_short_goes_on_with_the_index_it_has(
    host: ImageHost, machine: MachineFolder, server: ReleaseServer
) -> None:
    def go_down(_: Moved) -> None:
        server.fault = ServerFault.DOWN

    with pytest.raises(StageError):
        await host.stage(image(server), go_down)
    server.fault = None
    await host.stage(image(server), lambda _: None)
    assert len([path for path in server.requests if path.endswith(".tree")]) == 1
    assert {path.name for path in machine.state.iterdir()} == {"journal.json", "lock", "releases", "slots.json", "tuf"}


async def test_one_agent_a_machine(host: ImageHost, machine: MachineFolder) -> None:
    with pytest.raises(OSError, match="in use by another agent"):
        async with ImageHost(machine.path, machine.path):
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
