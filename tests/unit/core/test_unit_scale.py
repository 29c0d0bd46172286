"""Work that must not grow with the fleet: what one machine says, and units that nobody can take."""

from __future__ import annotations

import time
from typing import Any

import pytest

from careen.api.requirements import Requirements
from careen.core import roster
from careen.core.actions import WriteLock
from careen.core.placement import Placer
from careen.core.places import Target, UnitSpec
from unit_cluster import UnitCluster


def report(cluster: UnitCluster, machine: str, unit: str, sub: str) -> None:
    """A machine has news of one unit."""
    entry = next(each for each in cluster.held[machine]["status"]["units"] if each["name"] == unit)
    entry["sub"] = sub
    cluster._renew(machine)


def test_news_of_one_unit_is_no_cause_to_look_at_the_others_of_its_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = UnitCluster()
    cluster.add_machines(8)
    for number in range(5):
        cluster.set_unit(f"g{number}.service", options="Global=true")
    cluster.set_unit("a.service", options="MachineID=id-m1")
    cluster.settle()
    looked: list[str] = []
    written: list[str] = []
    real_write, real_project = roster.write_unit, roster.project

    def look(unit: Any, *rest: Any) -> Any:
        looked.append(unit.name)
        return real_write(unit, *rest)

    def project(*rest: Any) -> Any:
        written.append("machine")
        return real_project(*rest)

    monkeypatch.setattr(roster, "write_unit", look)
    monkeypatch.setattr(roster, "project", project)
    report(cluster, "m1", "a.service", "exited")
    assert [action.name for action in cluster.plan().actions] == ["a.service"]
    assert (looked, written) == (["a.service"], ["machine"]), "not five units on eight machines"
    cluster.settle()
    written.clear()
    report(cluster, "m1", "g1.service", "exited")
    assert [action.name for action in cluster.plan().actions] == ["g1.service"]
    assert written == ["machine"], "the other seven are told nothing by it"


def test_news_that_move_nothing_do_not_renew_the_question_who_may_be_activated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = UnitCluster()
    cluster.add_machines(3)
    cluster.set_unit("a.service", options="MachineID=id-m1")
    cluster.set_unit("b.service", options="MachineID=id-m2")
    cluster.settle()
    cluster.set_policy()
    cluster.give("m1")
    cluster.set_lock()
    cluster.plan()
    asked: list[Any] = []
    real = Placer.refuse_activation

    def refuse(placer: Placer, *args: Any, **options: Any) -> Any:
        asked.append(options["leaving"])
        return real(placer, *args, **options)

    monkeypatch.setattr(Placer, "refuse_activation", refuse)
    report(cluster, "m2", "b.service", "exited")
    assert not [action for action in cluster.plan().actions if isinstance(action, WriteLock) and action.granted]
    assert asked == []
    cluster.set_unit("a.service", options="MachineID=id-m1", placement={"interruptible": True})
    assert [action for action in cluster.plan().actions if isinstance(action, WriteLock) and action.granted]


@pytest.mark.parametrize(
    "wanted",
    [
        lambda number: Requirements(machine_of=(f"gone-{number}.service",)),
        lambda number: Requirements(machine_id=f"gone-{number}"),
        lambda number: Requirements(machine_metadata=(("rack", (f"gone-{number}",)),)),
    ],
)
def test_hundreds_of_units_that_ask_for_what_is_not_there_are_explained_in_no_time(wanted: Any) -> None:
    machines = {f"m{number}": Target(f"m{number}", f"{number:032x}", {"rack": "r"}) for number in range(500)}
    units = {unit.name: unit for unit in (UnitSpec(f"u{number}.service", wanted(number)) for number in range(300))}
    placer = Placer()
    placer.place(units, machines, {}, 0.0)
    began = time.process_time()
    found = placer.place(units, machines, {}, 1.0)
    took = time.process_time() - began
    assert len(found.refusals) == 300
    assert found.refusals["u7.service"].message.startswith("500 machines: Machine")
    assert took < 0.06, f"{took:.3f} s of each plan, for as long as they wait"
