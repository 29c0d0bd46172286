"""Every alert, live: something goes wrong, the alert fires, and it clears when that is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from careen.cli.main import run
from careen.disk.types import Attributes, SlotName
from careen.kube.errors import ApiError
from careen.kube.resources import CORE_NODES, LOCKS, NODES, PDBS, PODS, POLICIES
from careen.kube.write import create, delete, patch_merge
from careen.sandbox.controlplane import ControlPlane
from careen.sandbox.fleet import Fleet, run_fleet
from careen.sandbox.memory import MemoryFault
from careen.sandbox.processes import stop
from dashboard.files import ALERTS, shorten_rules
from dashboard.prometheus import Labels, Prometheus, find_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.asyncio(loop_scope="module")]
MACHINES = 2
PATIENCE = 90.0
SILENCE = 6


@dataclass
class Scene:
    """A fleet, its operator, and the Prometheus that watches it."""

    fleet: Fleet
    prometheus: Prometheus
    port: int

    def start_operator(self, identity: str) -> None:
        options = ("--metrics-port", str(self.port), "--node-metrics", "--silence-seconds", str(SILENCE))
        program = ("-m", "careen", "operator", *options, "--resolve-seconds", "1")
        self.fleet.start_operator(identity=identity, lease_seconds=10.0, program=program, log_level="info")

    async def until(self, check: Callable[[], Any], what: str) -> Any:
        """Wait until a question to Prometheus or the API server has an answer."""
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    found = await asyncio.to_thread(check)
                    if found:
                        return found
                    await asyncio.sleep(0.3)
        except TimeoutError:
            fires = await asyncio.to_thread(self.prometheus.find_alerts)
            raise AssertionError(f"{what}; firing: {fires}") from None

    async def fires(self, alert: str) -> Labels:
        found = await self.until(lambda: self.prometheus.find_alerts().get(alert), f"{alert} does not fire")
        return dict(found[0])

    async def clears(self, *alerts: str) -> None:
        def check() -> bool:
            return not set(alerts) & set(self.prometheus.find_alerts())

        await self.until(check, f"{alerts} do not clear")

    async def policy(self, name: str = "os", version: str = "2.0.0", **spec: Any) -> None:
        release = {"repository": self.fleet.repository, "version": version}
        await create(self.fleet.admin, POLICIES, {"metadata": {"name": name}, "spec": {"release": release, **spec}})

    async def edit(self, **spec: Any) -> None:
        await patch_merge(self.fleet.admin, POLICIES, "os", {"spec": spec})

    async def complete(self) -> None:
        expression = 'careen_policy_condition{policy="os",condition="Complete"} == 1'
        await self.until(lambda: self.prometheus.query(expression), "the policy does not become Complete")

    async def careen(self, *words: str) -> None:
        words = ("--kubeconfig", str(self.fleet.plane.kubeconfig), *words)
        assert await asyncio.to_thread(run, "careen", list(words)) == 0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    port = find_port()
    folder: Path = tmp_path_factory.mktemp("prometheus")
    rules = shorten_rules(ALERTS.read_text(encoding="utf-8"))
    async with run_fleet(MACHINES, boot_seconds=0.3, renew_seconds=1.0, cluster=plane) as fleet:
        try:
            await create(fleet.admin, LOCKS, {"metadata": {"name": "default"}, "spec": {"max": 1}})
        except ApiError:
            await patch_merge(fleet.admin, LOCKS, "default", {"spec": {"max": 1}})
        with Prometheus(folder, {"careen-operator": [port]}, rules) as prometheus:
            yield Scene(fleet, prometheus, port)


async def test_operator_absent(scene: Scene) -> None:
    assert (await scene.fires("CareenOperatorAbsent"))["severity"] == "critical"
    scene.start_operator("one")
    await scene.clears("CareenOperatorAbsent")


async def test_rollout_waits_and_is_stuck_for_a_lock_that_is_missing(scene: Scene) -> None:
    await scene.policy(strategy={"lock": "other"})
    assert (await scene.fires("CareenRolloutWaiting"))["policy"] == "os"
    assert (await scene.fires("CareenRolloutStuck"))["policy"] == "os"
    await scene.edit(strategy={"lock": "default"})
    await scene.complete()
    await scene.clears("CareenRolloutWaiting", "CareenRolloutStuck")


async def test_release_metadata_expires_soon(scene: Scene) -> None:
    # Shortened rules call any end near; it ends to be one when nobody asks for the repository.
    assert (await scene.fires("CareenReleaseMetadataExpiring"))["repository"] == scene.fleet.repository
    await delete(scene.fleet.admin, POLICIES, "os")
    await scene.clears("CareenReleaseMetadataExpiring")
    await scene.policy()
    await scene.complete()


async def test_a_panic_halts_rolls_back_and_rejects(scene: Scene) -> None:
    for machine in scene.fleet.machines:
        machine.host.faults["3.0.0"] = MemoryFault.PANIC
    await scene.edit(release={"version": "3.0.0"})
    assert (await scene.fires("CareenRolledBack"))["cause"] == "Panic"
    assert (await scene.fires("CareenPolicyHalted"))["policy"] == "os"
    assert (await scene.fires("CareenReleaseRejected"))["policy"] == "os"
    for machine in scene.fleet.machines:
        machine.host.faults.clear()
    for machine in scene.fleet.machines:
        if machine.host.journal and machine.host.journal.rejected:
            await scene.careen("retry", machine.name)
    await scene.careen("resume", "os")
    await scene.complete()
    await scene.clears("CareenRolledBack", "CareenPolicyHalted", "CareenReleaseRejected")


async def test_a_drain_is_blocked_and_its_lock_held_for_long(scene: Scene) -> None:
    admin = scene.fleet.admin
    labels = {"app": "guarded"}
    spec = {
        "nodeName": "node-1",
        "containers": [{"name": "main", "image": "example.invalid/main"}],
        "terminationGracePeriodSeconds": 1,
    }
    meta = {"name": "guarded", "namespace": "default"}
    await create(admin, PODS, {"metadata": meta | {"labels": labels}, "spec": spec})
    await create(admin, PDBS, {"metadata": meta, "spec": {"minAvailable": 1, "selector": {"matchLabels": labels}}})
    await scene.edit(release={"version": "4.0.0"})
    blocked = await scene.fires("CareenDrainBlocked")
    assert (blocked["node"], blocked["pod_namespace"], blocked["budget"]) == ("node-1", "default", "guarded")
    held = await scene.fires("CareenLockHeldTooLong")
    assert (held["lock"], held["holder"], held["by"]) == ("default", "node-1", "operator")
    await delete(admin, PDBS, "guarded", namespace="default")
    await scene.complete()
    await scene.clears("CareenDrainBlocked", "CareenLockHeldTooLong")


async def test_a_release_that_is_nowhere(scene: Scene) -> None:
    body = {
        "selector": {"matchLabels": {"nobody": "here"}},
        "release": {"repository": f"http://127.0.0.1:{find_port()}", "version": "1.0.0"},
    }
    await create(scene.fleet.admin, POLICIES, {"metadata": {"name": "nowhere"}, "spec": body})
    found = await scene.fires("CareenReleaseUnresolved")
    assert (found["policy"], found["reason"]) == ("nowhere", "ReleaseUnavailable")
    await delete(scene.fleet.admin, POLICIES, "nowhere")
    await scene.clears("CareenReleaseUnresolved")


async def test_slots_that_somebody_has_changed(scene: Scene) -> None:
    host = scene.fleet["node-1"].host
    other = host.booted.other
    before = host.slots[other]
    await change_slot(scene, other, Attributes(9, 0, True))
    assert (await scene.fires("CareenSlotUnsound"))["problem"] == "OtherSlotNext"
    await change_slot(scene, other, before.attributes)
    await scene.clears("CareenSlotUnsound")


async def change_slot(scene: Scene, slot: SlotName, attributes: Attributes) -> None:
    """Change a slot behind the agent's back, and give it a reason to look."""
    host = scene.fleet["node-1"].host
    host.slots[slot] = replace(host.slots[slot], attributes=attributes)
    metadata = {"annotations": {"test/look": str(attributes)}}
    await patch_merge(scene.fleet.admin, NODES, "node-1", {"metadata": metadata})


