"""Whose clock says that a signature has expired: an agent's process against an API server of one Node."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from careen.agent import app
from careen.agent.clock import TrustClock
from careen.kube.clock import ServerClock
from careen.sandbox.firmware import power_on
from careen.sandbox.machine import create_machine, machine_id_of
from careen.sandbox.releases import ReleaseServer, Repository


class DatedServer:
    """Serves one Node with an order, and says of every answer that it is of this date."""

    def __init__(self, date: datetime, order: dict[str, Any]) -> None:
        self._date = date
        self._node: dict[str, Any] = {
            "metadata": {"name": "m", "uid": "uid-1", "resourceVersion": "10"},
            "spec": {"assignment": order},
            "status": {},
        }
        self._version = 10
        self.seen: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    @asynccontextmanager
    async def running(self, folder: Path) -> AsyncIterator[Path]:
        """Serve on loopback; gives a kubeconfig."""
        served = web.Application()
        served.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(served, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            context = {"name": "c", "context": {"cluster": "c", "user": "c"}}
            document = {
                "current-context": "c",
                "contexts": [context],
                "clusters": [{"name": "c", "cluster": {"server": url}}],
                "users": [{"name": "c", "user": {"token": "t"}}],
            }
            path = folder / "kubeconfig"
            path.write_text(json.dumps(document))
            yield path
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        headers = {"Date": format_datetime(self._date, usegmt=True)}
        if "watch" in request.query:
            response = web.StreamResponse(headers=headers)
            await response.prepare(request)
            await asyncio.sleep(60)
            return response
        if request.method == "PATCH" and request.path.endswith("/status"):
            status = (await request.json())["status"]
            self._node["status"] |= status
            self._version += 1
            self._node["metadata"]["resourceVersion"] = str(self._version)
            if "step" in status:
                self.seen.put_nowait(status["step"])
        listed = {"items": [self._node], "metadata": {"resourceVersion": str(self._version)}}
        return web.json_response(self._node if "/nodes/" in request.path else listed, headers=headers)


@pytest.mark.parametrize(("days", "phase", "class_"), [(0, "Staged", ""), (40_000, "Failed", "Trust")])
async def test_the_api_servers_time_counts(tmp_path: Path, days: int, phase: str, class_: str) -> None:
    shop = Repository.create(tmp_path / "shop")
    shop.publish("1.0.0")
    release = shop.publish("2.0.0")
    machine = create_machine(tmp_path / "m", shop.find("1.0.0"), machine_id=machine_id_of("m"))
    power_on(machine.path)
    async with ReleaseServer(shop).running() as releases:
        place = {"repository": releases.url, "path": release.path}
        what = {"version": "2.0.0", "digest": release.digest, "sizeBytes": release.size_bytes}
        terms = {
            "lock": "default", "readySeconds": 0, "verifyTimeoutSeconds": 60, "commitTimeoutSeconds": 300,
            "onSilence": "Rollback", "bootMethod": "Auto", "drainTimeoutSeconds": 60,
        }  # fmt: skip
        policy = {"name": "p", "uid": "p"}
        order = {"id": "o", "policy": policy, "rollout": "1", "release": place | what, "goal": "Stage", "terms": terms}
        api = DatedServer(datetime.now(UTC) + timedelta(days=days), order)
        async with api.running(tmp_path) as kubeconfig:
            options = app.Options("m", machine.path, trust_root=shop.trust_root, kubeconfig=kubeconfig)
            task = asyncio.create_task(app._run(options))
            try:
                async with asyncio.timeout(20):
                    step = await api.seen.get()
                    while step["phase"] not in ("Staged", "Failed"):
                        step = await api.seen.get()
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
    assert (step["phase"], (step.get("error") or {}).get("class", "")) == (phase, class_)


def test_without_an_answer_the_machines_own_clock_counts() -> None:
    clock = TrustClock()
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=5)
    clock.follow(ServerClock())
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=5)
