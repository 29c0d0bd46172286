"""The leader is killed in the middle of a roll, and the other operator of the chart goes on in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from careen.api.meta import LEADER_LEASE
from careen.kube.resources import LEASES, LOCKS, NODES, POLICIES
from careen.kube.write import create, patch_merge
from careen.sandbox.controlplane import ControlPlane
from careen.sandbox.fleet import run_fleet
from careen.sandbox.processes import Child
from careen.sandbox.witness import Witness, call_witness
from helm import NAMESPACE

MACHINES, AT_ONCE, LEASE_SECONDS = 8, 2, 5.0
SLACK_SECONDS = 2.0


@pytest.mark.slow
async def test_the_second_operator_grants_the_next_machine_in_time(
    installed, plane: ControlPlane, run_operators: Callable[[Path], list[Child]]
) -> None:
    async with (
        run_fleet(MACHINES, boot_seconds=1.0, cluster=plane) as fleet,
        call_witness(fleet.admin, NAMESPACE) as witness,
    ):
        await patch_merge(fleet.admin, LOCKS, "default", {"spec": {"max": AT_ONCE}})
        operators = {child.name: child for child in await asyncio.to_thread(run_operators, fleet.trust_root)}
        assert len(operators) == 2
        await witness.until(lambda seen: has_reports(seen, fleet.names), "all machines report")
        strategy = {"maxUnavailable": AT_ONCE, "maxStaging": MACHINES}
        release = {"repository": fleet.repository, "version": "2.0.0"}
        spec = {"release": release, "strategy": strategy, "readySeconds": 1}
        await create(fleet.admin, POLICIES, {"metadata": {"name": "os"}, "spec": spec})
        await witness.until(lambda seen: len(granted(seen)) >= 3, "three machines are granted")
        leader = next(child for name, child in operators.items() if read_leader(witness).startswith(name))
        before = granted(witness)
        leader.process.kill()
        killed = time.monotonic()
        await witness.until(lambda seen: set(granted(seen)) - set(before), "the other operator grants", 60)
        first = min(at for name, at in granted(witness).items() if name not in before and at > killed)
        took = first - killed
        print(f"granted {took:.2f} s after the leader's death (lease: {LEASE_SECONDS:g} s)")
        assert took <= LEASE_SECONDS + SLACK_SECONDS
        await witness.until(is_complete, "all machines are updated", 120)
        assert max(len(moment.unavailable) for moment in witness.replay()) <= AT_ONCE
        assert max(len(moment.holders["default"]) for moment in witness.replay()) <= AT_ONCE


def has_reports(seen: Witness, names: list[str]) -> bool:
    return all(seen.live[NODES].get(name, {}).get("status", {}).get("bootID") for name in names)


def granted(seen: Witness) -> dict[str, float]:
    """Machines that have held the lock, and when each was first seen to."""
    found: dict[str, float] = {}
    for sighting in seen.sightings(LOCKS, "default"):
        for holder in ((sighting.document or {}).get("status") or {}).get("holders") or ():
            found.setdefault(holder["id"], sighting.at)
    return found


def read_leader(seen: Witness) -> str:
    return seen.live[LEASES].get(LEADER_LEASE, {}).get("spec", {}).get("holderIdentity") or ""


def is_complete(seen: Witness) -> bool:
    conditions = seen.live[POLICIES].get("os", {}).get("status", {}).get("conditions") or ()
    return any(each["type"] == "Complete" and each["status"] == "True" for each in conditions)
