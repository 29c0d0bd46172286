"""Signed releases of a tiny OS, a repository of them in a folder, and a server whose faults can be switched."""

from __future__ import annotations

import asyncio
import contextlib
import platform
import random
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from aiohttp import web

from careen.release.build import IMAGE_NAME, Build, build_release
from careen.release.keys import create_key, load_keys, load_public_key
from careen.release.manifest import Image, ReleaseDocument, digest_document, parse_document
from careen.release.repository import DOCUMENT_NAME, create_repository, publish_release
from careen.release.trust import ROLES
from careen.release.versions import version_key
from careen.sandbox.firmware import FAULT_FILE, OS_RELEASE, Fault

MIB = 1 << 20
FILESYSTEM_BYTES = 4 * MIB
PRODUCT = "careen-sandbox"
TRIAL_TIMER = "trial-timer"
"""Capability: the OS has a timer that ends a trial boot without an agent."""

_SLOW_PARTS = 8
_SLOW_SECONDS = 0.2
_EXCESS = bytes(64 * 1024)


class ServerFault(StrEnum):
    """What is wrong with the release server."""

    TRUNCATED = "truncated"
    """It ends in the middle of each file of a release."""
    WRONG_BYTES = "wrong-bytes"
    """The last byte of each answer of a release's file is another one."""
    TOO_LARGE = "too-large"
    """It sends more than the file, without a length."""
    SLOW = "slow"
    """It sends each answer of a release's file in eight parts, a fifth of a second apart."""
    DOWN = "down"
    """It answers 503 to everything."""
    STALLED = "stalled"
    """It sends the first half of a release's file and then nothing, for ever."""
    FORGED = "forged"
    """Its list of what is signed is another one than was signed."""


@dataclass(frozen=True)
class SandboxRelease:
    """A published release. image: file with the image, for new machines."""

    document: ReleaseDocument
    data: bytes
    """The document's bytes."""
    image: Path

    @property
    def version(self) -> str:
        """Its version."""
        return self.document.version

    @property
    def digest(self) -> str:
        """`sha256:` and the hash of its document."""
        return digest_document(self.data)

    @property
    def path(self) -> str:
        """The document's target name."""
        return self.document.path

    @property
    def size_bytes(self) -> int:
        """Size of its image."""
        return self.document.largest_image_bytes

    @property
    def built(self) -> Image:
        """Its one image, for this host's architecture."""
        return self.document.images[platform.machine()]


def build_tree(tree: Path, version: str, fault: Fault | None = None, *, payload_bytes: int = 0) -> None:
    """Put the files of a tiny OS's /usr into an empty folder: who it is, and what is wrong with it.

    payload_bytes: length of a file that no other version has a block of, and that can't be compressed.
    """
    (tree / "lib").mkdir(parents=True)
    (tree / OS_RELEASE.lstrip("/")).write_text(
        f'ID={PRODUCT}\nNAME="Careen sandbox"\nVERSION_ID={version}\nPRETTY_NAME="Careen sandbox {version}"\n'
    )
    if fault:
        (tree / FAULT_FILE.lstrip("/")).write_text(f"{fault}\n")
    if payload_bytes:
        (tree / "payload").write_bytes(random.Random(version).randbytes(payload_bytes))


