"""Rules of the ladder and of the decision that only a real API server can show, one test each."""

from __future__ import annotations

import asyncio

import pytest

from careen.api.meta import NAMESPACE
from careen.cli.main import run
from careen.kube.resources import CONFIGMAPS, CORE_NODES, EVENTS, LOCKS, NODES, PDBS, POLICIES
from careen.kube.write import create, delete
from careen.sandbox.memory import MemoryFault

ZONE = "topology.kubernetes.io/zone"


@pytest.fixture
def guard(namespace, make_pod):
    """Puts a pod onto node-1 that a disruption budget keeps there; returns how to let it go."""

    async def make(scene):
        await make_pod(scene, "app", "node-1")
        admin, selector = scene.fleet.admin, {"matchLabels": {"app": "app"}}
        body = {"metadata": {"name": "app-budget", "namespace": namespace}}
        await create(admin, PDBS, {**body, "spec": {"minAvailable": 1, "selector": selector}})
        async with asyncio.timeout(60):
            while not (await read_budget(admin)).get("status", {}).get("expectedPods"):
                await asyncio.sleep(0.1)
        return lambda: delete(admin, PDBS, "app-budget", namespace=namespace)

    async def read_budget(admin):
        return (await admin.request("GET", PDBS.path(namespace, "app-budget"))).body

    return make


async def careen(scene, *words):
    """Run the command line in a thread; it must succeed."""
    assert await asyncio.to_thread(run, "careen", ["--kubeconfig", str(scene.fleet.plane.kubeconfig), *words]) == 0


async def read_events(scene, reason):
    events = (await scene.fleet.admin.request("GET", EVENTS.path("default"))).body["items"]
    return [event["note"] for event in events if event["reason"] == reason]


def count_peak(scene):
    return max(len(moment.unavailable) for moment in scene.witness.replay())


async def test_a_drain_that_a_budget_refuses_names_pod_and_budget(stage, guard, namespace):
    async with stage(1) as scene:
        let_go = await guard(scene)
        await scene.policy()
        await scene.until(lambda: scene.note("node-1").get("reason") == "DisruptionBudget", "the note says it")
        assert f"pod {namespace}/app " in scene.note("node-1")["message"]
        assert "app-budget" in scene.note("node-1")["message"]
        assert scene.core("node-1")["spec"]["unschedulable"]
        async with asyncio.timeout(30):
            while not (told := await read_events(scene, "DisruptionBudget")):
                await asyncio.sleep(0.1)
        assert f"pod {namespace}/app " in told[0]
        await let_go()
        await scene.complete()


async def test_a_drain_that_does_not_end_gives_the_lock_back(stage, guard):
    async with stage(2) as scene:
        let_go = await guard(scene)
        await scene.policy(drain={"timeoutSeconds": 2, "retrySeconds": 5})
        await scene.until(lambda: scene.note("node-1").get("reason") == "DrainTimeout", "the note says it")
        assert "did not end in 2 s" in scene.note("node-1")["message"]
        await scene.until(lambda: "node-1" not in scene.holders(), "the lock is given back")
        # Meanwhile another machine may use the lock, and this one is in nobody's way.
        await scene.until(lambda: scene.version("node-2") == "2.0.0", "the other one is updated")
        assert scene.fleet["node-1"].boots == 0
        await let_go()
        await scene.complete()


async def test_a_pause_during_the_drain_gives_the_lock_back(stage, guard):
    async with stage(1) as scene:
        let_go = await guard(scene)
        await scene.policy()
        await scene.until(lambda: scene.note("node-1").get("state") == "Draining", "the drain has begun")
        await scene.edit_policy(paused=True)
        await scene.until(lambda: not scene.holders(), "the lock is free")
        scene.check_tidy()
        assert scene.order("node-1")["goal"] == "Abort"
        assert scene.order("node-1")["cause"] == "Withdrawn"
        await let_go()
        await scene.edit_policy(paused=False)
        await scene.complete()
        assert scene.fleet["node-1"].boots == 1


async def test_two_policies_for_one_machine_leave_it_alone(stage):
    async with stage(2, lock=2) as scene:
        await scene.edit_lock(max=0)
        await scene.policy("os")
        await scene.until(lambda: scene.phase("node-1") == "Staged", "it is staged")
        await scene.policy("other", version="3.0.0")
        for name in ("os", "other"):
            await scene.until(lambda n=name: scene.holds_true("PolicyConflict", n), f"{name} shows the conflict")
            assert "os, other" in scene.condition("PolicyConflict", name)["message"]
        await scene.edit_lock(max=2)
        await asyncio.sleep(1.0)
        assert scene.holders() == []
        assert scene.order("node-1")["goal"] == "Stage", "the order stays as it is"
        await delete(scene.fleet.admin, POLICIES, "other")
        await scene.complete()


