"""The two questions that a kubelet asks an operator: /healthz, is it stuck, and /readyz, could it lead now?"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

Question = Callable[[], str | None]
"""What is wrong, in words; None when nothing is."""


class Probes:
    """What is answered, until somebody says otherwise: alive, but not ready yet."""

    def __init__(self) -> None:
        self.find_fault: Question = lambda: None
        """Asked by /healthz."""
        self.find_gap: Question = lambda: "waiting for the kinds of Careen to be served"
        """Asked by /readyz."""

    async def _healthz(self, _: web.Request) -> web.Response:
        return _answer(self.find_fault())

    async def _readyz(self, _: web.Request) -> web.Response:
        return _answer(self.find_gap())

    @asynccontextmanager
    async def served(self, address: str | None) -> AsyncIterator[None]:
        """Serve them on HOST:PORT (an IPv6 address with or without brackets); None serves nothing. Raises OSError.

        From before the first request to the API server: while that waits, a kubelet without an answer would kill us.
        """
        if address is None:
            yield
            return
        host, _, port = address.rpartition(":")
        app = web.Application()
        app.add_routes([web.get("/healthz", self._healthz), web.get("/readyz", self._readyz)])
        runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, host.strip("[]"), int(port)).start()
            yield
        finally:
            await runner.cleanup()


def _answer(fault: str | None) -> web.Response:
    return web.Response(text=f"{fault or 'ok'}\n", status=200 if fault is None else 503)
