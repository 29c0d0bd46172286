"""A policy that follows a channel of a real signed repository, on the real API server."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from aiohttp import web

from careen.kube.resources import EVENTS, POLICIES
from careen.kube.write import create
from careen.release.keys import create_key, load_keys, load_public_key
from careen.release.manifest import Image, ReleaseDocument, StaticFile
from careen.release.repository import (
    DOCUMENT_NAME,
    create_repository,
    publish_release,
    set_channels,
    sign_repository,
)
from careen.release.trust import ROLES
from careen.release.verity import BLOCK_BYTES, count_tree_bytes


@dataclass
class Shop:
    """A repository with a key, served on loopback. What its releases hold is nobody's concern here."""

    folder: Path
    url: str = ""

    @property
    def public(self) -> Path:
        return self.folder / "public"

    @property
    def trust_root(self) -> Path:
        return self.folder / "root.json"

    @property
    def timestamp(self) -> Path:
        return self.public / "metadata" / "timestamp.json"

    @property
    def signers(self):
        return load_keys([self.folder / "keys"])

    def open(self) -> None:
        (self.folder / "keys").mkdir(parents=True)
        create_key(self.folder / "keys" / "all.pem")
        key = load_public_key(self.folder / "keys" / "all.pem")
        self.trust_root.write_bytes(create_repository(self.public, {role: [key] for role in ROLES}, self.signers))

    def publish(self, version: str, *channels: str, architecture: str = "x86_64", min_version: str | None = None):
        build = self.folder / "build"
        (build / "files").mkdir(parents=True)
        files = {}
        for name in ("tree", "table", "frames"):
            data = f"{version} {name}".encode()
            digest = sha256(data).hexdigest()
            files[name] = StaticFile(path=f"files/{digest}.{name}", length=len(data), sha256=digest)
            (build / files[name].path).write_bytes(data)
        size = 4 * BLOCK_BYTES + count_tree_bytes(4)
        image = Image(filesystem="ext4", size=size, sha256="ab" * 32, data_blocks=4, verity_root="cd" * 32, **files)
        document = ReleaseDocument(
            version=version, product="test", images={architecture: image}, min_version=min_version
        )
        (build / DOCUMENT_NAME).write_bytes(document.dump())
        published = publish_release(self.public, [build], self.signers, channels=channels)
        shutil.rmtree(build)
        return published

    def point(self, version: str, *channels: str) -> None:
        set_channels(self.public, version, self.signers, channels=channels)

    def sign(self, *, days_ago: int = 0) -> None:
        sign_repository(self.public, self.signers, now=lambda: datetime.now(UTC) - timedelta(days=days_ago))


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    shop = Shop(tmp_path / "shop")
    shop.open()
    app = web.Application()
    app.router.add_static("/", shop.public)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    shop.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield shop
    await runner.cleanup()


@pytest.fixture
def follow(stage, shop, tmp_path):
    """Machines, and an operator that looks releases up every second; trust: whether it has the shop's trust root."""

    @asynccontextmanager
    async def make(count, *, trust=True):
        async with stage(count, operator=False) as scene:
            options = ["--resolve-seconds", "1", "--release-cache", str(tmp_path / "cache")]
            options += ["--trust-root", str(shop.trust_root if trust else tmp_path / "nowhere.json")]
            scene.fleet.start_operator(identity="one", program=("-m", "careen", "operator", *options))
            yield scene

    return make


async def follow_channel(scene, shop, channel="stable", **release):
    spec = {"release": {"repository": shop.url, "channel": channel, **release}}
    await create(scene.fleet.admin, POLICIES, {"metadata": {"name": "os"}, "spec": spec})


def status_of(scene):
    return scene.witness.live[POLICIES].get("os", {}).get("status", {})


def all_run(scene, version):
    return all(scene.version(name) == version for name in scene.fleet.names)


async def completes(scene, version, number):
    await scene.until(
        lambda: (
            all_run(scene, version) and scene.holds_true("Complete") and status_of(scene)["rollout"]["number"] == number
        ),
        f"rollout {number} to {version} is complete",
    )


async def resolved(scene, reason):
    await scene.until(lambda: scene.condition("ReleaseResolved").get("reason") == reason, f"ReleaseResolved: {reason}")
    return scene.condition("ReleaseResolved")["message"]


