"""Fetching an image over HTTP straight into a partition: hashed as it comes, and again as it reads back."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

import aiohttp

from careen.api.node import ErrorClass
from careen.disk.types import DiskError

from .record import Fault
from .threads import in_thread

BLOCK_BYTES = 1 << 20
"""How much is held in memory, and written at once."""


class StageError(Exception):
    """A staging that did not succeed; `fault` is what the status will say."""

    def __init__(self, class_: ErrorClass, message: str) -> None:
        super().__init__(message)
        self.fault = Fault(class_, message)


@dataclass(frozen=True)
class Deadlines:
    """How long the repository may take, in seconds."""

    connect: float = 10.0
    """To accept the connection."""
    read: float = 30.0
    """To send anything more."""
    block: float = 120.0
    """To send one more MiB: a server that drips single bytes would never exceed `read`."""


class Target(Protocol):
    """Where the image goes: the bytes of one partition."""

    @property
    def size(self) -> int:
        """Room in bytes."""
        ...

    def write(self, offset: int, data: bytes) -> None:
        """Write at a byte offset."""

    def sync(self) -> None:
        """Make all writes durable."""

    def read_back(self, offset: int, length: int) -> bytes:
        """Read from the medium."""
        ...


async def fetch_image(
    http: aiohttp.ClientSession,
    url: str,
    target: Target,
    *,
    digest: str,
    size: int,
    on_bytes: Callable[[int], None],
    deadlines: Deadlines | None = None,
) -> None:
    """Fetch `size` bytes from `url` into `target`, flush them, and read them back.

    digest: `sha256:` and 64 hex digits. on_bytes: called with the bytes fetched so far. Raises StageError: Size before
    anything is written, or when the server has more than declared; Transfer for a server that can't be reached,
    refuses, stalls or stops early; Integrity for other contents; Disk for a partition that fails or reads back
    otherwise.
    """
    if size > target.size:
        raise StageError("Size", f"the image has {size} bytes; the slot has room for {target.size}")
    try:
        wait = deadlines or Deadlines()
        await _receive(http, url, target, digest=digest, size=size, on_bytes=on_bytes, deadlines=wait)
        found = await in_thread(hash_target, target, size)
    except DiskError as error:
        raise StageError("Disk", str(error)) from error
    if found != digest:
        raise StageError("Disk", f"the slot reads back {found} after {digest} was written to it")


def hash_target(target: Target, size: int) -> str:
    """Digest of the first `size` bytes as they are on the medium. Raises DiskError."""
    hasher = hashlib.sha256()
    for offset in range(0, size, BLOCK_BYTES):
        hasher.update(target.read_back(offset, min(BLOCK_BYTES, size - offset)))
    return f"sha256:{hasher.hexdigest()}"


async def _receive(
    http: aiohttp.ClientSession,
    url: str,
    target: Target,
    *,
    digest: str,
    size: int,
    on_bytes: Callable[[int], None],
    deadlines: Deadlines,
) -> None:
    hasher, done = hashlib.sha256(), 0
    timeout = aiohttp.ClientTimeout(total=None, connect=deadlines.connect, sock_read=deadlines.read)
    try:
        # Compression would make the declared size meaningless.
        async with http.get(url, timeout=timeout, headers={"Accept-Encoding": "identity"}) as response:
            _check_answer(response, url, size)
            async for block in _blocks(response, deadlines.block):
                if done + len(block) > size:
                    raise StageError("Size", f"{url} sends more than the {size} bytes declared")
                await in_thread(_store, target, done, block, hasher.update)
                done += len(block)
                on_bytes(done)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        words = str(error) or type(error).__name__
        raise StageError("Transfer", f"{url} after {done} of {size} bytes: {words}") from error
    if done < size:
        raise StageError("Transfer", f"{url} ended after {done} of {size} bytes")
    if (found := f"sha256:{hasher.hexdigest()}") != digest:
        raise StageError("Integrity", f"{url} has the contents {found}; ordered: {digest}")
    await in_thread(target.sync)


def _check_answer(response: aiohttp.ClientResponse, url: str, size: int) -> None:
    if response.status != 200:
        raise StageError("Transfer", f"{url} answered {response.status} {response.reason}; expected: 200")
    length = response.content_length
    if length is not None and length > size:
        raise StageError("Size", f"{url} has {length} bytes; declared: {size}")


async def _blocks(response: aiohttp.ClientResponse, seconds: float) -> AsyncIterator[bytes]:
    """The body in pieces of BLOCK_BYTES; the last one may be shorter."""
    ended = False
    while not ended:
        block = bytearray()
        async with asyncio.timeout(seconds):
            while len(block) < BLOCK_BYTES:
                part = await response.content.read(BLOCK_BYTES - len(block))
                if not part:
                    ended = True
                    break
                block += part
        if block:
            yield bytes(block)


def _store(target: Target, offset: int, block: bytes, update: Callable[[bytes], None]) -> None:
    update(block)
    target.write(offset, block)
