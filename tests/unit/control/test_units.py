"""Units in the operator's process: how long a machine has been silent, what is written and when, and what is logged."""

from __future__ import annotations

import asyncio
import json
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from careen.control import execute
from careen.control import loop as loop_module
from careen.control.decisions import describe_decision
from careen.control.execute import Executor
from careen.control.figures import Sight, read_figures
from careen.control.loop import Loop
from careen.control.settings import Settings
from careen.control.world import World
from careen.core.actions import SetUnits, WriteUnit
from careen.core.instants import format_instant
from unit_cluster import CONTENT, UNIT_WRITES, UnitCluster


@pytest.fixture
def cluster() -> UnitCluster:
    made = UnitCluster()
    made.add_machines(2)
    made.set_unit("a.service")
    return made


def writes(cluster: UnitCluster) -> list[Any]:
    return [action for action in cluster.plan().actions if isinstance(action, UNIT_WRITES)]


def test_the_grace_period_is_watched_from_end_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    session: Any = SimpleNamespace(clock=SimpleNamespace(now=lambda _: now[0]))
    world = World(session, Settings("me", unit_grace_seconds=7.0, unit_rebalance=2), lambda: None)
    leases = SimpleNamespace(live=True, live_since=1.0)
    monkeypatch.setattr(world, "leases", leases)

    def since() -> dict[str, float]:
        found = world.snapshot(term=1, busy=frozenset(), refusals={}, releases={})
        assert (found.unit_rules.grace_seconds, found.unit_rules.rebalance_budget) == (7.0, 2)
        return dict(found.silent_since)

    machine = SimpleNamespace(step=SimpleNamespace(id=""), phase="Idle", in_flight=False)
    world.machines._objects["", "m0"] = machine  # type: ignore[assignment]
    assert since() == {"m0": 1000.0}
    now[0] = 1005.0
    assert since() == {"m0": 1000.0}
    leases.live = False
    assert since() == {}, "who can't look can't tell how long"
    leases.live, leases.live_since = True, 2.0
    now[0] = 1006.0
    assert since() == {"m0": 1006.0}, "it may have spoken in the gap"
    now[0] = 1050.0
    world.begin_lead()
    assert since() == {"m0": 1050.0}, "it may have spoken between two leads of this process"
    world.silence.observe("m0", "x", 0.0, time.monotonic())
    leases.live_since = time.monotonic()
    assert since() == {}


def test_what_only_tells_reports_waits_and_a_decision_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(loop_module.time, "monotonic", lambda: clock.now)
    loop: Any = Loop(None, None, None, asyncio.Event())  # type: ignore[arg-type]
    decision, report = (WriteUnit("a", "u", "1", None, pace) for pace in (0.0, 1.0))  # type: ignore[arg-type]
    executor = SimpleNamespace(pressed=True)
    assert not loop._must_wait(decision, executor)
    assert loop._must_wait(report, executor)
    assert loop._deferred == 1001.0
    assert not loop._must_wait(decision, executor)
    assert not loop._must_wait(SetUnits("m1", "u", "1", ()), executor)
    clock.now += 1.0
    assert not loop._must_wait(report, executor)


async def test_decision_and_order_are_each_one_patch_under_their_preconditions(
    cluster: UnitCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, str, list[dict[str, Any]], str | None]] = []
    applied: list[Any] = []

    async def patch(
        _: Any, resource: Any, name: str, ops: list[dict[str, Any]], *, subresource: str | None = None
    ) -> dict[str, Any]:
        sent.append((resource.plural, name, ops, subresource))
        return {"answer": name}

    monkeypatch.setattr(execute.write, "patch_json", patch)
    store = SimpleNamespace(objects={("", "a.service"): cluster.units["a.service"]}, apply=applied.append)
    other = SimpleNamespace(objects={}, apply=applied.append)
    world: Any = SimpleNamespace(
        units=store, machines=other, cores=other, policies=other, locks=other, now=lambda: cluster.at
    )
    executor: Any = Executor(None, world, "me", wake=lambda: None, may_write=lambda: True)  # type: ignore[arg-type]
    for _ in range(2):
        for action in writes(cluster):
            executor.submit(action)
            cluster.apply(action)
        await asyncio.gather(*executor._running.values())
    assert [(plural, name, sub) for plural, name, _, sub in sent] == [
        ("units", "a.service", "status"),
        ("nodes", "m1", None),
    ]
    for _, _, ops, _ in sent:
        assert [op["op"] for op in ops[:2]] == ["test", "test"]
        assert [op["path"] for op in ops[:2]] == ["/metadata/uid", "/metadata/resourceVersion"]
    assert sent[0][2][2]["value"]["placements"][0]["node"] == "m1"
    assert sent[1][2][2]["path"] == "/spec/units"
    assert sent[1][2][2]["value"][0]["desiredState"] == "launched"
    assert len(applied) == 2, "the next plan sees them"


