"""Releases of random bytes, slots in memory that count and fail, and a server of static files that can misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import re
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import zstandard
from aiohttp import web

from careen.agent.record import Moved
from careen.agent.staging.stage import Wanted, stage_release
from careen.agent.staging.transfer import Deadlines
from careen.disk.types import DiskIoError
from careen.release.bootblock import BootBlock
from careen.release.manifest import FRAME_BLOCKS, Image, StaticFile
from careen.release.verity import BLOCK_BYTES, build_tree, hash_block

QUICK = Deadlines(connect=1.0, read=0.4, piece=0.4, pause=0.01, longest_pause=0.02)
FRAME = FRAME_BLOCKS * BLOCK_BYTES


def make_blocks(count: int, seed: int = 0) -> bytes:
    """Random blocks, no two of them equal."""
    return random.Random(seed).randbytes(count * BLOCK_BYTES)


@dataclass(frozen=True)
class Made:
    """A release as its publisher has it."""

    whole: bytes
    image: Image
    boot: BootBlock
    files: dict[str, bytes]

    def frame_bytes(self, frames: range) -> int:
        """Length of some frames in the repository."""
        lengths = zstandard.decompress(self.files[self.image.table.path])
        return sum(struct.unpack_from("<I", lengths, 4 * frame)[0] for frame in frames)


def make_release(content: bytes, version: str = "2.0.0") -> Made:
    """A release whose file system is these bytes."""
    leaves = b"".join(hash_block(content[at : at + BLOCK_BYTES]) for at in range(0, len(content), BLOCK_BYTES))
    tree = build_tree(leaves)
    frames = [zstandard.compress(content[at : at + FRAME], 1) for at in range(0, len(content), FRAME)]
    files = {}

    def add(kind: str, data: bytes) -> StaticFile:
        digest = hashlib.sha256(data).hexdigest()
        path = f"files/{digest}.{kind}"
        files[path] = data
        return StaticFile(path=path, length=len(data), sha256=digest)

    whole = content + tree.data
    image = Image(
        filesystem="ext4",
        size=len(whole),
        sha256=hashlib.sha256(whole).hexdigest(),
        data_blocks=len(content) // BLOCK_BYTES,
        verity_root=tree.root.hex(),
        tree=add("tree", zstandard.compress(tree.data)),
        table=add("table", zstandard.compress(struct.pack(f"<{len(frames)}I", *map(len, frames)))),
        frames=add("frames", b"".join(frames)),
    )
    boot = BootBlock(
        version=version,
        digest="sha256:" + hashlib.sha256(version.encode() + whole).hexdigest(),
        verity_root=image.verity_root,
        data_blocks=image.data_blocks,
        size=image.size,
    )
    return Made(whole, image, boot, files)


class MemorySlot:
    """A slot in memory. What is written is on the medium only once it is flushed."""

    def __init__(self, content: bytes = b"", size: int = 0, boot: BootBlock | None = None) -> None:
        size = size or -(-len(content) // (1 << 20)) * (1 << 20) + (1 << 20)
        self.cache = bytearray(content.ljust(size, b"\0"))
        if boot:
            self.cache[-BLOCK_BYTES:] = boot.encode()
        self.medium = bytes(self.cache)
        self.writes: list[tuple[int, int]] = []
        self.reads = 0
        self.bad_reads: set[int] = set()
        """Blocks that can't be read."""
        self.write_error: tuple[int, str] | None = None
        """Byte whose write fails, and how."""
        self.lie_at: int | None = None
        """Byte that the medium loses."""

    @property
    def size(self) -> int:
        return len(self.cache)

    def read(self, offset: int, length: int) -> bytes:
        self._check(offset, length)
        return bytes(self.cache[offset : offset + length])

    def read_back(self, offset: int, length: int) -> bytes:
        self._check(offset, length)
        self.sync()
        return self.medium[offset : offset + length]

    def write(self, offset: int, data: bytes) -> None:
        if self.write_error and offset <= self.write_error[0] < offset + len(data):
            raise DiskIoError(f"writing slot at byte {self.write_error[0]}: {self.write_error[1]}")
        self.writes.append((offset, len(data)))
        self.cache[offset : offset + len(data)] = data

    def sync(self) -> None:
        if self.lie_at is not None:
            self.cache[self.lie_at] = 0xAA
        if self.cache != self.medium:
            self.medium = bytes(self.cache)

    def drop_cached(self) -> None:
        pass

    def written(self) -> set[int]:
        """Blocks that were written, but for the boot block."""
        last = self.size // BLOCK_BYTES - 1
        blocks = {
            block
            for offset, length in self.writes
            for block in range(offset // BLOCK_BYTES, (offset + length) // BLOCK_BYTES)
        }
        return blocks - {last}

    def _check(self, offset: int, length: int) -> None:
        for block in self.bad_reads:
            if offset < (block + 1) * BLOCK_BYTES and block * BLOCK_BYTES < offset + length:
                raise DiskIoError(f"reading slot at byte {block * BLOCK_BYTES}: Input/output error")


Fault = Callable[["FileServer", web.Request, bytes, int, int], Any]


@dataclass
class FileServer:
    """Static files with ranges. fault: called with request, file, start and length; it gives an answer, or None."""

    files: dict[str, bytes]
    fault: Fault | None = None
    requests: list[tuple[str, int, int]] = field(default_factory=list)
    """Path, start and length of each request."""
    sent: int = 0
    """Bytes of bodies."""
    url: str = ""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[FileServer]:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield self
        finally:
            await runner.cleanup()

    def asked(self, ending: str) -> int:
        """Bytes asked for of files whose names end so."""
        return sum(length for path, _, length in self.requests if path.endswith(ending))

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        data = self.files.get(path)
        if data is None:
            raise web.HTTPNotFound
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
        start, length = (int(match[1]), int(match[2]) + 1 - int(match[1])) if match else (0, len(data))
        self.requests.append((path, start, length))
        if self.fault:
            answer = self.fault(self, request, data, start, length)
            if asyncio.iscoroutine(answer):
                answer = await answer
            if answer is not None:
                assert isinstance(answer, web.StreamResponse)
                return answer
        return self.body(data, start, length, ranged=match is not None)

    def body(self, data: bytes, start: int, length: int, *, ranged: bool = True) -> web.Response:
        """The proper answer."""
        self.sent += length
        headers = {"Content-Range": f"bytes {start}-{start + length - 1}/{len(data)}"} if ranged else {}
        return web.Response(status=206 if ranged else 200, body=data[start : start + length], headers=headers)


async def stage(
    http: aiohttp.ClientSession, made: Made, target: Any, *places: str, booted: Any = None, **changes: Any
) -> Moved:
    """Stage a release; what the last progress said."""
    seen = [Moved()]
    wanted = Wanted(made.image, made.boot, places, **({"deadlines": QUICK} | changes))
    await stage_release(http, wanted, target, booted, seen.append)
    return seen[-1]
