"""A client, and servers of a release's files."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest

from stagings import Fault, FileServer, Made

Serve = Callable[..., Awaitable[FileServer]]


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts a server of a release's files."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(made: Made, fault: Fault | None = None) -> FileServer:
            return await stack.enter_async_context(FileServer(dict(made.files), fault).running())

        yield start
