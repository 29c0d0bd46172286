"""A machine of 200 dies with its units: they run elsewhere soon after the grace period; nobody else is disturbed."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from careen.api.meta import AGENT_LEASE_PREFIX, AGENT_USER, OPERATOR_USER
from careen.kube.resources import LEASES
from careen.sandbox.audit import AuditReader
from careen.sandbox.controlplane import ControlPlane
from unit_fleets import create_units, find_wrongs, make_pair, make_rivals, make_unit, name_of
from unit_ledger import count_jobs, keep_ledger

MACHINES, UNITS = 200, 2000
RENEW_SECONDS = 10.0
SILENCE_SECONDS, GRACE_SECONDS = 30.0, 5.0
OPTIONS = ("--silence-seconds", str(SILENCE_SECONDS), "--unit-grace-seconds", str(GRACE_SECONDS))
WITHIN_SECONDS = 2.0
SETTLED_SECONDS = 5.0


def make_units():
    """30 groups of ten rivals, 200 pairs, two global ones, and plain ones."""
    units = [unit for group in range(30) for unit in make_rivals(f"web-{group}", 10)]
    units += [unit for number in range(200) for unit in make_pair(number)]
    units += [make_unit(f"everywhere-{number}.service", options=["Global=true"]) for number in (1, 2)]
    return units + [make_unit(f"plain-{number}.service") for number in range(UNITS - len(units))]


@pytest.mark.fleet
@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_the_units_of_a_machine_that_dies_run_elsewhere(stage, own_plane: ControlPlane) -> None:
    units = make_units()
    movable = {name_of(unit) for unit in units} - {"everywhere-1.service", "everywhere-2.service"}
    async with (
        stage(MACHINES, options=OPTIONS, renew_seconds=RENEW_SECONDS) as scene,
        keep_ledger(scene.fleet.machines, find_wrongs, look_seconds=0.05) as ledger,
    ):
        await create_units(scene.fleet.admin, units)
        await ledger.until(lambda: all(ledger.place(name) for name in movable), "all units run", 240)
        everywhere = "everywhere-1.service"
        await ledger.until(lambda: len(ledger.find(everywhere)) == MACHINES, f"{everywhere} on all", 60)
        await asyncio.sleep(SETTLED_SECONDS)
        dead = ledger.place("side-0.service")
        lost = {name for name in movable if ledger.place(name) == dead}
        assert len(lost) >= UNITS // MACHINES // 2
        before = count_jobs(machine for machine in scene.fleet.machines if machine.name != dead)

        audit = AuditReader(own_plane.audit_log)
        await scene.fleet.power_off(dead)
        ledger.dead.add(dead)
        await ledger.until(lambda: all(ledger.place(name) not in ("", dead) for name in lost), "all run again", 240)
        last = scene.witness.sightings(LEASES, f"{AGENT_LEASE_PREFIX}{dead}")[-1].at
        due = last + SILENCE_SECONDS + GRACE_SECONDS
        taken = {name: ledger.began[name, ledger.place(name)] - due for name in lost}
        await asyncio.sleep(SETTLED_SECONDS)
        gained = {ledger.place(name) for name in lost}
        after = count_jobs(machine for machine in scene.fleet.machines if machine.name != dead)
        requests = [request for request in audit.read() if request.is_write and request.group == "careen.dev"]
    print(f"{len(lost)} units, after the grace period: {min(taken.values()):.2f} to {max(taken.values()):.2f} s")
    print(Counter(f"{r.user.rpartition(':')[2]} {r.verb} {r.resource}/{r.subresource} {r.code}" for r in requests))
    assert min(taken.values()) >= -0.5, "moved before the grace period was over"
    assert max(taken.values()) <= WITHIN_SECONDS
    assert ledger.wrongs == []
    assert ledger.place("side-0.service") == ledger.place("db-0.service")
    told = {r.name for r in requests if (r.user, r.resource, r.subresource) == (OPERATOR_USER, "nodes", "")}
    assert told == gained | {dead}
    assert {r.name for r in requests if r.resource == "nodes"} == gained | {dead}
    assert {r.name for r in requests if r.user == AGENT_USER} == gained
    # Nothing else was started, stopped or restarted anywhere.
    fresh = {key for key, jobs in after.items() if before.get(key) != jobs}
    assert fresh == {(ledger.place(name), name) for name in lost}
    assert before.keys() - after.keys() == set()