async def test_a_channel_is_followed_and_trust_that_is_lost_stops_it(follow, shop) -> None:
    second = shop.publish("2.0.0", "stable")
    async with follow(2) as scene:
        await follow_channel(scene, shop, mirrors=["http://127.0.0.1:1/mirror"], bytesPerSecond=1_000_000)
        await completes(scene, "2.0.0", 1)
        found = status_of(scene)["release"]
        assert (found["channel"], found["version"], found["digest"]) == ("stable", "2.0.0", second.digest)
        assert found["resolvedAt"]
        order = scene.order("node-1")
        assert order["release"]["mirrors"] == ["http://127.0.0.1:1/mirror"]
        assert order["release"]["path"] == "releases/2.0.0.json"
        assert order["terms"]["bytesPerSecond"] == 1_000_000

        shop.publish("3.0.0", "stable")
        await completes(scene, "3.0.0", 2)
        assert scene.order("node-1")["release"]["version"] == "3.0.0"

        # Staged and waiting for the lock when somebody changes what was signed: nothing more may come of it.
        await scene.edit_lock(max=0)
        shop.publish("4.0.0", "stable")
        await scene.until(lambda: all(scene.phase(name) == "Staged" for name in scene.fleet.names), "all are staged")
        good = shop.timestamp.read_bytes()
        shop.timestamp.write_bytes(good.replace(b'"snapshot.json"', b'"another.json"'))
        assert "timestamp.json" in await resolved(scene, "TrustFailed")
        await scene.edit_lock(max=1)
        await scene.until(lambda: scene.condition("Waiting").get("reason") == "TrustFailed", "Waiting says why")
        assert scene.condition("Stalled")["reason"] == "TrustFailed"
        await asyncio.sleep(1.0)
        assert scene.holders() == []
        assert all_run(scene, "3.0.0")
        assert status_of(scene)["release"]["version"] == "4.0.0", "the last good answer stays"
        assert await read_events(scene, "TrustFailed")
        shop.timestamp.write_bytes(good)
        await completes(scene, "4.0.0", 3)
        assert "stable → 4.0.0" in await resolved(scene, "Resolved")


async def test_metadata_that_expired_starts_nothing_until_it_is_signed_again(follow, shop) -> None:
    shop.publish("2.0.0", "stable")
    shop.sign(days_ago=8)
    async with follow(1) as scene:
        await follow_channel(scene, shop)
        assert "timestamp.json expired at" in await resolved(scene, "TrustFailed")
        assert scene.condition("Stalled")["reason"] == "TrustFailed"
        assert not scene.order("node-1")
        shop.sign()
        await completes(scene, "2.0.0", 1)


async def test_a_channel_that_moves_back_waits_until_people_allow_it(follow, shop) -> None:
    for version in ("0.9.0", "2.0.0"):
        shop.publish(version, "stable")
    async with follow(1) as scene:
        await follow_channel(scene, shop)
        await completes(scene, "2.0.0", 1)
        shop.point("0.9.0", "stable")
        await scene.until(lambda: scene.note("node-1").get("reason") == "DowngradeRefused", "the note says it")
        assert "0.9.0 is older than 2.0.0" in scene.note("node-1")["message"]
        await scene.until(lambda: scene.condition("Waiting").get("reason") == "DowngradeRefused", "Waiting says it")
        assert scene.version("node-1") == "2.0.0"
        await scene.edit_policy(release={"allowDowngrade": True})
        await completes(scene, "0.9.0", 2)
        assert scene.order("node-1")["terms"]["allowDowngrade"] is True


async def test_what_does_not_suit_a_machine_is_refused_by_name(follow, shop) -> None:
    shop.publish("2.0.0", "foreign", architecture="aarch64")
    shop.publish("3.0.0", "high", min_version="2.0.0")
    async with follow(1) as scene:
        await follow_channel(scene, shop, "foreign")
        for channel, reason, said in (
            ("foreign", "NoImage", "2.0.0 has no image for x86_64; it has aarch64"),
            ("high", "BelowFloor", "3.0.0 can be reached from 2.0.0 on, and 1.0.0 runs here"),
        ):
            await scene.edit_policy(release={"channel": channel})
            await scene.until(lambda r=reason: scene.note("node-1").get("reason") == r, f"the note says {reason}")
            assert said in scene.note("node-1")["message"]
        await scene.edit_policy(release={"channel": "edge"})
        assert "has no channel edge; it has foreign, high" in await resolved(scene, "ReleaseUnavailable")
        assert not scene.order("node-1")


async def test_without_a_trust_root_the_policy_says_what_is_missing(follow, shop) -> None:
    shop.publish("2.0.0", "stable")
    async with follow(1, trust=False) as scene:
        await follow_channel(scene, shop)
        assert "--trust-root or CAREEN_TRUST_ROOT" in await resolved(scene, "TrustFailed")


async def read_events(scene, reason):
    """Notes of the Events with this reason, once there is one."""
    async with asyncio.timeout(30):
        while True:
            events = (await scene.fleet.admin.request("GET", EVENTS.path("default"))).body["items"]
            if told := [event["note"] for event in events if event["reason"] == reason]:
                return told
            await asyncio.sleep(0.1)