async def test_an_agent_falls_silent(scene: Scene) -> None:
    await scene.fleet.power_off("node-2")
    await scene.fires("CareenAgentSilent")
    scene.fleet.power_on("node-2")
    await scene.clears("CareenAgentSilent")


async def test_another_operator_takes_over_what_a_dead_one_showed(scene: Scene) -> None:
    await asyncio.to_thread(stop, scene.fleet.operators, 10.0)
    await scene.fires("CareenOperatorAbsent")
    scene.start_operator("two")
    await scene.clears("CareenOperatorAbsent")
    nodes = len(scene.fleet.machines)
    await scene.until(lambda: total(scene, "sum(careen_nodes)") == nodes, "the new leader does not show the fleet")


async def test_what_is_deleted_leaves_no_series(scene: Scene) -> None:
    await delete(scene.fleet.admin, POLICIES, "os")
    await scene.fleet.power_off("node-2")
    await delete(scene.fleet.admin, CORE_NODES, "node-2")
    await create(scene.fleet.admin, LOCKS, {"metadata": {"name": "spare"}, "spec": {"max": 1}})
    await scene.until(lambda: total(scene, 'careen_lock_slots{lock="spare"}') == 1, "the new lock is not shown")
    await delete(scene.fleet.admin, LOCKS, "spare")
    for label in ('policy="os"', 'node="node-2"', 'lock="spare"'):
        gone = f'{{__name__=~"careen_.*",{label}}}'
        await scene.until(lambda q=gone: not scene.prometheus.query(q), f"series are left of {label}")


def total(scene: Scene, expression: str) -> float:
    samples = scene.prometheus.query(expression)
    return float(samples[0]["value"][1]) if samples else 0.0
