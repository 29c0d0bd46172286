"""An API server in a thread, for any kind: lists, watches, writes, exec, a kubelet's logs, and a small operator."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

Document = dict[str, Any]
BASE = "/apis/careen.dev/v1alpha1"
UNITS, NODES, CORE_NODES = f"{BASE}/units", f"{BASE}/nodes", "/api/v1/nodes"
PODS = "/api/v1/namespaces/careen-system/pods"


class UnitApi:
    """Objects by the path of their collection; `after_write` is called in the server's thread, as an operator would."""

    def __init__(self) -> None:
        self.collections: dict[str, dict[str, Document]] = {UNITS: {}, NODES: {}, CORE_NODES: {}, PODS: {}}
        self.version = 100
        self.after_write: Callable[[Document], None] = lambda _: None
        self.forbidden: set[str] = set()
        self.writes: list[tuple[str, str, Any]] = []
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.execs: list[list[str]] = []
        self.exec_output: list[tuple[int, bytes]] = [(1, b"from the pod\n")]
        self.exec_code = 0
        self.kubelet: tuple[str, str] | None = None
        self.url = ""
        self._queues: list[tuple[str, asyncio.Queue[bytes | None]]] = []
        self._loop = asyncio.new_event_loop()

    def put(self, path: str, obj: Document) -> Document:
        """Create or change an object, and tell the watches; its generation grows with its spec."""
        self.version += 1
        meta = obj["metadata"]
        old = self.collections[path].get(meta["name"])
        meta.setdefault("uid", f"uid-{meta['name']}")
        meta.setdefault("creationTimestamp", f"2026-01-01T00:00:{self.version % 60:02}Z")
        grown = old is None or old.get("spec") != obj.get("spec")
        meta["generation"] = (old["metadata"]["generation"] if old else 0) + grown
        meta["resourceVersion"] = str(self.version)
        self.collections[path][meta["name"]] = obj
        self._tell(path, "ADDED" if old is None else "MODIFIED", obj)
        return obj

    def unit(self, name: str) -> Document:
        """The Unit object of a unit's full name."""
        return next(u for u in self.collections[UNITS].values() if u["spec"].get("name", u["metadata"]["name"]) == name)

    def say(self, unit: Document, **status: Any) -> None:
        """Write a unit's status, of the spec as it is."""
        seen = {"observedGeneration": unit["metadata"]["generation"], **status}
        self.put(UNITS, {**unit, "metadata": dict(unit["metadata"]), "status": seen})

    def _tell(self, path: str, kind: str, obj: Document) -> None:
        line = json.dumps({"type": kind, "object": obj}).encode() + b"\n"
        for watched, queue in self._queues:
            if watched == path:
                self._loop.call_soon_threadsafe(queue.put_nowait, line)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        path, name = request.path, ""
        query = dict(request.query)
        self.asked.append((path, query))
        if any(path.startswith(each) for each in self.forbidden):
            return _status(403, "Forbidden", "no")
        if path.endswith("/exec"):
            return await self._exec(request)
        if "/proxy/logs/" in path:
            if self.kubelet is None:
                return _status(404, "NotFound", "the server could not find the requested resource")
            return web.Response(text=self.kubelet[1], content_type=self.kubelet[0])
        if path not in self.collections:
            path, _, name = path.rpartition("/")
        held = self.collections.get(path)
        if held is None or (name and name not in held):
            return _status(404, "NotFound", "not found")
        if request.method == "GET":
            if name:
                return web.json_response(held[name])
            return await self._watch(request, path) if "watch" in query else self._list(held, query)
        return await self._write(request, path, name)

    def _list(self, held: dict[str, Document], query: dict[str, str]) -> web.Response:
        items = [each for each in held.values() if _fits(each, query.get("fieldSelector", ""))]
        return web.json_response({"metadata": {"resourceVersion": str(self.version)}, "items": items})

    async def _watch(self, request: web.Request, path: str) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        since, selector = int(request.query["resourceVersion"]), request.query.get("fieldSelector", "")
        for obj in self.collections[path].values():
            if int(obj["metadata"]["resourceVersion"]) > since:
                queue.put_nowait(json.dumps({"type": "MODIFIED", "object": obj}).encode() + b"\n")
        entry = (path, queue)
        self._queues.append(entry)
        try:
            while (line := await queue.get()) is not None:
                if _fits(json.loads(line)["object"], selector):
                    await response.write(line)
        finally:
            self._queues.remove(entry)
        return response

    def end_watches(self) -> None:
        """End all watches; to be called in the server's thread."""
        for _, queue in self._queues:
            queue.put_nowait(None)

    async def _write(self, request: web.Request, path: str, name: str) -> web.Response:
        body = await request.json()
        self.writes.append((request.method, name or body["metadata"]["name"], body))
        held = self.collections[path]
        if request.method == "DELETE":
            obj = held.pop(name)
            self.version += 1
            self._tell(path, "DELETED", {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}})
            self._loop.call_later(0.01, self.after_write, {**obj, "deleted": True})
            return web.json_response({"kind": "Status", "status": "Success"})
        if request.method == "POST":
            if body["metadata"]["name"] in held:
                return _status(409, "AlreadyExists", "exists")
            obj = self.put(path, body)
        else:
            old = held[name]
            spec = {**old.get("spec", {}), **body.get("spec", {})}
            obj = self.put(path, {**old, "metadata": dict(old["metadata"]), "spec": spec})
        self._loop.call_later(0.01, self._act, path, obj["metadata"]["name"])
        return web.json_response(obj)

    def _act(self, path: str, name: str) -> None:
        """Let the operator look at the object as it is by now."""
        if (obj := self.collections[path].get(name)) is not None:
            self.after_write(obj)

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io",))
        await socket.prepare(request)
        command = request.query.getall("command")
        self.execs.append(command)
        for channel, data in self.exec_output:
            await socket.send_bytes(bytes([channel]) + data)
        if self.exec_code < 0:
            return socket
        status: Document = {"status": "Success"}
        if self.exec_code:
            cause = {"reason": "ExitCode", "message": str(self.exec_code)}
            status = {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": [cause]}}
        await socket.send_bytes(b"\x03" + json.dumps(status).encode())
        while not socket.closed and (await socket.receive()).type is WSMsgType.BINARY:
            pass
        return socket


@contextmanager
def serve_units() -> Iterator[UnitApi]:
    """A server that runs until the end of the block."""
    api, ready, runners = UnitApi(), threading.Event(), []

    async def start() -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", api._serve)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        api.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        runners.append(runner)
        ready.set()

    def work() -> None:
        asyncio.set_event_loop(api._loop)
        api._loop.run_until_complete(start())
        api._loop.run_forever()
        api.end_watches()
        api._loop.run_until_complete(runners[0].cleanup())
        api._loop.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield api
    finally:
        api._loop.call_soon_threadsafe(api._loop.stop)
        thread.join(30)


def write_kubeconfig(api: UnitApi, path: Path) -> Path:
    """A kubeconfig for the server."""
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1", "kind": "Config", "current-context": "a",
                "contexts": [{"name": "a", "context": {"cluster": "a"}}],
                "clusters": [{"name": "a", "cluster": {"server": api.url}}], "users": [],
            }
        )
    )  # fmt: skip
    return path


