"""The API server is away for longer than any patience of ours: no unit of 50 machines stops or starts for it."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from careen.api.meta import OPERATOR_USER
from careen.kube.resources import UNITS
from careen.sandbox.audit import AuditReader
from careen.sandbox.controlplane import ControlPlane
from unit_fleets import create_units, make_rivals, make_unit, name_of
from unit_ledger import count_jobs, keep_ledger

MACHINES, COUNT = 50, 250
RENEW_SECONDS = 3.0
SILENCE_SECONDS, GRACE_SECONDS = 12.0, 8.0
OPTIONS = ("--silence-seconds", str(SILENCE_SECONDS), "--unit-grace-seconds", str(GRACE_SECONDS))
AWAY_SECONDS = 120.0
"""More than silence and grace together: who trusted the age of a Lease would move all units when it is back. Two
minutes at the operator's defaults are less than that."""


async def read_places(scene):
    items = (await scene.fleet.admin.request("GET", UNITS.path())).body["items"]
    return {name_of(item): [place["node"] for place in item["status"].get("placements") or ()] for item in items}


@pytest.mark.fleet
@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_nothing_happens_to_units_while_the_api_server_is_away(stage, own_plane: ControlPlane) -> None:
    units = [unit for group in range(10) for unit in make_rivals(f"web-{group}", 10)]
    units.append(make_unit("everywhere.service", options=["Global=true"]))
    units += [make_unit(f"plain-{number}.service") for number in range(COUNT - len(units))]
    names = {name_of(unit) for unit in units}
    async with (
        stage(MACHINES, options=OPTIONS, renew_seconds=RENEW_SECONDS) as scene,
        keep_ledger(scene.fleet.machines) as ledger,
    ):
        await create_units(scene.fleet.admin, units)
        await ledger.until(lambda: all(ledger.find(name) for name in names), "all units run", 120)
        await ledger.until(lambda: len(ledger.find("everywhere.service")) == MACHINES, "global ones too", 60)
        await asyncio.sleep(5.0)
        before, places = count_jobs(scene.fleet.machines), await read_places(scene)
        assert set(before.values()) == {(1, 0, "active")}
        audit = AuditReader(own_plane.audit_log)
        ledger.pauses.clear()
        apiserver = own_plane.pids["apiserver"]
        os.kill(apiserver, signal.SIGSTOP)
        try:
            await asyncio.sleep(AWAY_SECONDS)
            assert count_jobs(scene.fleet.machines) == before
        finally:
            os.kill(apiserver, signal.SIGCONT)
        # All is at work again: a new unit is placed and runs.
        await create_units(scene.fleet.admin, [make_unit("fresh.service")])
        await ledger.until(lambda: ledger.place("fresh.service"), "a new unit runs", 60)
        fresh = ledger.place("fresh.service")
        # And whoever was to be found silent for having been away would have been found so by now.
        await asyncio.sleep(SILENCE_SECONDS + GRACE_SECONDS + 3.0)
        after = dict(count_jobs(scene.fleet.machines))
        assert after.pop((fresh, "fresh.service")) == (1, 0, "active")
        assert after == before
        assert {name: places.get(name) for name in names} == {
            name: found for name, found in (await read_places(scene)).items() if name in names
        }
        told = [r for r in audit.read() if (r.user, r.resource, r.subresource) == (OPERATOR_USER, "nodes", "")]
        assert {r.name for r in told if r.is_write and r.group == "careen.dev"} == {fresh}
    assert {name: pauses for name, pauses in ledger.pauses.items() if pauses} == {}