async def test_without_its_lock_a_policy_starts_nothing(stage):
    async with stage(1) as scene:
        await scene.policy(strategy={"lock": "other"})
        await scene.until(lambda: scene.condition("Waiting").get("reason") == "LockMissing", "the condition says it")
        assert "RebootLock other does not exist" in scene.condition("Waiting")["message"]
        await create(scene.fleet.admin, LOCKS, {"metadata": {"name": "other"}, "spec": {"max": 1}})
        await scene.complete()


async def test_control_plane_machines_go_one_at_a_time(stage):
    def label(manifest):
        manifest["metadata"]["labels"]["node-role.kubernetes.io/control-plane"] = ""

    async with stage(3, lock=3, change=label) as scene:
        await scene.policy(strategy={"maxUnavailable": 3})
        await scene.complete()
        assert count_peak(scene) == 1


async def test_of_each_zone_no_more_than_its_budget_goes_down(stage):
    async with stage(6, zones=2, lock=6, boot_seconds=1.0) as scene:
        zones = {name: scene.core(name)["metadata"]["labels"][ZONE] for name in scene.fleet.names}
        await scene.policy(strategy={"maxUnavailable": 6, "topology": [{"key": ZONE, "maxUnavailable": 1}]})
        await scene.complete()
        for moment in scene.witness.replay():
            down = [zones[name] for name in moment.unavailable]
            assert len(down) == len(set(down)), moment
        assert count_peak(scene) == 2, "both zones move together"


async def test_a_broken_machine_goes_first_and_costs_nothing_more(stage):
    async with stage(4) as scene:
        broken = scene.fleet["node-3"]
        broken.broken = True
        await broken.report_ready(True)
        await scene.until(lambda: scene.core("node-3")["status"]["conditions"][0]["status"] == "False", "it is broken")
        await scene.policy()
        await scene.until(scene.holders, "the first grant")
        broken.broken = False  # The new OS cures it.
        await scene.complete()
        grants = [lock.get("status", {}).get("holders") for lock in scene.witness.history(LOCKS, "default")]
        assert next(holders for holders in grants if holders)[0]["id"] == "node-3"
        assert count_peak(scene) == 1


async def test_a_node_made_again_during_a_trial_gets_its_order_again(stage):
    async with stage(1) as scene:
        machine = scene.fleet["node-1"]
        machine.host.faults["2.0.0"] = MemoryFault.NOT_READY
        await scene.policy()
        await scene.until(lambda: scene.phase("node-1") == "Verifying", "the trial runs")
        order, uid = scene.order("node-1")["id"], scene.node("node-1")["metadata"]["uid"]
        await delete(scene.fleet.admin, NODES, "node-1")
        await scene.until(lambda: scene.node("node-1").get("metadata", {}).get("uid", uid) != uid, "made again")
        await scene.until(lambda: scene.order("node-1").get("id") == order, "the same order is issued again")
        assert scene.order("node-1")["goal"] == "Activate"
        assert scene.holders() == ["node-1"]
        machine.host.faults.clear()
        await machine.report_ready(True)
        await scene.complete()
        assert machine.boots == 1


async def test_a_lock_made_again_holds_the_machines_in_flight_before_any_grant(stage):
    async with stage(4, lock=2) as scene:
        for machine in scene.fleet.machines:
            machine.may_boot.clear()
        await scene.policy(strategy={"maxUnavailable": 4})
        await scene.until(lambda: len(scene.holders()) == 2, "two hold")
        down = scene.holders()
        await scene.until(lambda: all(scene.phase(name) == "Activating" for name in down), "both are down")
        uid = scene.lock()["metadata"]["uid"]
        await delete(scene.fleet.admin, LOCKS, "default")
        await asyncio.sleep(0.5)
        await create(scene.fleet.admin, LOCKS, {"metadata": {"name": "default"}, "spec": {"max": 2}})
        await scene.until(scene.holders, "the new lock has holders")
        for machine in scene.fleet.machines:
            machine.may_boot.set()
        await scene.complete()
        again = [lock for lock in scene.witness.history(LOCKS, "default") if lock["metadata"]["uid"] != uid]
        first = next(found for lock in again if (found := lock.get("status", {}).get("holders")))
        assert [holder["id"] for holder in first] == down
        assert count_peak(scene) == 2


