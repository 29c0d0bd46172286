"""Release images from a file tree, a repository of them in a folder, and a server whose faults can be switched."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator
from enum import StrEnum
from pathlib import Path
from typing import Self

from aiohttp import web

from careen.agent.durable import write_durably
from careen.disk.ext4 import make_ext4
from careen.release.index import FORMAT_VERSION, INDEX_NAME, ReleaseEntry, ReleaseIndex, parse_index
from careen.sandbox.firmware import FAULT_FILE, OS_RELEASE, Fault

MIB = 1 << 20
IMAGE_BYTES = 4 * MIB
TRIAL_TIMER = "trial-timer"
"""Capability: the OS has a timer that ends a trial boot without an agent."""

_SLOW_BLOCK = 64 * 1024
_NAMESPACE = uuid.UUID("3a3f4f5e-3f77-5d0c-9d51-0f0f4a4c7d11")


class ServerFault(StrEnum):
    """What is wrong with the release server."""

    TRUNCATED = "truncated"
    """It ends in the middle of an image."""
    WRONG_BYTES = "wrong-bytes"
    """One byte of the image is another one."""
    TOO_LARGE = "too-large"
    """It sends more than the image, without a length."""
    SLOW = "slow"
    """It sends 64 KiB every fifth of a second."""
    DOWN = "down"
    """It answers 503 to everything."""
    STALLED = "stalled"
    """It sends the first half and then nothing, for ever."""


def build_tree(tree: Path, version: str, fault: Fault | None = None) -> None:
    """Put the files of a tiny OS into an empty folder: who it is, and what is wrong with it."""
    (tree / "etc").mkdir(parents=True)
    (tree / OS_RELEASE.lstrip("/")).write_text(
        f'ID=careen-sandbox\nNAME="Careen sandbox"\nVERSION_ID={version}\nPRETTY_NAME="Careen sandbox {version}"\n'
    )
    if fault:
        (tree / FAULT_FILE.lstrip("/")).write_text(f"{fault}\n")


def build_image(out: Path, version: str, fault: Fault | None = None, *, size: int = IMAGE_BYTES) -> None:
    """Make the image of a tiny OS, the same bytes each time. size: bytes, a multiple of 4096. Raises DiskError."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        build_tree(tree, version, fault)
        identity = uuid.uuid5(_NAMESPACE, f"{version} {fault} {size}")
        make_ext4(tree, out, size=size, uuid=identity, label="USR")


class Repository:
    """A release repository: a folder with index.json and the images that it names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, folder: Path) -> Self:
        """An empty repository in `folder`, which is made if missing."""
        folder.mkdir(parents=True, exist_ok=True)
        repository = cls(folder)
        if not (folder / INDEX_NAME).exists():
            repository._write(ReleaseIndex(format_version=FORMAT_VERSION, releases={}))
        return repository

    @property
    def index(self) -> ReleaseIndex:
        """The index as it is now."""
        return parse_index((self.folder / INDEX_NAME).read_bytes())

    def image(self, entry: ReleaseEntry) -> Path:
        """The file of a release."""
        return self.folder / entry.path

    def publish(self, version: str, fault: Fault | None = None, *, size: int = IMAGE_BYTES) -> ReleaseEntry:
        """Build the image of a version and put it into the index; one of that name is replaced. Raises DiskError."""
        name = f"{version}.img"
        build_image(self.folder / name, version, fault, size=size)
        return self.add(version, name)

    def add(self, version: str, name: str) -> ReleaseEntry:
        """Put a file that lies in the folder already into the index."""
        path = self.folder / name
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        entry = ReleaseEntry(
            digest=f"sha256:{found}",
            size_bytes=path.stat().st_size,
            sha256=found,
            path=name,
            capabilities=(TRIAL_TIMER,),
        )
        index = self.index
        self._write(ReleaseIndex(format_version=FORMAT_VERSION, releases={**index.releases, version: entry}))
        return entry

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, index: ReleaseIndex) -> None:
        write_durably(self.folder / INDEX_NAME, index.dump())


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
        allowed = {INDEX_NAME, *(entry.path for entry in self.repository.index.releases.values())}
        if path not in allowed:
            raise web.HTTPNotFound
        file = self.repository.folder / path
        if path == INDEX_NAME or self.fault is None:
            return web.FileResponse(file)
        return await self._misbehave(request, await asyncio.to_thread(file.read_bytes), self.fault)

    async def _misbehave(self, request: web.Request, data: bytes, fault: ServerFault) -> web.StreamResponse:
        if fault is ServerFault.WRONG_BYTES:
            data = data[:-1] + bytes([data[-1] ^ 1])
        elif fault is ServerFault.TOO_LARGE:
            data += bytes(_SLOW_BLOCK)
        # Too much comes without a length: only who counts the bytes can notice.
        length = {} if fault is ServerFault.TOO_LARGE else {"Content-Length": str(len(data))}
        response = web.StreamResponse(headers=length)
        await response.prepare(request)
        if fault in (ServerFault.TRUNCATED, ServerFault.STALLED):
            await response.write(data[: len(data) // 2])
            if fault is ServerFault.STALLED:
                await asyncio.sleep(3600)
            if request.transport is not None:
                request.transport.close()
            return response
        for at in range(0, len(data), _SLOW_BLOCK):
            await response.write(data[at : at + _SLOW_BLOCK])
            if fault is ServerFault.SLOW:
                await asyncio.sleep(0.2)
        return response
