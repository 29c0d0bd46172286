"""An API server of one Node that can be made to fail, and a machine in memory whose actions can be."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from careen.agent.actions import StageImage
from careen.agent.host import Sight
from careen.agent.record import Method, Moved
from careen.agent.runner import run_agent
from careen.agent.settings import Exit, Settings
from careen.disk.types import SlotName
from careen.kube.errors import Conflict, Invalid, NotFound
from careen.kube.session import Answer, Session
from careen.sandbox.memory import MemoryHost

OLD, NEW = "sha256:" + "a" * 64, "sha256:" + "b" * 64
NAME = "m"
SETTINGS = Settings(renew_seconds=0.5, progress_seconds=0.05)


class OneNode:
    """An API server with one Node and its agent's Lease."""

    def __init__(self) -> None:
        self.version = 10
        metadata = {"name": NAME, "uid": "uid-1", "resourceVersion": "10"}
        self.node: dict[str, Any] = {"metadata": metadata, "spec": {}, "status": {}}
        self.leases = 0
        self.owners: list[str] = []
        self.writes: list[dict[str, Any]] = []
        self.watchers: list[asyncio.Queue[dict[str, Any]]] = []
        self.before_patch: Callable[[Any], None] = lambda _: None

    async def request(self, method: str, path: str, *, body: Any = None, **_: Any) -> Answer:
        if "leases" in path:
            if method == "PATCH" and not self.leases:
                raise NotFound(404, "NotFound", path)
            assert path.endswith(f"/agent-{NAME}") or method == "POST"
            self.leases += 1
            self.owners += [owner["uid"] for owner in body["metadata"]["ownerReferences"]]
            return Answer(200, {}, None)
        if method == "GET":
            listed = {"items": [copy.deepcopy(self.node)], "metadata": {"resourceVersion": str(self.version)}}
            return Answer(200, copy.deepcopy(self.node) if path.endswith(f"/{NAME}") else listed, None)
        assert path.endswith(f"/{NAME}/status")
        self.before_patch(body)
        self._patch(json.loads(json.dumps(body)))
        return Answer(200, copy.deepcopy(self.node), None)

    async def stream(
        self, path: str, query: Any, *, stall: float, on_open: Callable[[], None]
    ) -> AsyncGenerator[dict[str, Any], None]:
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.watchers.append(queue)
        on_open()
        while True:
            yield await queue.get()

    def _patch(self, body: Any) -> None:
        if isinstance(body, list):
            self._patch_json(body)
        else:
            if body["metadata"]["uid"] != self.node["metadata"]["uid"]:
                raise Conflict(409, "Conflict", "Precondition failed: UID in precondition: another one")
            current = self.node["metadata"]["resourceVersion"]
            if body["metadata"].get("resourceVersion", current) != current:
                raise Conflict(409, "Conflict", "the object has been modified")
            merge(self.node["status"], body["status"])
        self.writes.append(copy.deepcopy(self.node["status"].get("step", {})))
        self.changed()

    def _patch_json(self, body: list[dict[str, Any]]) -> None:
        for op in body:
            at: Any = self.node
            keys = op["path"].strip("/").split("/")
            for key in keys[:-1]:
                at = at.get(key) or {}
            if op["op"] == "test" and at.get(keys[-1]) != op["value"]:
                raise Invalid(422, "Invalid", "the server rejected our request due to an error in our request")
            if op["op"] == "add":
                at[keys[-1]] = op["value"]

    def changed(self) -> None:
        self.version += 1
        self.node["metadata"]["resourceVersion"] = str(self.version)
        for queue in self.watchers:
            queue.put_nowait({"type": "MODIFIED", "object": copy.deepcopy(self.node)})

    def give(self, goal: str = "Stage", order: str = "order-1", **changes: Any) -> None:
        release = {"repository": "http://r", "version": "2.0.0", "digest": NEW, "sizeBytes": 100, "path": "2.img"}
        terms = {
            "lock": "default", "readySeconds": 0, "verifyTimeoutSeconds": 60, "commitTimeoutSeconds": 300,
            "onSilence": "Rollback", "bootMethod": "Auto", "drainTimeoutSeconds": 60,
        }  # fmt: skip
        assignment = {"id": order, "policy": {"name": "p", "uid": "p"}, "rollout": "1", "release": release}
        self.node["spec"]["assignment"] = {**assignment, "goal": goal, "terms": terms, **changes}
        self.changed()

    @property
    def step(self) -> dict[str, Any]:
        step: dict[str, Any] = self.node["status"].get("step", {})
        return step

    def phases(self) -> list[str]:
        """The phases in the order in which they were written."""
        shown: list[str] = []
        for write in self.writes:
            if not shown or shown[-1] != write["phase"]:
                shown.append(write["phase"])
        return shown


def merge(target: dict[str, Any], patch: dict[str, Any]) -> None:
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            merge(target.setdefault(key, {}), value)
        else:
            target[key] = value


class Host(MemoryHost):
    """A machine in memory whose actions can be made to fail."""

    stage_faults: list[Exception]
    reboot_faults: list[Exception]
    arm_faults: list[Exception]
    hold: asyncio.Event | None
    look_fault: Exception | None

    async def look(self) -> Sight:
        if self.look_fault:
            raise self.look_fault
        return await super().look()

    async def stage(self, image: StageImage, on_progress: Callable[[Moved], None]) -> None:
        if self.hold:
            on_progress(Moved(fetched=1))
            await self.hold.wait()
        if self.stage_faults:
            raise self.stage_faults.pop(0)
        await super().stage(image, on_progress)

    async def arm(self, slot: SlotName, method: Method) -> None:
        if self.arm_faults:
            raise self.arm_faults.pop(0)
        await super().arm(slot, method)

    async def request_reboot(self, method: Method, slot: SlotName) -> None:
        if self.reboot_faults:
            raise self.reboot_faults.pop(0)


def make_host() -> Host:
    """A machine that runs 1.0.0, and on which nothing fails yet."""
    made = cast("Host", Host.install("m-id", "1.0.0", OLD))
    made.stage_faults, made.reboot_faults, made.arm_faults, made.hold, made.look_fault = [], [], [], None, None
    return made


@asynccontextmanager
async def agent(host: Host, api: OneNode, settings: Settings = SETTINGS) -> AsyncIterator[asyncio.Task[Exit]]:
    task = asyncio.create_task(run_agent(host, cast("Session", api), NAME, settings))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(check: Callable[[], Any], seconds: float = 8.0) -> None:
    async with asyncio.timeout(seconds):
        while not check():
            await asyncio.sleep(0.01)
