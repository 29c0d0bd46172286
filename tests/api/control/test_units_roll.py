"""30 machines are updated under 300 units. What counts as down is read from the machines' own books."""

from __future__ import annotations

import pytest

from unit_fleets import create_units, find_wrongs, make_pair, make_rivals, make_unit, name_of
from unit_ledger import keep_ledger

MACHINES, UNITS, AT_ONCE = 30, 300, 5
BOOT_SECONDS = 6.0
JOB_SECONDS = 0.3
"""How long each unit takes to stop, and to start."""
HANDOVER_SECONDS = 2.0
"""Most time from the end of the stop to the beginning of the start: the old machine tells, the operator writes, the new
one reads. Far less than a boot: no unit waits for one."""
PAIRS, SURGED = 30, 30
PINNED = ("pinned-1.service", "pinned-2.service")
EVERYWHERE = ("everywhere-1.service", "everywhere-2.service", "everywhere-3.service")


def make_units(machine_ids):
    """Rivals, pairs, global ones, some that are surged, two that can't leave their machine, and plain ones."""
    units = [unit for group in range(6) for unit in make_rivals(f"web-{group}", 10)]
    units += [unit for number in range(PAIRS) for unit in make_pair(number)]
    units += [make_unit(name, options=["Global=true"]) for name in EVERYWHERE]
    units += [make_unit(f"surged-{number}.service", surge=True) for number in range(SURGED)]
    pairs = zip(PINNED, machine_ids, strict=False)
    units += [make_unit(name, machineID=machine_id, interruptible=True) for name, machine_id in pairs]
    return units + [make_unit(f"plain-{number}.service") for number in range(UNITS - len(units))]


@pytest.mark.fleet
@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_no_unit_that_can_move_waits_for_a_boot(stage) -> None:
    async with (
        stage(MACHINES, lock=AT_ONCE, boot_seconds=BOOT_SECONDS) as scene,
        keep_ledger(scene.fleet.machines, find_wrongs) as ledger,
    ):
        units = make_units(machine.host.machine_id for machine in scene.fleet.machines)
        names = {name_of(unit) for unit in units}
        movable = names - {*PINNED, *EVERYWHERE}
        await create_units(scene.fleet.admin, units)
        await ledger.until(lambda: all(ledger.where[name] for name in names), "all units run", 120)
        await ledger.until(lambda: all(len(ledger.where[n]) == MACHINES for n in EVERYWHERE), "global ones too", 60)
        ledger.pauses.clear()
        ledger.doubled.clear()
        homes = {name: ledger.place(name) for name in movable}
        for machine in scene.fleet.machines:
            machine.host.units.systemd.job_seconds = JOB_SECONDS
        await scene.policy(strategy={"maxUnavailable": AT_ONCE, "maxStaging": MACHINES})
        await scene.complete(seconds=300)
        await ledger.until(lambda: all(ledger.where[name] for name in names), "all units run", 60)
        await ledger.until(lambda: all(len(ledger.where[n]) == MACHINES for n in EVERYWHERE), "global ones too", 60)
        assert {scene.version(name) for name in scene.fleet.names} == {"2.0.0"}
        assert {machine.boots for machine in scene.fleet.machines} == {1}

    longest = sorted((ledger.longest(name), name) for name in movable)
    moves = sum(len(pauses) for name, pauses in ledger.pauses.items() if name in movable)
    moved = {name for name in movable if ledger.place(name) != homes[name]}
    print(f"{moves} pauses of movable units; median {longest[len(longest) // 2][0]:.2f} s, longest {longest[-1]}")
    print(f"the longest ones: {[(round(seconds, 2), name) for seconds, name in longest[-12:]]}")
    print(f"pinned: {[round(ledger.longest(name), 2) for name in PINNED]}, moved in the end: {len(moved)}")
    assert len(moved) > UNITS / 4, "every machine was left once"
    assert longest[-1][0] <= 2 * JOB_SECONDS + HANDOVER_SECONDS
    surged = [f"surged-{number}.service" for number in range(SURGED)]
    assert {ledger.longest(name) for name in surged} == {0.0}
    # Only a surge runs twice for a moment; and the ledger would have seen one that waits for its machine.
    assert ledger.doubled & movable <= set(surged)
    assert min(ledger.longest(name) for name in PINNED) >= BOOT_SECONDS - 0.5
    assert ledger.wrongs == []
    for number in range(PAIRS):
        assert ledger.place(f"db-{number}.service") == ledger.place(f"side-{number}.service")
