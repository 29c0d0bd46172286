"""The operator is killed again and again in the middle of a roll; the limits hold and nothing is left behind."""

from __future__ import annotations

import asyncio
import random

import pytest

from careen.api.meta import LEADER_LEASE
from careen.kube.resources import LEASES
from careen.sandbox.processes import Child

KILLS = 20
MACHINES = 30
AT_ONCE = 3
LEASE_SECONDS = 3.0


@pytest.mark.slow
async def test_twenty_kills_never_cost_more_machines_than_allowed(stage):
    dice = random.Random(20)
    async with stage(MACHINES, lock=AT_ONCE, boot_seconds=1.0, lease_seconds=LEASE_SECONDS) as scene:
        fleet, started = scene.fleet, 1
        running: dict[str, Child] = {"one": fleet.operators[0]}

        def start() -> None:
            nonlocal started
            started += 1
            running[f"operator-{started}"] = fleet.start_operator(
                lease_seconds=LEASE_SECONDS, identity=f"operator-{started}"
            )

        async def find_leader(before: str) -> str:
            """The process that leads in a later term than `before` did."""
            return await scene.until(
                lambda: leader if (leader := read_leader(scene)) in running and leader != before else None,
                f"one of {sorted(running)} leads",
            )

        # A trial takes two leaders' time, so that the roll is not over before the last kill.
        await scene.policy(strategy={"maxUnavailable": AT_ONCE, "maxStaging": MACHINES}, readySeconds=2)
        start()
        killed = ""
        for _ in range(KILLS):
            leader = await find_leader(killed)
            await asyncio.sleep(dice.uniform(0.0, 1.2))
            assert not scene.holds_true("Complete"), "the roll was over before the last kill"
            child = running.pop(leader)
            child.process.kill()
            await asyncio.to_thread(child.process.wait)
            killed = leader
            # Two replicas most of the time; now and then nobody is left, and one begins from nothing.
            replicas = dice.choice((1, 2, 2))
            while len(running) < replicas:
                start()
        await scene.complete(seconds=150)
        assert [scene.version(name) for name in fleet.names] == ["2.0.0"] * MACHINES
        assert [machine.boots for machine in fleet.machines] == [1] * MACHINES
        await asyncio.sleep(0.5)
        scene.check_tidy()
        peak = max(len(moment.unavailable) for moment in scene.witness.replay())
        assert peak == AT_ONCE, "fewer would mean that nothing was tried"
        assert max(len(moment.holders["default"]) for moment in scene.witness.replay()) == AT_ONCE
        terms = [moment.terms["default"] for moment in scene.witness.replay()]
        assert terms == sorted(terms)
        assert terms[-1] > KILLS


def read_leader(scene) -> str:
    """Who holds the leader's Lease."""
    lease = scene.witness.live[LEASES].get(LEADER_LEASE, {})
    return lease.get("spec", {}).get("holderIdentity") or ""