class Repository:
    """A release repository with throw-away keys.

    In `folder`: public/, which is served; keys/; root.json, the trust root; and builds/, with the images.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.public = folder / "public"

    @classmethod
    def create(cls, folder: Path) -> Self:
        """A repository in `folder`, which is made if missing; an empty one if there is none yet."""
        repository = cls(folder)
        if not repository.trust_root.exists():
            keys = folder / "keys"
            keys.mkdir(parents=True, exist_ok=True)
            # One for everything: they are thrown away with the folder.
            create_key(keys / "all.pem")
            key = load_public_key(keys / "all.pem")
            root = create_repository(repository.public, {role: [key] for role in ROLES}, load_keys([keys]))
            repository.trust_root.write_bytes(root)
        return repository

    @property
    def trust_root(self) -> Path:
        """The file that operator and agents are to trust."""
        return self.folder / "root.json"

    @property
    def cache(self) -> Path:
        """The folder in which operator and command line remember the newest signed metadata."""
        return self.folder / "cache"

    @property
    def releases(self) -> dict[str, SandboxRelease]:
        """All releases by version, oldest first."""
        names = (path.parent.name for path in self.folder.glob(f"builds/*/{DOCUMENT_NAME}"))
        return {name: self.find(name) for name in sorted(names, key=version_key)}

    def find(self, version: str) -> SandboxRelease:
        """A release that is published. Raises FileNotFoundError."""
        build = self.folder / "builds" / version
        data = (build / DOCUMENT_NAME).read_bytes()
        return SandboxRelease(parse_document(data), data, build / IMAGE_NAME)

    def publish(
        self,
        version: str,
        fault: Fault | None = None,
        *,
        payload_bytes: int = 0,
        filesystem_bytes: int = FILESYSTEM_BYTES,
        min_version: str | None = None,
        state_version: int = 0,
        product: str = PRODUCT,
        architecture: str | None = None,
        channels: Sequence[str] = (),
    ) -> SandboxRelease:
        """Build a version and sign it. Raises BuildError, PublishError if the version is there with other contents."""
        build = self.folder / "builds" / version
        with tempfile.TemporaryDirectory() as scratch:
            tree = Path(scratch) / "usr"
            build_tree(tree, version, fault, payload_bytes=payload_bytes)
            made = Build(
                tree,
                version,
                product,
                architecture or platform.machine(),
                min_version=min_version,
                state_version=state_version,
                capabilities=(TRIAL_TIMER,),
                filesystem_bytes=filesystem_bytes,
                all_root=True,
                level=1,
            )
            # Beside its place: a build that is not published, as its version is taken, must not replace the other.
            fresh = Path(scratch) / "build"
            build_release(made, fresh)
            publish_release(self.public, [fresh], load_keys([self.folder / "keys"]), channels=channels)
            build.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(fresh, build, dirs_exist_ok=True)
        return self.find(version)

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


class ReleaseServer:
    """Serves a repository on loopback; set `fault` to make it misbehave from the next request on."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self.fault: ServerFault | None = None
        self.requests: list[str] = []
        """Paths that were asked for."""
        self.url = ""
        """The repository's URL, for a policy; set while it runs."""

    @contextlib.asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator[Self]:
        """Serve for the length of an `async with`. port: 0 takes a free one."""
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", port)
            await site.start()
            host, bound = runner.addresses[0][:2]
            self.url = f"http://{host}:{bound}"
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        self.requests.append(path)
        if self.fault is ServerFault.DOWN:
            return web.Response(status=503, text="down for a test")
        public = self.repository.public
        file = public / path
        if not file.resolve().is_relative_to(public.resolve()) or not file.is_file():
            raise web.HTTPNotFound
        if self.fault is ServerFault.FORGED and path.endswith("timestamp.json"):
            return web.Response(body=file.read_bytes().replace(b'"version"', b'"versiom"', 1))
        if self.fault in (None, ServerFault.FORGED) or not path.startswith("files/"):
            return web.FileResponse(file)
        return await self._misbehave(request, await asyncio.to_thread(file.read_bytes), self.fault)

    async def _misbehave(self, request: web.Request, data: bytes, fault: ServerFault) -> web.StreamResponse:
        status, headers, data = _take_range(request, data)
        if fault is ServerFault.WRONG_BYTES:
            data = data[:-1] + bytes([data[-1] ^ 1])
        elif fault is ServerFault.TOO_LARGE:
            data += _EXCESS
        if fault is not ServerFault.TOO_LARGE:
            # Too much comes without a length: only who counts the bytes can notice.
            headers["Content-Length"] = str(len(data))
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        if fault in (ServerFault.TRUNCATED, ServerFault.STALLED):
            await response.write(data[: len(data) // 2])
            if fault is ServerFault.STALLED:
                await asyncio.sleep(3600)
            if request.transport is not None:
                request.transport.close()
            return response
        part = max(1, -(-len(data) // _SLOW_PARTS)) if fault is ServerFault.SLOW else len(data)
        for at in range(0, len(data), part):
            await response.write(data[at : at + part])
            if fault is ServerFault.SLOW:
                await asyncio.sleep(_SLOW_SECONDS)
        return response


def _take_range(request: web.Request, data: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body for what is asked of a file."""
    match = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
    if match is None:
        return 200, {}, data
    start, end = int(match[1]), int(match[2]) + 1
    return 206, {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}, data[start:end]
