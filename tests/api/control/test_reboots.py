"""Reboots and resets that people ask for, and what may boot at all, with real objects and agents in memory."""

from __future__ import annotations

import asyncio

from careen.kube.resources import POLICIES
from careen.kube.write import delete


def outcome(scene, name, request):
    """What came of this request, once it is told."""
    told = scene.node(name).get("status", {}).get("request") or {}
    return told.get("outcome") if told.get("id") == request else None


async def ask(scene, name, request="r-1", action="Reboot"):
    await scene.edit_node(name, request={"action": action, "id": request})


async def test_machines_reboot_one_after_the_other_and_keep_their_release(stage):
    async with stage(3, lock=1) as scene:
        await scene.policy()
        await scene.complete()
        before = {name: scene.node(name)["status"] for name in scene.fleet.names}
        for name in scene.fleet.names:
            await ask(scene, name)
        await scene.until(lambda: all(outcome(scene, n, "r-1") == "Done" for n in scene.fleet.names), "all rebooted")
        await scene.until(lambda: not scene.holders(), "the lock is free")
        scene.check_tidy()
        for name, status in before.items():
            now = scene.node(name)["status"]
            assert now["bootID"] != status["bootID"]
            assert (now["slots"], now["booted"]) == (status["slots"], status["booted"])
        # Silent are agents that have not begun when the first sighting is made.
        down = [[why for why in moment.unavailable.values() if why != "silent"] for moment in scene.witness.replay()]
        assert max(map(len, down)) == 1
        assert scene.holds_true("Complete")


async def test_an_id_is_done_once(stage):
    async with stage(1) as scene:
        await ask(scene, "node-1")
        await scene.until(lambda: outcome(scene, "node-1", "r-1") == "Done", "it rebooted")
        boot = scene.node("node-1")["status"]["bootID"]
        await ask(scene, "node-1")
        await ask(scene, "node-1", "r-2", "Reset")
        await scene.until(lambda: outcome(scene, "node-1", "r-2") == "Done", "it was reset")
        assert scene.node("node-1")["status"]["bootID"] != boot
        assert [machine.host.resets for machine in scene.fleet.machines] == [1]
        assert [machine.boots for machine in scene.fleet.machines] == [2]


async def test_a_request_waits_behind_an_update_in_flight(stage):
    async with stage(1, boot_seconds=2.0) as scene:
        await scene.policy()
        await scene.until(lambda: scene.phase("node-1") == "Activating", "the update is in flight")
        update = scene.order("node-1")["id"]
        await ask(scene, "node-1")
        await scene.until(lambda: scene.version("node-1") == "2.0.0", "the update ends first")
        await scene.until(lambda: outcome(scene, "node-1", "r-1") == "Done", "then it reboots")
        assert scene.order("node-1")["id"] != update
        await scene.until(lambda: not scene.holders(), "the lock is free")


async def test_taken_back_in_time_nothing_reboots(stage):
    async with stage(1, lock=0) as scene:
        boot = scene.node("node-1")["status"]["bootID"]
        await ask(scene, "node-1")
        await scene.until(lambda: scene.note("node-1").get("reason") == "LockFull", "it waits for the lock")
        await scene.edit_node("node-1", request=None)
        await scene.until(lambda: scene.order("node-1").get("goal") == "Abort", "it is called off")
        await scene.edit_lock(max=1)
        await scene.until(lambda: scene.phase("node-1") == "Idle", "the agent has heard of it")
        await asyncio.sleep(1)
        assert scene.node("node-1")["status"]["bootID"] == boot


async def test_what_nothing_would_undo_waits_until_people_permit_it(stage):
    async with stage(1) as scene:
        scene.fleet.machines[0].host.deadman = "Missing"
        await scene.policy()
        await scene.until(lambda: scene.note("node-1").get("reason") == "NoDeadman", "it waits and says why")
        assert scene.phase("node-1") == "Staged"
        await ask(scene, "node-1")
        await scene.until(lambda: outcome(scene, "node-1", "r-1") == "Done", "a reboot is no trial")
        await scene.until(lambda: scene.note("node-1").get("reason") == "NoDeadman", "it waits again")
        await scene.edit_policy(boot={"allowNoDeadman": True})
        await scene.complete()
        await delete(scene.fleet.admin, POLICIES, "os")
