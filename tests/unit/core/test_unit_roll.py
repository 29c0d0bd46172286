"""A rollout over machines with units, decided by whole plans: no machine boots before its units are away."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from careen.core.actions import Cordon, SetOrder, SetUnits, Uncordon, WriteLock, WriteNote, WritePolicy, WriteUnit
from careen.core.snapshot import Slot, Step
from unit_cluster import UnitCluster

MACHINES, UNITS = 30, 300
MOST_ROUNDS_DOWN = 2
"""Stopped in one, started elsewhere in the next."""


class Roll(UnitCluster):
    """A cluster whose machines follow their orders, too; one round is one plan, and one turn of each agent."""

    def __init__(self) -> None:
        super().__init__()
        self.boots: list[str] = []
        self.down: dict[str, int] = {}
        self.longest: dict[str, int] = {}

    def go(self, action: Any) -> None:
        name = action.name if hasattr(action, "name") else None
        match action:
            case WriteUnit() | SetUnits():
                assert self.apply(action)
            case WriteLock():
                self.locks[name] = replace(self.locks[name], holders=action.holders, term=action.term)
            case Cordon():
                self.change_core(name, unschedulable=True, cordoned_for=action.order)
            case Uncordon():
                self.change_core(name, unschedulable=not action.schedulable, cordoned_for=None)
            case SetOrder():
                self.change(name, order=action.order)
            case WriteNote():
                self.change(name, note=action.note)
            case WritePolicy():
                self.policies[name] = replace(self.policies[name], rollout=action.state.rollout)
            case _:
                raise AssertionError(f"{action} was not expected")

    def follow(self, name: str) -> None:
        """One turn of the agent with its order."""
        machine = self.machines[name]
        order = machine.order
        if order is None or (machine.step.id, machine.step.observed_goal) == (order.id, order.goal):
            return
        phase = {"Stage": "Staged", "Activate": "Verifying", "Commit": "Committed"}[order.goal]
        if order.goal == "Activate":
            self.boot_from(name, order.release.digest)
        elif order.goal == "Commit":
            self.change(name, slots={**machine.slots, "B": replace(machine.slots["B"], successful=True)})
        self.change(name, step=Step(order.id, order.goal, phase))

    def boot_from(self, name: str, digest: str) -> None:
        stayed = [unit for unit in self.agents[name] if "Global" not in self.documents[unit]["spec"]["content"]]
        assert not stayed, f"{name} boots under {stayed}"
        self.boots.append(name)
        self.agents[name].clear()
        self.change(name, boot_id=f"again-{name}", booted="B", slots={"A": Slot(True, "1.0.0", "sha256:" + "1" * 64),
                                                                      "B": Slot(False, "2.0.0", digest)})  # fmt: skip
        self.change_core(name, boot_id=f"again-{name}")

    def round(self) -> bool:
        """Whether anything is left to do."""
        actions = [action for action in self.plan().actions if not isinstance(action, WritePolicy | WriteNote)]
        for action in self.plan().actions:
            self.go(action)
        for name in self.machines:
            self.follow(name)
            self.obey(name)
        for unit in self.documents:
            self.down[unit] = 0 if self.where(unit) else self.down.get(unit, 0) + 1
            self.longest[unit] = max(self.longest.get(unit, 0), self.down[unit])
        self.at += 1.0
        return bool(actions)


def test_a_roll_moves_each_unit_away_before_its_machine_boots() -> None:
    cluster = Roll()
    cluster.add_machines(MACHINES)
    for number in range(UNITS):
        options = {0: f"Conflicts=u{number + 1}.service", 5: f"MachineOf=u{number - 1}.service"}.get(number % 10, "")
        surge = {"placement": {"surge": True}} if number % 7 == 0 else {}
        cluster.set_unit(f"u{number}.service", options=options, **surge)
    cluster.set_unit("g.service", options="Global=true")
    cluster.settle()
    before = {unit: cluster.where(unit) for unit in cluster.documents}
    assert all(before.values())
    cluster.set_policy(max_unavailable=3, max_staging=MACHINES)
    cluster.set_lock(limit=3)
    for _ in range(1000):
        if not cluster.round():
            break
    else:
        raise AssertionError("the roll does not end")
    assert sorted(cluster.boots) == sorted(cluster.machines), "each machine was booted, once"
    assert all(machine.version == "2.0.0" for machine in cluster.machines.values())
    assert not any(lock.holders for lock in cluster.locks.values())
    late = {unit: rounds for unit, rounds in cluster.longest.items() if rounds > MOST_ROUNDS_DOWN}
    assert not late, "down for longer than it takes to stop and to start"
    surging = [f"u{number}.service" for number in range(0, UNITS, 7)]
    assert {cluster.longest[unit] for unit in surging if "Conflicts" not in str(cluster.documents[unit])} == {0}
    assert cluster.where("g.service") == sorted(cluster.machines)
    assert cluster.settle() == 0