def test_the_log_says_where_a_unit_was_put_and_why(cluster: UnitCluster) -> None:
    (decision,) = writes(cluster)
    line = describe_decision(decision, {})
    assert line == {
        "decision": "WriteUnit", "unit": "a.service", "places": ["m1"], "reason": "Placed", "why": "on m1",
    }  # fmt: skip
    cluster.apply(decision)
    (order,) = writes(cluster)
    assert describe_decision(order, {}) == {"decision": "SetUnits", "node": "m1", "units": ["a.service launched"]}


def test_figures_say_what_conditions_say(cluster: UnitCluster) -> None:
    cluster.set_unit("b.service", options="MachineMetadata=disk=big")
    cluster.set_unit("g.service", options="Global=true")
    cluster.settle()
    cluster.set_unit("new.service")
    figures = read_figures(Sight(cluster.snapshot(), cluster.plan()), last_seen={})
    assert figures["careen_units"] == {("Placed",): 2, ("NoPlace",): 1, ("Unknown",): 1}
    assert figures["careen_unit_places"] == {("placed",): 3, ("loaded",): 3, ("active",): 3, ("failed",): 0}
    assert figures["careen_node_units"] == {("m1", "launched"): 2, ("m2", "launched"): 1}


class Server:
    """Objects that take JSON patches as the API server does: all tests first, and a new version for each write."""

    def __init__(self, world: World) -> None:
        self.stores = {"units": world.units, "nodes": world.machines}
        self.documents: dict[tuple[str, str], dict[str, Any]] = {}
        self.writes: list[tuple[str, str]] = []
        self.version = 100

    def put(self, plural: str, document: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        name = document["metadata"]["name"]
        meta = {"uid": f"uid-{name}", "generation": 1, **document["metadata"], "resourceVersion": str(self.version)}
        self.documents[plural, name] = {**document, "metadata": meta}
        self.stores[plural].apply(self.documents[plural, name])
        return self.documents[plural, name]

    async def patch(
        self, _: Any, resource: Any, name: str, ops: list[dict[str, Any]], *, subresource: str | None = None
    ) -> Any:
        await asyncio.sleep(0)
        document: dict[str, Any] = json.loads(json.dumps(self.documents[resource.plural, name]))
        for op in ops:
            *path, last = op["path"].strip("/").split("/")
            parent = document
            for key in path:
                parent = parent[key]
            if op["op"] == "test" and parent.get(last) != op["value"]:
                return execute.write.TestFailed("")
            if op["op"] == "add":
                parent[last] = op["value"]
        self.writes.append((resource.plural, name))
        return self.put(resource.plural, document)


async def test_loop_and_stores_place_a_unit_and_come_to_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    session: Any = SimpleNamespace(clock=SimpleNamespace(now=lambda _: time.time()))
    wake = asyncio.Event()
    world = World(session, Settings("me"), wake.set)
    server = Server(world)
    monkeypatch.setattr(execute.write, "patch_json", server.patch)
    core = {"name": "m1", "uid": "core-m1", "resourceVersion": "1"}
    world.cores.apply({"metadata": core, "status": {"nodeInfo": {"machineID": "id-1"}}})
    renewed = format_instant(time.time())
    lease = {"name": "agent-m1", "namespace": "careen-system", "uid": "l", "resourceVersion": "1"}
    world.leases.apply({"metadata": lease, "spec": {"renewTime": renewed}})
    node = server.put(
        "nodes",
        {
            "metadata": {"name": "m1"},
            "spec": {"coreNode": {"uid": "core-m1", "machineID": "id-1"}},
            "status": {"bootID": "b", "protocol": 1},
        },
    )
    server.put("units", {"metadata": {"name": "a.service"}, "spec": {"content": CONTENT, "desiredState": "launched"}})
    executor = Executor(session, world, "me", wake=wake.set, may_write=lambda: True)
    loop = Loop(session, world, cast("Any", SimpleNamespace(known=dict, want=lambda _: None)), wake)

    async def lap() -> None:
        for action in loop._plan(1, executor).plan.actions:
            if not loop._must_wait(action, executor):
                executor.submit(action)
        await asyncio.gather(*executor._running.values())

    for _ in range(4):
        await lap()
    assert server.writes == [("units", "a.service"), ("nodes", "m1")]
    (order,) = server.documents["nodes", "m1"]["spec"]["units"]
    assert (order["unit"], order["desiredState"]) == ("a.service", "launched")
    report = {"name": "a.service", "hash": order["hash"], "load": "loaded", "active": "active", "sub": "running"}
    node = server.documents["nodes", "m1"]
    server.put("nodes", {**node, "status": {**node["status"], "units": [{**report, "launched": True}]}})
    for _ in range(3):
        await lap()
    assert server.writes[2:] == [("units", "a.service")]
    assert server.documents["units", "a.service"]["status"]["currentState"] == "launched"