async def test_an_aborted_machine_goes_back_and_is_tried_again_when_asked(stage):
    async with stage(1) as scene:
        machine = scene.fleet["node-1"]
        machine.host.faults["2.0.0"] = MemoryFault.NOT_READY
        await scene.policy()
        await scene.until(lambda: scene.phase("node-1") == "Verifying", "the trial runs")
        await careen(scene, "abort", "node-1")
        await scene.until(lambda: scene.phase("node-1") == "RolledBack", "it goes back")
        assert scene.step("node-1")["cause"] == "People"
        await scene.until(lambda: not scene.holders(), "the lock is free")
        await scene.until(lambda: scene.note("node-1").get("reason") == "ReleaseRejected", "the release is rejected")
        scene.check_tidy()
        assert not scene.holds_true("Halted"), "people's wish is no failure"
        assert scene.version("node-1") == "1.0.0"
        machine.host.faults.clear()
        await careen(scene, "retry", "node-1")
        await scene.complete()
        assert scene.version("node-1") == "2.0.0"


async def test_a_failure_halts_the_rollout_until_people_resume_it(stage):
    async with stage(2) as scene:
        for machine in scene.fleet.machines:
            machine.host.faults["2.0.0"] = MemoryFault.PANIC
        await scene.policy()
        await scene.until(lambda: scene.holds_true("Halted"), "the rollout halts")
        bad = next(name for name in scene.fleet.names if scene.fleet[name].boots)
        good = next(name for name in scene.fleet.names if name != bad)
        assert f"{bad} (Panic)" in scene.condition("Halted")["message"]
        await scene.until(lambda: not scene.holders(), "the lock is free")
        await scene.until(lambda: scene.note(good).get("reason") == "RolloutHalted", "the other one says why it waits")
        assert scene.fleet[good].boots == 0
        scene.check_tidy()
        scene.fleet[good].host.faults.clear()
        await careen(scene, "resume", "os")
        await scene.until(lambda: scene.version(good) == "2.0.0", "the rollout goes on")
        assert scene.version(bad) == "1.0.0"
        scene.fleet[bad].host.faults.clear()
        await careen(scene, "retry", bad)
        await scene.complete()


async def test_the_switch_stops_the_whole_cluster(stage):
    async with stage(1) as scene:
        switch = {"metadata": {"name": "careen-switch", "namespace": NAMESPACE}, "data": {"paused": "true"}}
        await create(scene.fleet.admin, CONFIGMAPS, switch)
        await asyncio.sleep(0.5)
        await scene.policy()
        await scene.until(lambda: scene.condition("Waiting").get("reason") == "ClusterPaused", "the condition says it")
        assert scene.order("node-1") == {}
        await delete(scene.fleet.admin, CONFIGMAPS, "careen-switch", namespace=NAMESPACE)
        await scene.complete()


async def test_kubectl_wait_waits_for_the_release_just_asked_for(stage):
    async with stage(2, lock=2) as scene:
        words = ("wait", "--for=condition=Complete", "updatepolicy/os", "--timeout=90s")
        await scene.policy(strategy={"maxUnavailable": 2})
        for version in ("2.0.0", "3.0.0"):
            await scene.edit_policy(release={"version": version})
            await asyncio.to_thread(scene.fleet.plane.kubectl, *words)
            running = [machine.host.slots[machine.host.booted].version for machine in scene.fleet.machines]
            assert running == [version] * 2


async def test_a_machine_that_is_gone_frees_its_lock(stage):
    async with stage(2) as scene:
        for machine in scene.fleet.machines:
            machine.may_boot.clear()
        await scene.policy()
        await scene.until(scene.holders, "one holds")
        (gone,) = scene.holders()
        (left,) = set(scene.fleet.names) - {gone}
        await scene.until(lambda: scene.phase(gone) == "Activating", "it is down")
        await scene.fleet.power_off(gone)
        await delete(scene.fleet.admin, CORE_NODES, gone)
        await scene.until(lambda: not scene.node(gone), "its careen Node is deleted")
        await scene.until(lambda: scene.holders() == [left], "the other one's turn comes")
        scene.fleet[left].may_boot.set()
        await scene.complete()
