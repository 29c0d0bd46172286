"""The agent's loop against a machine in memory and an API server of one Node that can be made to fail."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import pytest

from careen.agent import runner
from careen.agent.actions import StageImage
from careen.agent.host import RebootError, Sight
from careen.agent.record import Method, Moved
from careen.agent.runner import Exit, Settings, run_agent
from careen.agent.staging.fault import StageError
from careen.disk.types import GIVEN_UP, DiskBusyError, GptInvalidError, SlotName
from careen.kube.errors import Conflict, Invalid, NotFound, Unreachable
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
            if body["metadata"]["resourceVersion"] != self.node["metadata"]["resourceVersion"]:
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


@pytest.fixture
def api() -> OneNode:
    return OneNode()


@pytest.fixture
def host() -> Host:
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


async def test_it_climbs_to_the_reboot_with_four_writes(host: Host, api: OneNode) -> None:
    async with agent(host, api) as task:
        await until(lambda: api.step.get("phase") == "Idle")
        api.give()
        await until(lambda: api.step["phase"] == "Staged")
        api.give("Activate", fromBootID=host.boot_id)
        assert await asyncio.wait_for(task, 5) == Exit("Kexec", "B")
    assert api.phases() == ["Idle", "Staging", "Staged", "Activating"]
    assert len(api.writes) == 4
    assert host.journal is not None
    assert host.journal.open is not None


async def test_idle_it_renews_its_lease_and_writes_nothing(host: Host, api: OneNode) -> None:
    async with agent(host, api):
        await until(lambda: api.leases >= 3)
        assert len(api.writes) == 1
        assert host.answered


async def test_the_lease_is_the_nodes_and_a_node_that_was_made_again_gets_it_at_once(host: Host, api: OneNode) -> None:
    async with agent(host, api, replace(SETTINGS, renew_seconds=60.0)):
        await until(lambda: api.owners == ["uid-1"])
        api.node["metadata"]["uid"] = "uid-2"
        api.changed()
        await until(lambda: api.owners == ["uid-1", "uid-2"])


async def test_without_a_node_there_is_no_lease_that_nobody_would_remove(host: Host, api: OneNode) -> None:
    node = copy.deepcopy(api.node)
    api.node["metadata"]["name"] = "another"
    async with agent(host, api):
        await asyncio.sleep(0.1)
        assert not api.leases
        api.node = node
        api.changed()
        await until(lambda: api.owners)


async def test_a_node_that_was_made_again_is_told_everything(host: Host, api: OneNode) -> None:
    def make_again(_: Any) -> None:
        api.before_patch = lambda _: None
        metadata = {"name": NAME, "uid": "uid-2", "resourceVersion": "0"}
        api.node = {"metadata": metadata, "spec": api.node["spec"], "status": {}}
        api.changed()

    async with agent(host, api):
        await until(lambda: api.writes)
        api.before_patch = make_again
        api.give()
        await until(lambda: api.step.get("phase") == "Staged")
    assert api.node["metadata"]["uid"] == "uid-2"
    assert {"bootID", "booted", "slots", "protocol"} <= set(api.node["status"])


async def test_what_was_decided_on_an_older_node_is_not_written_but_decided_again(host: Host, api: OneNode) -> None:
    sent: list[Any] = []

    def change_meanwhile(body: Any) -> None:
        sent.append(body)
        if len(sent) == 1:
            # A write of the agent that ran before this one: it was long on its way.
            api.node["status"]["step"] = {"id": "order-0", "phase": "RolledBack", "cause": "Panic"}
            api.changed()

    async with agent(host, api):
        await until(lambda: api.writes)
        api.before_patch = change_meanwhile
        api.give()
        await until(lambda: api.step.get("phase") == "Staged")
    assert len(sent) > 1
    assert (api.step["id"], api.step.get("cause")) == ("order-1", None), "all of the older step was replaced"


async def test_a_refusal_that_brings_no_news_is_not_repeated_at_once(host: Host, api: OneNode) -> None:
    sent: list[Any] = []

    def refuse(body: Any) -> None:
        sent.append(body)
        raise Conflict(409, "Conflict", "the object has been modified")

    async with agent(host, api):
        await until(lambda: api.writes)
        api.before_patch = refuse
        api.give()
        await until(lambda: sent)
        await asyncio.sleep(0.3)
    assert len(sent) == 1


async def test_a_late_question_puts_no_activating_over_the_orders_end(host: Host, api: OneNode) -> None:
    asked: list[Any] = []

    def lose(body: Any) -> None:
        if isinstance(body, list):
            asked.append(copy.deepcopy(body))
            raise Unreachable("no answer within 10 s", method="PATCH", path="x")

    async with agent(host, api):
        api.give()
        await until(lambda: api.step.get("phase") == "Staged")
        api.before_patch = lose
        api.give("Activate", fromBootID=host.boot_id)
        await until(lambda: asked)
    api.before_patch = lambda _: None
    api.node["status"]["step"]["phase"] = "Failed"
    with pytest.raises(Invalid):
        await api.request("PATCH", f"/{NAME}/status", body=asked[0])
    assert api.step["phase"] == "Failed"


async def test_an_abort_that_comes_before_the_request_wins(host: Host, api: OneNode) -> None:
    def withdraw(body: Any) -> None:
        if isinstance(body, list):
            api.give("Abort", cause="Withdrawn", fromBootID=host.boot_id)

    async with agent(host, api):
        api.give()
        await until(lambda: api.step.get("phase") == "Staged")
        api.before_patch = withdraw
        api.give("Activate", fromBootID=host.boot_id)
        await until(lambda: api.step["phase"] == "Idle")
    assert "Activating" not in api.phases()
    assert host.slots[SlotName.B].attributes == GIVEN_UP


async def test_without_an_answer_it_does_not_activate_until_there_is_one(host: Host, api: OneNode) -> None:
    silent = True

    def refuse(body: Any) -> None:
        if silent and isinstance(body, list):
            raise Unreachable("no answer within 10 s", method="PATCH", path="x")

    async with agent(host, api) as task:
        api.give()
        await until(lambda: api.step.get("phase") == "Staged")
        api.before_patch = refuse
        api.give("Activate", fromBootID=host.boot_id)
        await asyncio.sleep(0.3)
        assert host.slots[SlotName.B].attributes == GIVEN_UP
        assert host.journal is not None
        assert host.journal.open is None
        silent = False
        assert await asyncio.wait_for(task, 5) == Exit("Kexec", "B")


async def test_a_failed_staging_is_shown_and_tried_again(host: Host, api: OneNode) -> None:
    host.stage_faults = [StageError("Integrity", "other contents")]
    async with agent(host, api):
        api.give()
        await until(lambda: api.step.get("phase") == "Failed")
        assert api.step["error"] == {"class": "Integrity", "message": "other contents"}
        await until(lambda: api.step["phase"] == "Staged")
        assert "error" not in api.step


async def test_an_abort_ends_a_staging_under_way(host: Host, api: OneNode) -> None:
    host.hold = asyncio.Event()
    async with agent(host, api):
        api.give()
        await until(lambda: api.step.get("progress", {}).get("bytesFetched"))
        api.give("Abort", cause="People")
        await until(lambda: api.step["phase"] == "Idle")
        assert api.step["cause"] == "People"
        assert host.slots[SlotName.B].digest is None


async def test_a_refused_reboot_is_undone_and_does_not_spoil_the_next_order(host: Host, api: OneNode) -> None:
    host.reboot_faults = [RebootError("kexec_load: EPERM")]
    async with agent(host, api) as task:
        api.give()
        await until(lambda: api.step.get("phase") == "Staged")
        api.give("Activate", fromBootID=host.boot_id)
        await until(lambda: api.step["phase"] == "Failed")
        assert api.step["error"] == {"class": "Boot", "message": "kexec_load: EPERM"}
        assert host.slots[SlotName.B].attributes == GIVEN_UP
        api.give(order="order-2")
        await until(lambda: (api.step["id"], api.step["phase"]) == ("order-2", "Staged"))
        api.give("Activate", order="order-2", fromBootID=host.boot_id)
        assert await asyncio.wait_for(task, 5) == Exit("Kexec", "B")


async def test_a_disk_that_is_busy_for_a_moment_does_not_end_the_order(host: Host, api: OneNode) -> None:
    host.arm_faults = [DiskBusyError("disk.img is locked by another process")]
    async with agent(host, api) as task:
        api.give()
        await until(lambda: api.step.get("phase") == "Staged")
        api.give("Activate", fromBootID=host.boot_id)
        assert await asyncio.wait_for(task, 5) == Exit("Kexec", "B")


async def test_a_bug_is_shown_and_does_not_end_the_agent(host: Host, api: OneNode) -> None:
    host.stage_faults = [ZeroDivisionError("division by zero")]
    async with agent(host, api):
        api.give()
        await until(lambda: api.step.get("phase") == "Failed")
        assert api.step["error"] == {"class": "Internal", "message": "ZeroDivisionError: division by zero"}
        await until(lambda: api.step["phase"] == "Staged")


async def test_a_disk_without_a_table_is_told_and_nothing_is_done_until_it_has_one(
    host: Host, api: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "BLIND_SECONDS", 0.02)
    async with agent(host, api) as task:
        await until(lambda: api.step.get("phase") == "Idle")
        host.look_fault = GptInvalidError("/dev/vda has no GPT: both copies are damaged")
        api.give()
        await until(lambda: api.step.get("error"))
        assert api.step["error"] == {"class": "Disk", "message": "/dev/vda has no GPT: both copies are damaged"}
        assert api.step["phase"] == "Idle"
        writes = len(api.writes)
        await asyncio.sleep(0.2)
        assert len(api.writes) == writes
        assert not task.done()
        host.look_fault = None
        await until(lambda: api.step["phase"] == "Staged")
        assert "error" not in api.step
