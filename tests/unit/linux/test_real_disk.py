"""A whole order on a real block device: staged over HTTP, read back, armed; and what the kernel itself refuses."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from careen.agent.actions import StageImage, VerifySlot
from careen.agent.linux.health import HealthSettings
from careen.agent.linux.host import LinuxHost
from careen.agent.linux.settings import LinuxSettings
from careen.agent.record import Moved
from careen.agent.staging.fault import StageError
from careen.disk.image import create_image, fill_slot
from careen.disk.table import read_slots
from careen.disk.types import GIVEN_UP, DiskError, SlotName
from careen.sandbox.releases import MIB, ReleaseServer, Repository
from linux_machines import FakeMachine

A, B = SlotName.A, SlotName.B

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/loop-control").exists() or shutil.which("partx") is None,
    reason="needs root, loop devices and partx",
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    made = Repository.create(tmp_path_factory.mktemp("releases"))
    made.publish("1.0.0")
    made.publish("2.0.0", payload_bytes=MIB)
    return made


@pytest.fixture
async def server(repository: Repository) -> AsyncIterator[ReleaseServer]:
    async with ReleaseServer(repository).running() as running:
        yield running


@pytest.fixture
def disk(repository: Repository, tmp_path: Path) -> Iterator[Path]:
    """A loop device with a partition table that the kernel knows, and release 1.0.0 in slot A."""
    image = tmp_path / "disk.img"
    create_image(image, usr_bytes=16 * MIB, root_bytes=MIB)
    fill_slot(image, A, repository.find("1.0.0").image)
    made = subprocess.run(["losetup", "-f", "--show", image], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"no loop device: {made.stderr.strip()}")
    device = Path(made.stdout.strip())
    try:
        subprocess.run(["partx", "-a", device], check=True, capture_output=True)
        yield device
    finally:
        subprocess.run(["partx", "-d", device], check=False, capture_output=True)
        subprocess.run(["losetup", "-d", device], check=True)


@pytest.fixture
async def host(bare: FakeMachine, disk: Path, repository: Repository) -> AsyncIterator[LinuxHost]:
    """The host, whose /sys and /dev are the real ones, and whose /usr runs from slot A."""
    for name in ("sys", "dev"):
        shutil.rmtree(bare.path / name, ignore_errors=True)
        (bare.path / name).symlink_to(f"/{name}")
    number = Path(f"{disk}p3").stat().st_rdev
    bare.mount(f"{os.major(number)}:{os.minor(number)} /usr ext4 {disk}p3")
    bare.write("/usr/share/careen/root.json", repository.trust_root.read_bytes())
    settings = LinuxSettings(health=HealthSettings(free_bytes=0, kubelet=""))
    async with LinuxHost(settings, root=bare.root, commands=bare.commands) as opened:
        yield opened


def hash_device(device: str) -> str:
    return hashlib.sha256(Path(device).read_bytes()).hexdigest()


def wanted(server: ReleaseServer) -> StageImage:
    release = server.repository.find("2.0.0")
    return StageImage("order-1", B, server.url + "/", release.path, release.digest, release.size_bytes, "2.0.0")


async def test_a_release_is_staged_read_back_and_the_running_slot_is_not_touched(
    host: LinuxHost, disk: Path, server: ReleaseServer
) -> None:
    running = hash_device(f"{disk}p3")
    image, seen = wanted(server), [Moved()]
    await host.admit(image)
    await host.invalidate(B)
    await host.stage(image, seen.append)
    sight = await host.look()
    assert (sight.disk.b.digest, sight.disk.b.version, sight.disk.b.checked) == (image.digest, "2.0.0", "stage")
    moved = seen[-1]
    assert moved.reused + moved.fetched + moved.skipped == server.repository.find("2.0.0").built.size
    assert 0 < moved.fetched < image.size
    check = VerifySlot(B, image.digest, image.size, "2.0.0", "order-1", image.repository, image.path)
    assert await host.verify(check)
    built = server.repository.find("2.0.0")
    assert Path(f"{disk}p4").read_bytes()[: built.built.size] == built.image.read_bytes()
    with pytest.raises(StageError, match="has no kernel"):
        await host.arm(B, "Kexec")
    assert hash_device(f"{disk}p3") == running
    assert read_slots(disk).b.attributes == GIVEN_UP


async def test_a_slot_that_somebody_holds_open_is_refused(host: LinuxHost, disk: Path, server: ReleaseServer) -> None:
    await host.invalidate(B)
    fd = os.open(f"{disk}p4", os.O_RDWR | os.O_EXCL)
    try:
        with pytest.raises(DiskError, match="in use by another program"):
            await host.stage(wanted(server), lambda _: None)
    finally:
        os.close(fd)