class SmallOperator:
    """Puts each unit on one machine and has it do as is wanted there, in as many writes as a real one and its agent."""

    def __init__(self, api: UnitApi, machine: str = "m1") -> None:
        self.api, self.machine = api, machine
        self.active = "active", "running"
        self.refuse = ""
        self.stuck = False
        api.after_write = self.act

    def act(self, unit: Document) -> None:
        name = unit["spec"].get("name", unit["metadata"]["name"])
        if self.stuck:
            return
        if "deleted" in unit:
            self.report(name, None)
            return
        desired = unit["spec"].get("desiredState", "inactive")
        if self.refuse:
            row = {"type": "Placed", "status": "False", "reason": "NoPlace", "message": self.refuse}
            self.api.say(unit, conditions=[row], placements=[], currentState="inactive")
            return
        if desired == "inactive":
            self.report(name, None)
            self.api.say(unit, currentState="inactive", placements=[], machines=[])
            return
        active, sub = self.active if desired == "launched" else ("inactive", "dead")
        report = {"hash": hash_of(unit), "load": "loaded", "active": active, "sub": sub}
        self.report(name, report)
        self.api.say(
            unit,
            currentState=desired,
            placements=[{"node": self.machine, "since": "2026-01-01T00:00:00Z"}],
            machines=[{"node": self.machine, **report}],
        )

    def report(self, name: str, report: Document | None) -> None:
        """What the machine says of one unit."""
        node = self.api.collections[NODES].setdefault(self.machine, make_node(self.machine))
        units = [each for each in node.get("status", {}).get("units", []) if each["name"] != name]
        units += [{"name": name, **report}] if report is not None else []
        self.api.put(NODES, {**node, "metadata": dict(node["metadata"]), "status": {**node["status"], "units": units}})


def hash_of(unit: Document) -> str:
    """The hash that the operator would compute."""
    from careen.units.file import unit_hash

    return unit_hash(unit["spec"]["content"])


def make_node(name: str, *, machine_id: str = "", metadata: dict[str, str] | None = None, units: Any = ()) -> Document:
    """A careen Node; `units` are its reports."""
    return {
        "metadata": {"name": name, "generation": 1},
        "spec": {"metadata": metadata or {}},
        "status": {"machineID": machine_id or f"{name}0123456789", "units": list(units)},
    }


def _fits(obj: Document, selector: str) -> bool:
    for term in filter(None, selector.split(",")):
        key, _, wanted = term.partition("=")
        found: Any = obj
        for part in key.split("."):
            found = found.get(part, "") if isinstance(found, dict) else ""
        if found != wanted:
            return False
    return True


def _status(code: int, reason: str, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "code": code, "reason": reason, "message": message}, status=code)
