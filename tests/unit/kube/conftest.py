"""An API server of a hundred lines, for the faults that a real one can't be made to show."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from careen.kube.session import Session

Handler = Callable[[web.Request], Any]


class FakeApi:
    """One namespaced-less kind at any path: list with pages, watch with history, writes, and faults on order."""

    def __init__(self) -> None:
        self.version = 100
        self.objects: dict[str, dict[str, Any]] = {}
        self.history: list[tuple[int, dict[str, Any]]] = []
        self.oldest = 0
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.headers: list[dict[str, str]] = []
        self.faults: dict[str, deque[Handler]] = {"list": deque(), "watch": deque(), "other": deque()}
        self.watchers: list[tuple[web.Request, web.StreamResponse, asyncio.Queue[bytes | None]]] = []
        self.silent = False
        self.port = 0

    def put(self, name: str, *, uid: str | None = None, tell: bool = True, **fields: Any) -> dict[str, Any]:
        """Create or change an object; a new uid makes it a new object without a delete event."""
        self.version += 1
        old = self.objects.get(name)
        uid = uid or (old["metadata"]["uid"] if old else f"{name}-{self.version}")
        obj = {"metadata": {"name": name, "uid": uid, "resourceVersion": str(self.version)}, **fields}
        self.objects[name] = obj
        self._happen("MODIFIED" if old else "ADDED", obj, tell)
        return obj

    def remove(self, name: str, *, tell: bool = True) -> None:
        self.version += 1
        obj = self.objects.pop(name)
        last = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}}
        self._happen("DELETED", last, tell)

    def bookmark(self) -> None:
        self.version += 1
        self.send({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(self.version)}}})

    def compact(self) -> None:
        self.oldest, self.history = self.version, []

    def send(self, event: dict[str, Any]) -> None:
        for _, _, queue in self.watchers:
            queue.put_nowait(json.dumps(event).encode() + b"\n")

    def end_watches(self) -> None:
        """End all watches as a server does whose timeoutSeconds are over."""
        for _, _, queue in self.watchers:
            queue.put_nowait(None)

    def drop_watches(self) -> None:
        """Cut all watch connections in mid-stream."""
        for request, _, _ in self.watchers:
            if request.transport is not None:
                request.transport.abort()

    def count(self, verb: str) -> int:
        return sum(1 for seen, _, _ in self.requests if seen == verb)

    def _happen(self, kind: str, obj: dict[str, Any], tell: bool) -> None:
        self.history.append((self.version, {"type": kind, "object": obj}))
        if tell:
            self.send({"type": kind, "object": obj})

    async def serve(self, request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        verb = "watch" if "watch" in query else "list" if request.method == "GET" else "other"
        self.requests.append((verb, request.path, query))
        self.headers.append(dict(request.headers))
        if self.faults[verb]:
            answer = self.faults[verb].popleft()(request)
            return await answer if asyncio.iscoroutine(answer) else answer
        if verb == "watch":
            return await self._watch(request, int(query["resourceVersion"]))
        if verb == "list":
            return self._list(int(query.get("limit", 0)), int(query.get("continue", 0)))
        return web.json_response({})

    def _list(self, limit: int, start: int) -> web.Response:
        items = list(self.objects.values())
        end = start + limit if limit and start + limit < len(items) else None
        meta = {"resourceVersion": str(self.version), **({"continue": str(end)} if end else {})}
        return web.json_response({"kind": "List", "metadata": meta, "items": items[start:end]})

    async def _watch(self, request: web.Request, since: int) -> web.StreamResponse:
        if since < self.oldest:
            return status(410, "Expired", "too old resource version")
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        for version, event in self.history:
            if version > since:
                queue.put_nowait(json.dumps(event).encode() + b"\n")
        entry = (request, response, queue)
        self.watchers.append(entry)
        try:
            while (line := await queue.get()) is not None:
                await response.write(line)
        finally:
            self.watchers.remove(entry)
        return response


def status(code: int, reason: str, message: str, **more: Any) -> web.Response:
    headers = more.pop("headers", None)
    body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message, **more}
    return web.json_response(body, status=code, headers=headers)


@pytest.fixture
async def fake() -> AsyncIterator[FakeApi]:
    api = FakeApi()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    api.port = runner.addresses[0][1]
    yield api
    await runner.cleanup()


@pytest.fixture
def fail() -> Callable[..., Handler]:
    """Makes a fault: fail(410, "Expired", "...") for FakeApi.faults."""
    return lambda *args, **kwargs: lambda _: status(*args, **kwargs)


@pytest.fixture
def kubeconfig(fake: FakeApi, tmp_path: Path) -> Path:
    path = tmp_path / "kubeconfig"
    path.write_text(_kubeconfig(f"http://127.0.0.1:{fake.port}", {"token": "first"}))
    return path


def _kubeconfig(server: str, user: dict[str, Any]) -> str:
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
    )


@pytest.fixture
async def session(kubeconfig: Path) -> AsyncIterator[Session]:
    async with Session.connect(kubeconfig, user_agent="test", request_timeout=2.0) as opened:
        yield opened


@pytest.fixture
def write_kubeconfig() -> Callable[[str, dict[str, Any]], str]:
    """The text of a kubeconfig for a server and the user section of one user."""
    return _kubeconfig
