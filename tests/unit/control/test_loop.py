"""The leader's fence: what it meets in the locks."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from careen.control import loop
from careen.control.loop import Loop
from careen.core.snapshot import Lock
from careen.kube.errors import NotFound
from careen.kube.write import TestFailed


class Server:
    """RebootLocks by name, and JSON patches on their status."""

    def __init__(self) -> None:
        self.locks: dict[str, dict[str, Any]] = {}
        self.before_second: Any = None

    async def patch_json(self, _session: Any, _resource: Any, name: str, ops: list[dict[str, Any]], **_: Any) -> Any:
        if name not in self.locks:
            raise NotFound(404, "NotFound", "gone")
        lock = self.locks[name]
        for op in ops:
            if op["op"] == "test":
                held = lock["version"] if "resourceVersion" in op["path"] else lock["uid"]
                if held != op["value"]:
                    return TestFailed("no")
            elif op["path"] == "/status":
                lock["status"] = op["value"]
            elif lock["status"] is None:
                if self.before_second:
                    self.before_second(lock)
                return TestFailed("no path")
            else:
                lock["status"]["term"] = op["value"]
        return {"name": name}


def build(monkeypatch: pytest.MonkeyPatch, server: Server) -> Loop:
    monkeypatch.setattr(loop.write, "patch_json", server.patch_json)
    listed = {("", name): Lock(name, doc["uid"], doc["version"], 1, 1) for name, doc in server.locks.items()}

    async def relist() -> None:
        return None

    locks = SimpleNamespace(objects=listed, relist=relist, apply=lambda _: None)
    made: Any = Loop(None, SimpleNamespace(locks=locks), None, asyncio.Event())  # type: ignore[arg-type]
    return made


async def test_the_term_goes_into_every_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    server.locks["old"] = {"uid": "u1", "version": "1", "status": {"term": 3, "holders": ["m0"]}}
    server.locks["new"] = {"uid": "u2", "version": "1", "status": None}
    await build(monkeypatch, server)._raise_fence(4)
    assert server.locks["old"]["status"] == {"term": 4, "holders": ["m0"]}
    assert server.locks["new"]["status"] == {"term": 4}


async def test_a_holder_that_people_write_meanwhile_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    server.locks["new"] = {"uid": "u", "version": "1", "status": None}
    server.before_second = lambda lock: lock.update(version="2", status={"holders": ["zoe"]})
    await build(monkeypatch, server)._raise_fence(4)
    assert server.locks["new"]["status"] == {"holders": ["zoe"]}


async def test_a_lock_that_is_deleted_meanwhile_does_not_end_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    server.locks["gone"] = {"uid": "u", "version": "1", "status": None}
    made = build(monkeypatch, server)
    server.locks.clear()
    await made._raise_fence(4)
