"""Fetching an image: every way in which a repository or a disk may fail has its class, and nothing is armed."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from careen.agent.fetch import BLOCK_BYTES, Deadlines, StageError, fetch_image
from careen.agent.threads import in_thread
from careen.disk.types import DiskIoError
from careen.sandbox.releases import ReleaseServer, Repository, ServerFault

SIZE = 2 * BLOCK_BYTES + 5 * 4096
BODY = os.urandom(SIZE)
DIGEST = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
QUICK = Deadlines(connect=1.0, read=0.3, block=0.6)


class MemoryTarget:
    """A partition in memory."""

    def __init__(self, size: int = 4 * BLOCK_BYTES) -> None:
        self.data = bytearray(size)
        self.synced = b""
        self.writes = 0
        self.largest = 0
        self.error: Exception | None = None
        self.lie = False

    @property
    def size(self) -> int:
        return len(self.data)

    def write(self, offset: int, data: bytes) -> None:
        if self.error:
            raise self.error
        self.writes += 1
        self.largest = max(self.largest, len(data))
        self.data[offset : offset + len(data)] = data

    def sync(self) -> None:
        self.synced = bytes(self.data)

    def read_back(self, offset: int, length: int) -> bytes:
        assert self.synced, "read back before it was flushed"
        data = self.synced[offset : offset + length]
        return data[:-1] + b"!" if self.lie else data


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ReleaseServer]:
    repository = Repository.create(tmp_path / "repository")
    (repository.folder / "image").write_bytes(BODY)
    repository.add("1.0.0", "image")
    async with ReleaseServer(repository).running() as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def fetch(http: aiohttp.ClientSession, url: str, target: MemoryTarget, **changes: Any) -> list[int]:
    seen: list[int] = []
    arguments: dict[str, Any] = {"digest": DIGEST, "size": SIZE, "deadlines": QUICK} | changes
    await fetch_image(http, f"{url}/image", target, on_bytes=seen.append, **arguments)
    return seen


async def test_the_image_is_on_the_medium_and_memory_is_bounded(
    http: aiohttp.ClientSession, server: ReleaseServer
) -> None:
    target = MemoryTarget()
    assert await fetch(http, server.url, target) == [BLOCK_BYTES, 2 * BLOCK_BYTES, SIZE]
    assert target.synced[:SIZE] == BODY
    assert target.largest == BLOCK_BYTES


@pytest.mark.parametrize(
    ("fault", "class_", "words"),
    [
        (ServerFault.TRUNCATED, "Transfer", "of 2117632 bytes"),
        (ServerFault.WRONG_BYTES, "Integrity", "ordered: sha256:"),
        (ServerFault.TOO_LARGE, "Size", "more than the 2117632 bytes"),
        (ServerFault.DOWN, "Transfer", "503"),
        (ServerFault.STALLED, "Transfer", "/image after"),
        (ServerFault.SLOW, "Transfer", "/image after"),
    ],
)
async def test_a_bad_repository(
    http: aiohttp.ClientSession, server: ReleaseServer, fault: ServerFault, class_: str, words: str
) -> None:
    server.fault = fault
    with pytest.raises(StageError) as error:
        await fetch(http, server.url, MemoryTarget())
    assert (error.value.fault.class_, words in error.value.fault.message) == (class_, True), error.value.fault


async def test_a_server_that_cannot_be_reached(http: aiohttp.ClientSession, unused_port: int) -> None:
    with pytest.raises(StageError) as error:
        await fetch(http, f"http://127.0.0.1:{unused_port}", MemoryTarget())
    assert error.value.fault.class_ == "Transfer"


async def test_a_length_above_the_declared_size_is_refused_before_the_first_byte(
    http: aiohttp.ClientSession, server: ReleaseServer
) -> None:
    target = MemoryTarget()
    with pytest.raises(StageError) as error:
        await fetch(http, server.url, target, size=BLOCK_BYTES)
    assert error.value.fault.class_ == "Size"
    assert target.writes == 0


async def test_an_image_larger_than_the_slot_is_not_even_asked_for(
    http: aiohttp.ClientSession, server: ReleaseServer
) -> None:
    target = MemoryTarget(SIZE - 1)
    with pytest.raises(StageError) as error:
        await fetch(http, server.url, target)
    assert error.value.fault.class_ == "Size"
    assert (server.requests, target.writes) == ([], 0)


async def test_a_disk_that_fails(http: aiohttp.ClientSession, server: ReleaseServer) -> None:
    target = MemoryTarget()
    target.error = DiskIoError("writing disk at byte 512: Input/output error")
    with pytest.raises(StageError) as error:
        await fetch(http, server.url, target)
    assert error.value.fault.class_ == "Disk"
    assert "byte 512" in error.value.fault.message


async def test_a_disk_that_reads_back_other_bytes(http: aiohttp.ClientSession, server: ReleaseServer) -> None:
    target = MemoryTarget()
    target.lie = True
    with pytest.raises(StageError) as error:
        await fetch(http, server.url, target)
    assert error.value.fault.class_ == "Disk"


async def test_cancelled_it_waits_for_the_thread_that_writes() -> None:
    may_end, ended = threading.Event(), threading.Event()

    def work() -> None:
        may_end.wait(5)
        ended.set()

    task = asyncio.create_task(in_thread(work))
    await asyncio.sleep(0.05)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0.05)
        assert not task.done(), "the caller would close the file that the thread writes to"
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
