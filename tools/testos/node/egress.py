"""The way from the API server to the kubelets: an HTTP CONNECT proxy on a unix socket.

A machine's address means nothing on its host: the proxy leads each kubelet's address to the port of the loopback that
QEMU forwards to it.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

_CHUNK = 1 << 16
_HEAD_SECONDS = 10.0
_STOP_SECONDS = 10.0


class Egress:
    """A context manager; the proxy runs in a thread of its own."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        """Where it listens; unix sockets have short paths only."""
        self.ports: dict[str, int] = {}
        """Port of the host's loopback by what is asked for, such as 10.0.2.15:10250. Nothing else is reached."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="egress", daemon=True)
        self._ready = threading.Event()
        self._stopping = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(_STOP_SECONDS):
            raise TimeoutError(f"no proxy listens on {self.socket}")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_unix_server(self._answer, self.socket)
        self._ready.set()
        await self._stopping.wait()
        server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError, asyncio.LimitOverrunError, asyncio.CancelledError):
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _HEAD_SECONDS)
            port = self.ports.get(_read_target(head))
            if port is None:
                writer.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            else:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        writer.close()


def _read_target(head: bytes) -> str:
    words = head.split(b"\r\n", 1)[0].decode("ascii", "replace").split(" ")
    return words[1] if len(words) == 3 and words[0] == "CONNECT" else ""


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    writer.close()
