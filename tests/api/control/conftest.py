"""A fleet in memory, an operator and a witness on the run's cluster, set up by one call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from careen.api.meta import NAMESPACE
from careen.kube.errors import AlreadyExists
from careen.kube.resources import CORE_NODES, LOCKS, NODES, PODS, POLICIES
from careen.kube.session import Session
from careen.kube.write import create, patch_merge
from careen.sandbox.cluster import Cluster
from careen.sandbox.fleet import Fleet, run_fleet
from careen.sandbox.witness import Witness, call_witness

Document = dict[str, Any]


@dataclass
class Scene:
    """What a test acts on and looks at."""

    fleet: Fleet
    witness: Witness

    def lock(self, name: str = "default") -> Document:
        return self.witness.live[LOCKS].get(name, {})

    def holders(self, name: str = "default") -> list[str]:
        return [holder["id"] for holder in self.lock(name).get("status", {}).get("holders") or ()]

    def node(self, name: str) -> Document:
        return self.witness.live[NODES].get(name, {})

    def core(self, name: str) -> Document:
        return self.witness.live[CORE_NODES].get(name, {})

    def order(self, name: str) -> Document:
        return self.node(name).get("spec", {}).get("assignment") or {}

    def step(self, name: str) -> Document:
        return self.node(name).get("status", {}).get("step") or {}

    def phase(self, name: str) -> str:
        """Phase of the machine's current order."""
        step = self.step(name)
        return step.get("phase", "") if step.get("id") == self.order(name).get("id") else ""

    def note(self, name: str) -> Document:
        return self.node(name).get("status", {}).get("orchestration") or {}

    def version(self, name: str) -> str:
        """Version that runs and is marked good; empty on trial."""
        status = self.node(name).get("status", {})
        slot = status.get("slots", {}).get(status.get("booted"), {})
        return slot.get("version", "") if slot.get("successful") else ""

    def condition(self, kind: str, policy: str = "os") -> Document:
        """A condition of the policy for its present generation; empty if there is none."""
        found = self.witness.live[POLICIES].get(policy, {})
        generation = found.get("metadata", {}).get("generation")
        conditions = found.get("status", {}).get("conditions") or ()
        mine = (each for each in conditions if each["type"] == kind and each.get("observedGeneration") == generation)
        return next(mine, {})

    def holds_true(self, kind: str, policy: str = "os") -> bool:
        return self.condition(kind, policy).get("status") == "True"

    async def until(self, check: Callable[[], Any], what: str, seconds: float = 90.0) -> Any:
        """Wait until a condition on what is seen holds."""
        try:
            return await self.witness.until(lambda _: check(), what, seconds)
        except TimeoutError as error:
            lines = [str(error), f"lock: {self.holders()}"]
            lines += [f"{n}: {self.order(n).get('goal')} {self.step(n)} {self.note(n)}" for n in self.fleet.names[:8]]
            policies = self.witness.live[POLICIES].values()
            lines += [str(policy.get("status", {}).get("conditions")) for policy in policies]
            raise AssertionError("\n".join(lines)) from None

    async def policy(self, name: str = "os", version: str = "2.0.0", **spec: Any) -> None:
        """Create a policy; `spec` adds to it."""
        body = {"release": {"repository": self.fleet.repository, "version": version}, **spec}
        await create(self.fleet.admin, POLICIES, {"metadata": {"name": name}, "spec": body})

    async def edit_policy(self, name: str = "os", **spec: Any) -> None:
        await patch_merge(self.fleet.admin, POLICIES, name, {"spec": spec})

    async def edit_node(self, name: str, **spec: Any) -> None:
        """Set fields of a careen Node's spec as people do."""
        await patch_merge(self.fleet.admin, NODES, name, {"spec": spec})

    async def edit_lock(self, **spec: Any) -> None:
        await patch_merge(self.fleet.admin, LOCKS, "default", {"spec": spec})

    async def complete(self, policy: str = "os", seconds: float = 90.0) -> None:
        """Wait for Complete, then check that nothing of ours stays behind."""
        await self.until(lambda: self.holds_true("Complete", policy), f"policy {policy} is Complete", seconds)
        self.check_tidy()

    def check_tidy(self) -> None:
        """No lock is held by the operator, no cordon and no mark is left."""
        assert self.holders() == []
        for core in self.witness.live[CORE_NODES].values():
            assert not core.get("spec", {}).get("unschedulable"), core["metadata"]["name"]
            assert "careen.dev/cordoned" not in core["metadata"].get("annotations", {})


Stage = Callable[..., AbstractAsyncContextManager[Scene]]


@pytest.fixture
def stage(plane: Cluster) -> Stage:
    """Makes a scene: machines that have reported, a lock, and an operator unless it is told not to start one.

    options: further options of `careen operator`.
    """

    @asynccontextmanager
    async def make(
        count: int,
        *,
        lock: int = 1,
        boot_seconds: float = 0.3,
        operator: bool = True,
        lease_seconds: float = 15.0,
        options: Sequence[str] = (),
        **kw: Any,
    ) -> AsyncIterator[Scene]:
        async with run_fleet(count, boot_seconds=boot_seconds, cluster=plane, **kw) as fleet:
            await set_lock(fleet.admin, lock)
            async with call_witness(fleet.admin, NAMESPACE) as witness:
                scene = Scene(fleet, witness)
                if operator:
                    program = ("-m", "careen", "operator", *options)
                    fleet.start_operator(lease_seconds=lease_seconds, identity="one", program=program)
                    await ready(scene)
                yield scene

    return make


async def set_lock(session: Session, most: int) -> None:
    """Make the default lock, which only the first test of a run finds there, or set its size."""
    try:
        await create(session, LOCKS, {"metadata": {"name": "default"}, "spec": {"max": most}})
    except AlreadyExists:
        await patch_merge(session, LOCKS, "default", {"spec": {"max": most}})


async def ready(scene: Scene) -> None:
    """Wait until an operator has made all Nodes and their agents have spoken."""
    names = scene.fleet.names
    await scene.until(lambda: all(scene.node(name).get("status", {}).get("bootID") for name in names), "agents report")
    await scene.until(
        lambda: all(
            any(c["type"] == "Ready" and c["status"] == "True" for c in scene.core(n)["status"]["conditions"])
            for n in names
        ),
        "core Nodes are Ready",
    )


@pytest.fixture
def make_lock() -> Callable[[Session, int], Awaitable[None]]:
    """Makes the default lock with a size."""
    return set_lock


@pytest.fixture
def make_pod(namespace: str) -> Callable[[Scene, str, str], Awaitable[None]]:
    """Makes a pod on a machine and waits until it is Ready: something to drain, with its name as the label app."""

    async def make(scene: Scene, name: str, node: str) -> None:
        body = {
            "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
            "spec": {
                "nodeName": node,
                "containers": [{"name": "main", "image": "example.invalid/main"}],
                "terminationGracePeriodSeconds": 1,
            },
        }
        await create(scene.fleet.admin, PODS, body)
        async with asyncio.timeout(60):
            while True:
                pod = (await scene.fleet.admin.request("GET", PODS.path(namespace, name))).body
                if any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions") or ()):
                    return
                await asyncio.sleep(0.1)

    return make
