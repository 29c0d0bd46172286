"""An API server with one Node and Units, and the keeper of a machine's units against it."""

from __future__ import annotations

import asyncio
import copy
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

from careen.agent.runner import run_agent
from careen.agent.units.report import Pace
from careen.agent.units.settings import KeeperSettings
from careen.agent.units.systemd import UnitHost
from careen.kube.errors import ApiError, NotFound
from careen.kube.session import Answer, Session
from careen.units.file import unit_hash
from one_node import NAME, SETTINGS, OneNode, make_host

PACE = Pace(quiet=0.03, longest=0.15, burst=6, interval=0.5)
FAST = KeeperSettings(retry_seconds=0.2, look_seconds=0.2, pace=PACE)


class UnitsNode(OneNode):
    """An API server with one Node and the Units that it is told to hold."""

    def __init__(self) -> None:
        super().__init__()
        self.units: dict[str, str] = {}
        """Contents by the objects' names."""
        self.reads: list[str] = []
        """Names of the Units that were read."""
        self.unit_writes: list[list[dict[str, Any]]] = []
        """What status.units was written to, each time."""
        self.refusal: ApiError | None = None
        """What all requests but the watch are answered with."""

    async def request(self, method: str, path: str, *, body: Any = None, **options: Any) -> Answer:
        if self.refusal is not None:
            raise self.refusal
        if "/units/" in path:
            name = path.rpartition("/")[2]
            self.reads.append(name)
            if name not in self.units:
                raise NotFound(404, "NotFound", f'units.careen.dev "{name}" not found')
            return Answer(200, {"metadata": {"name": name}, "spec": {"content": self.units[name]}}, None)
        answer = await super().request(method, path, body=body, **options)
        if isinstance(body, dict) and "units" in body.get("status", {}):
            self.unit_writes.append(copy.deepcopy(body["status"]["units"] or []))
        return answer

    def order(self, name: str, text: str, desired: str = "launched") -> None:
        """Order a unit with this content; the object of web@1.service is web-1, that of web.timer is web.timer."""
        unit = re.sub(r"[^a-z0-9.]", "-", name.removesuffix(".service"))
        self.units[unit] = text
        entry = {"name": name, "unit": unit, "hash": unit_hash(text), "desiredState": desired}
        self._entries([*(each for each in self.entries if each["name"] != name), entry])

    def drop(self, name: str) -> None:
        """Take the entry out, as the operator does when its removal is acknowledged."""
        self._entries([each for each in self.entries if each["name"] != name])

    @property
    def entries(self) -> list[dict[str, Any]]:
        """spec.units."""
        return list(self.node["spec"].get("units") or ())

    @property
    def reports(self) -> dict[str, dict[str, Any]]:
        """status.units by name."""
        return {each["name"]: each for each in self.node["status"].get("units") or ()}

    def report(self, name: str) -> dict[str, Any]:
        """What is reported of one unit; empty if nothing is."""
        return self.reports.get(name, {})

    def _entries(self, entries: list[dict[str, Any]]) -> None:
        self.node["spec"]["units"] = entries
        self.changed()


@asynccontextmanager
async def keeping(api: UnitsNode, units: UnitHost, settings: KeeperSettings = FAST) -> AsyncIterator[None]:
    """The agent of a machine that holds units; killed at the end, as by SIGKILL."""
    chosen = replace(SETTINGS, units=settings)
    task = asyncio.create_task(run_agent(make_host(), cast("Session", api), NAME, chosen, units))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def settle(check: Callable[[], Any], seconds: float = 8.0) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(seconds):
        while not check():
            await asyncio.sleep(0.01)
