"""The release server for callers without an event loop: it runs in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from typing import Self

from careen.sandbox.binaries import SandboxError
from careen.sandbox.releases import ReleaseServer, Repository

_SECONDS = 10.0


class ServerThread:
    """Serves one repository on loopback from `start` to `stop`."""

    def __init__(self, repository: Repository) -> None:
        self.server = ReleaseServer(repository)
        """The server; its `fault` may be set from any thread."""
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sandbox-releases", daemon=True)

    @property
    def url(self) -> str:
        """The repository's URL, as a policy names it."""
        return self.server.url

    def start(self) -> Self:
        """Serve on a free port. Raises SandboxError when that does not work."""
        self._thread.start()
        if not self._ready.wait(_SECONDS) or not self.url:
            raise SandboxError("the release server did not start on a free port of 127.0.0.1")
        return self

    def stop(self) -> None:
        """Stop serving. Safe to call twice."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(_SECONDS)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._ready.set()
            self._loop.close()

    async def _serve(self) -> None:
        async with self.server.running():
            self._ready.set()
            await self._stopping.wait()
