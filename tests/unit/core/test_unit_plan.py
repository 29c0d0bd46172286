"""What the operator does with units: decisions, what machines are told, and the reasons that people read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from careen.core.actions import SetUnits, WriteUnit
from careen.core.places import Rules
from careen.core.roster import Roster
from unit_cluster import UNIT_WRITES, UnitCluster


@pytest.fixture
def cluster() -> UnitCluster:
    made = UnitCluster()
    made.add_machines(3)
    return made


def names(cluster: UnitCluster) -> list[tuple[str, str]]:
    return [(type(write).__name__, write.name) for write in cluster.writes]  # type: ignore[union-attr]


def silence(cluster: UnitCluster, machine: str, seconds: float) -> None:
    cluster.facts |= {"silent": frozenset({machine}), "silent_since": {machine: cluster.at - seconds}}


def test_placing_a_unit_takes_two_writes_and_one_that_tells_that_it_runs(cluster: UnitCluster) -> None:
    cluster.set_unit("a.service")
    cluster.step()
    cluster.step()
    assert names(cluster) == [("WriteUnit", "a.service"), ("SetUnits", "m1")]
    assert cluster.told("m1") == {"a.service": "launched"}
    assert cluster.documents["a.service"]["status"]["placements"][0] == {
        "node": "m1", "nodeUID": "uid-m1", "since": "2030-03-17T17:46:40.000000Z", "leaving": False,
    }  # fmt: skip
    cluster.settle()
    assert names(cluster)[2:] == [("WriteUnit", "a.service")]
    status = cluster.documents["a.service"]["status"]
    assert (status["currentState"], status["counts"]) == (
        "launched",
        {"placed": 1, "loaded": 1, "active": 1, "failed": 0},
    )
    assert cluster.condition("a.service", "Ready")[0] == "True"
    assert cluster.settle() == 0


def test_a_leader_that_died_between_the_two_writes_is_gone_on_from(cluster: UnitCluster) -> None:
    cluster.set_unit("a.service")
    cluster.step()
    cluster.add("m0")
    cluster.boot("m0")  # Less loaded, and first by name: but it is decided already.
    cluster.roster = Roster()
    cluster.step()
    assert names(cluster) == [("WriteUnit", "a.service"), ("SetUnits", "m1")]


def test_a_unit_is_stopped_by_an_order_that_stays_until_the_agent_has_obeyed(cluster: UnitCluster) -> None:
    cluster.set_unit("a.service")
    cluster.settle()
    cluster.set_unit("a.service", state="inactive")
    for _ in range(3):
        cluster.step()
    assert cluster.told("m1") == {"a.service": "removed"}
    assert cluster.condition("a.service", "Placed")[:2] == ("False", "Inactive")
    assert cluster.condition("a.service", "Ready")[:2] == ("False", "Stopping")
    cluster.obey("m1")
    cluster.step()
    assert cluster.told("m1") == {}
    cluster.settle()
    assert cluster.condition("a.service", "Ready")[:2] == ("True", "Inactive")
    assert cluster.documents["a.service"]["status"]["currentState"] == "inactive"


def test_a_stop_that_failed_keeps_the_order(cluster: UnitCluster) -> None:
    cluster.set_unit("a.service")
    cluster.settle()
    cluster.drop_unit("a.service")
    cluster.step()
    report = {"name": "a.service", "load": "loaded", "active": "deactivating", "sub": "stop-sigterm"}
    cluster.held["m1"]["status"]["units"] = [report]
    cluster._renew("m1")
    cluster.step()
    assert cluster.told("m1") == {"a.service": "removed"}


@pytest.mark.parametrize(("before", "after"), [("launched", "loaded"), ("loaded", "launched")])
def test_loaded_and_launched_change_in_place(cluster: UnitCluster, before: str, after: str) -> None:
    cluster.set_unit("a.service", state=before)
    cluster.settle()
    cluster.set_unit("a.service", state=after)
    cluster.settle()
    assert (cluster.told("m1"), cluster.where("a.service")) == ({"a.service": after}, ["m1"])
    assert cluster.documents["a.service"]["status"]["currentState"] == after


def test_another_content_is_told_in_place(cluster: UnitCluster) -> None:
    cluster.set_unit("a.service")
    cluster.settle()
    cluster.set_unit("a.service", content="[Service]\nExecStart=/bin/sleep 2\n")
    cluster.step()
    assert cluster.held["m1"]["spec"]["units"][0]["hash"] == cluster.documents["a.service"]["status"]["hash"]
    assert cluster.condition("a.service", "Ready")[:2] == ("False", "Starting")
    assert cluster.documents["a.service"]["status"]["currentState"] == "inactive", "not of this content yet"
    cluster.settle()
    assert cluster.where("a.service") == ["m1"]
    assert cluster.condition("a.service", "Ready")[0] == "True"


def test_a_content_that_cant_be_changes_nothing_where_the_unit_runs(cluster: UnitCluster) -> None:
    cluster.set_unit("a.service")
    cluster.settle()
    before = cluster.held["m1"]["spec"]["units"]
    cluster.set_unit("a.service", content="[Service\n")
    cluster.settle()
    assert cluster.held["m1"]["spec"]["units"] == before
    assert cluster.placements("a.service") == [("m1", False)]
    status, reason, message = cluster.condition("a.service", "Valid")
    assert (status, reason, message) == ("False", "Invalid", "unable to find end of section")
    assert cluster.condition("a.service", "Stalled")[:2] == ("True", "Invalid")
    cluster.describe("m1", unitCapacity=0)
    cluster.settle()
    assert cluster.where("a.service") == ["m1"], "nobody knows its weight"
    cluster.set_unit("a.service", content="[Service\n", state="inactive")
    cluster.settle()
    assert cluster.where("a.service") == [], "to stop it, nobody has to understand it"


def test_a_global_unit_whose_content_cant_be_any_more_stays_everywhere(cluster: UnitCluster) -> None:
    cluster.set_unit("g.service", options="Global=true")
    cluster.settle()
    cluster.set_unit("g.service", content="[Service\n")
    cluster.settle()
    assert cluster.where("g.service") == ["m1", "m2", "m3"]


def test_of_two_units_with_one_name_the_older_one_runs(cluster: UnitCluster) -> None:
    cluster.set_unit("one", name="a.service")
    cluster.set_unit("two", name="a.service", content="[Service]\nExecStart=/bin/sleep 2\n")
    cluster.settle()
    assert cluster.condition("two", "NameTaken")[:2] == ("True", "NameTaken")
    assert "Unit one is older" in cluster.condition("two", "NameTaken")[2]
    assert cluster.held["m1"]["spec"]["units"][0]["unit"] == "one"
    cluster.drop_unit("one")
    cluster.settle()
    assert cluster.condition("two", "NameTaken")[0] == "False"
    assert [entry["unit"] for name in ("m1", "m2", "m3") for entry in cluster.held[name]["spec"].get("units", [])] == [
        "two"
    ]


def test_a_unit_that_is_not_placed_says_why_of_each_machine(cluster: UnitCluster) -> None:
    cluster.describe("m3", metadata={"disk": "big"})
    cluster.set_unit("a.service", options="MachineMetadata=disk=big")
    cluster.settle()
    cluster.set_unit("b.service", options="MachineMetadata=disk=big\nConflicts=a.service")
    cluster.settle()
    assert cluster.condition("b.service", "Placed") == (
        "False", "NoPlace", "2 machines: MachineMetadata disk is not big; 1 machine: Conflicts with a.service",
    )  # fmt: skip
    assert cluster.condition("b.service", "Stalled")[:2] == ("True", "NoPlace")
    cluster.describe("m2", metadata={"disk": "big"})
    cluster.settle()
    assert cluster.where("b.service") == ["m2"]


def test_labels_of_the_core_node_are_metadata_where_the_node_says_nothing(cluster: UnitCluster) -> None:
    cluster.change_core("m2", labels={"zone": "y"})
    cluster.describe("m1", metadata={"zone": "y"})
    cluster.set_unit("g.service", options="Global=true\nMachineMetadata=zone=y")
    cluster.settle()
    assert cluster.where("g.service") == ["m1", "m2"]


def test_only_the_words_of_a_refusal_are_written_at_leisure(cluster: UnitCluster) -> None:
    cluster.set_unit("a.service", options="MachineMetadata=zone=none")
    cluster.settle()
    cluster.add("m4")
    cluster.boot("m4")
    write = next(action for action in cluster.plan().actions if isinstance(action, WriteUnit))
    assert write.pace == 30.0
    cluster.describe("m4", metadata={"zone": "none"})
    write = next(action for action in cluster.plan().actions if isinstance(action, WriteUnit))
    assert write.pace == 0.0


def test_a_machine_that_is_left_gives_its_units_up_and_takes_none(cluster: UnitCluster) -> None:
    cluster.set_unit("a.service")
    cluster.settle()
    cluster.leave("m1")
    cluster.set_unit("b.service")
    cluster.step()
    assert cluster.placements("a.service") == [("m2", False)]
    assert cluster.condition("a.service", "Placed")[1:] == ("Moving", "on m2 as soon as it is stopped on m1")
    cluster.step()
    assert (cluster.told("m1"), cluster.told("m2")) == ({"a.service": "removed"}, {})
    cluster.settle()
    assert (cluster.where("a.service"), cluster.where("b.service")) == (["m2"], ["m3"])
    cluster.leave()
    assert cluster.settle() == 0, "nothing goes back by itself"


def test_a_surging_unit_is_up_in_its_new_place_before_it_is_stopped_in_the_old_one(cluster: UnitCluster) -> None:
    cluster.set_unit("a.service", placement={"surge": True})
    cluster.settle()
    cluster.leave("m1")
    cluster.step()
    cluster.step()
    assert cluster.placements("a.service") == [("m2", False), ("m1", True)]
    assert (cluster.told("m1"), cluster.told("m2")) == ({"a.service": "launched"}, {"a.service": "launched"})
    for _ in range(3):
        cluster.step()
    assert cluster.told("m1") == {"a.service": "launched"}, "nobody has said that it is up on m2"
    cluster.obey("m2")
    cluster.step()
    cluster.step()
    assert cluster.told("m1") == {"a.service": "removed"}
    cluster.settle()
    assert cluster.placements("a.service") == [("m2", False)]


def test_a_new_place_that_failed_does_not_end_the_old_one(cluster: UnitCluster) -> None:
    cluster.set_unit("a.service", placement={"surge": True})
    cluster.settle()
    cluster.leave("m1")
    cluster.step()
    cluster.step()
    cluster.obey("m2")
    cluster.held["m2"]["status"]["units"][0] |= {"active": "failed", "sub": "failed"}
    cluster._renew("m2")
    for _ in range(3):
        cluster.step()
    assert cluster.told("m1") == {"a.service": "launched"}
    assert cluster.condition("a.service", "Stalled")[1:] == ("UnitFailed", "failed on m2")


def test_units_of_a_silent_machine_are_put_elsewhere_after_the_grace_period(cluster: UnitCluster) -> None:
    cluster.set_unit("a.service")
    cluster.set_unit("k.service", onSilence="Keep", options="MachineOf=a.service")
    cluster.settle()
    silence(cluster, "m1", 30.0)
    plan = cluster.plan()
    assert plan.wake_at == cluster.at + 30.0
    assert cluster.settle(machines=["m2", "m3"]) == 0
    cluster.writes.clear()
    silence(cluster, "m1", 60.0)
    cluster.settle(machines=["m2", "m3"])
    assert cluster.placements("a.service") == [("m2", False)]
    assert {write.name for write in cluster.writes if isinstance(write, SetUnits)} == {"m1", "m2"}
    assert cluster.told("m1")["a.service"] == "removed", "for the day that it comes back"
    assert cluster.condition("a.service", "Placed")[1:] == ("Moving", "on m2 and not yet stopped on m1")
    assert cluster.condition("a.service", "Ready")[0] == "True", "it runs where it belongs"
    cluster.facts |= {"silent": frozenset()}
    cluster.settle()
    assert cluster.where("a.service") == ["m2"]


def test_a_unit_that_must_not_run_twice_waits_for_its_machine(cluster: UnitCluster) -> None:
    cluster.set_unit("k.service", onSilence="Keep")
    cluster.settle()
    cluster.writes.clear()
    silence(cluster, "m1", 600.0)
    cluster.settle(machines=["m2", "m3"])
    assert names(cluster) == [("WriteUnit", "k.service")]
    assert cluster.placements("k.service") == [("m1", False)]


def test_what_a_silent_machine_said_last_does_not_make_a_unit_ready(cluster: UnitCluster) -> None:
    cluster.set_unit("k.service", onSilence="Keep")
    cluster.set_unit("g.service", options="Global=true")
    cluster.settle()
    silence(cluster, "m1", 600.0)
    cluster.settle(machines=["m2", "m3"])
    for unit in ("k.service", "g.service"):
        told = ("False", "AgentSilent", "nobody knows how it is on silent m1")
        assert (cluster.condition(unit, "Ready"), cluster.where(unit)[0]) == (told, "m1")
    cluster.facts |= {"silent": frozenset()}
    cluster.settle()
    assert cluster.condition("k.service", "Ready")[0] == cluster.condition("g.service", "Ready")[0] == "True"


@pytest.mark.parametrize("cause", ["follows", "metadata", "rival"])
def test_nor_does_it_run_twice_when_it_has_to_leave_a_silent_machine(cluster: UnitCluster, cause: str) -> None:
    for machine in ("m1", "m2"):
        cluster.describe(machine, metadata={"disk": "big"})
    cluster.set_unit("a.service")
    cluster.set_unit("k.service", onSilence="Keep", options="MachineOf=a.service" if cause == "follows" else "")
    if cause != "follows":
        cluster.set_unit("k.service", onSilence="Keep", options="MachineID=id-m1")
    cluster.settle()
    assert cluster.where("k.service") == ["m1"]
    silence(cluster, "m1", 600.0)
    if cause == "metadata":
        cluster.set_unit("k.service", onSilence="Keep", options="MachineMetadata=disk=big")
        cluster.describe("m1", metadata={})
    elif cause == "rival":
        cluster.set_unit("z.service", options="MachineID=id-m1", onSilence="Keep")
        cluster.set_unit("k.service", onSilence="Keep", options="MachineID=id-m2")
    cluster.settle(machines=["m2", "m3"])
    assert cluster.where("k.service") == ["m1"], "nobody knows whether it runs on m1"
    assert cluster.condition("k.service", "Placed")[1:] == ("Moving", "on m2 as soon as it is stopped on m1")
    assert cluster.condition("k.service", "Ready")[:2] == ("False", "Moving")
    cluster.facts |= {"silent": frozenset()}
    cluster.settle()
    assert cluster.where("k.service") == ["m2"]


def test_a_node_that_was_made_again_takes_up_what_the_machine_holds(cluster: UnitCluster) -> None:
    cluster.set_unit("a.service")
    cluster.set_unit("g.service", options="Global=true")
    cluster.settle()
    known = cluster.machines.pop("m1")
    cluster.settle(machines=["m2", "m3"])
    assert cluster.placements("a.service") == [("m1", False)], "the core Node is there: it is no machine that is gone"
    cluster.machines["m1"] = replace(known, uid="uid-again", boot_id="")
    cluster.held["m1"] = {"spec": {}, "status": {}}
    cluster.boot("m1")
    cluster.settle(machines=["m2", "m3"])
    assert cluster.told("m1") == {}, "nobody knows what it holds"
    cluster.change("m1", boot_id="boot-m1")
    cluster.settle()
    assert cluster.told("m1") == {"a.service": "launched", "g.service": "launched"}
    assert cluster.documents["a.service"]["status"]["placements"][0]["nodeUID"] == "uid-again"


def test_a_node_made_again_under_a_dead_machine_hides_neither_a_unit_nor_moves_it(cluster: UnitCluster) -> None:
    cluster.set_unit("k.service", onSilence="Keep", options="MachineMetadata=disk=big")
    for machine in ("m1", "m2"):
        cluster.describe(machine, metadata={"disk": "big"})
    cluster.settle()
    cluster.held["m1"] = {"spec": {"metadata": {"disk": "big"}}, "status": {}}
    cluster.change("m1", uid="uid-again", boot_id="")
    cluster.boot("m1")
    silence(cluster, "m1", 600.0)
    cluster.settle(machines=["m2", "m3"])
    assert cluster.condition("k.service", "Ready")[:2] == ("False", "AgentSilent")
    cluster.describe("m1", metadata={})
    for _ in range(5):
        cluster.step()
        cluster.obey("m2")
    assert cluster.where("k.service") == ["m1"], "it may run there still, and must not run twice"


def test_what_runs_without_an_order_and_without_a_unit_is_stopped_by_an_order(cluster: UnitCluster) -> None:
    cluster.agents["m1"]["Old_thing.service"] = {"hash": "1" * 40, "launched": True}
    cluster.obey("m1")
    cluster.step()
    assert cluster.held["m1"]["spec"]["units"] == [
        {"name": "Old_thing.service", "unit": "old-thing.service", "hash": "1" * 40, "desiredState": "removed"}
    ]
    cluster.settle()
    assert cluster.told("m1") == {}


def test_a_stray_unit_with_a_name_too_long_for_an_object_holds_up_no_others(cluster: UnitCluster) -> None:
    stray = "x" * 248 + ".service"
    cluster.agents["m1"][stray] = {"hash": "1" * 40, "launched": True}
    cluster.obey("m1")
    cluster.set_unit("a.service", options="MachineID=id-m1")
    cluster.settle()
    assert cluster.told("m1") == {"a.service": "launched"}


def test_a_unit_whose_machine_is_just_being_told_of_it_is_not_moved(cluster: UnitCluster) -> None:
    cluster.set_unit("a.service")
    cluster.step()
    cluster.leave("m1")
    cluster.facts["busy"] = frozenset({("Node", "m1")})
    assert not [action for action in cluster.plan().actions if isinstance(action, UNIT_WRITES)]
    cluster.facts["busy"] = frozenset()
    cluster.settle()
    assert cluster.where("a.service") == ["m2"]


def test_while_a_decision_is_being_written_others_see_it(cluster: UnitCluster) -> None:
    cluster.set_unit("a.service")
    first = [action for action in cluster.plan().actions if isinstance(action, WriteUnit)]
    cluster.facts["busy"] = frozenset({("Unit", "a.service")})
    cluster.add("m0")
    cluster.boot("m0")  # Asked anew, it would be put here.
    cluster.set_unit("b.service", options="Conflicts=a.service")
    second = [action for action in cluster.plan().actions if isinstance(action, WriteUnit)]
    for action in (*first, *second):
        assert cluster.apply(action)
    assert (cluster.placements("a.service"), cluster.placements("b.service")) == ([("m1", False)], [("m0", False)])


def test_rebalancing_is_off_unless_asked_for(cluster: UnitCluster) -> None:
    for number in range(6):
        cluster.set_unit(f"u{number}.service")
    cluster.settle()
    cluster.add("m4")
    cluster.boot("m4")
    assert cluster.settle() == 0
    cluster.facts["unit_rules"] = Rules(rebalance_budget=1)
    cluster.settle()
    assert len(cluster.agents["m4"]) == 1


def test_a_cluster_without_units_is_not_looked_at(cluster: UnitCluster) -> None:
    look = Roster().look(cluster.fleet(), cluster.at)
    assert (look.actions, look.wake_at, dict(look.movement.moving)) == ((), None, {})


def test_a_deleted_unit_leaves_all_machines(cluster: UnitCluster) -> None:
    cluster.set_unit("g.service", options="Global=true")
    cluster.settle()
    document: Any = cluster.documents["g.service"]
    document["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    cluster._store("g.service", document)
    cluster.settle()
    assert cluster.where("g.service") == [], "also while somebody's finalizer keeps the object"


def test_a_unit_is_not_told_to_come_beside_a_rival_that_shows_up_late(cluster: UnitCluster) -> None:
    """The last write of a leader that was deposed arrives after its successor has decided."""
    cluster.set_unit("b.service", options="Conflicts=x.service")
    cluster.step()
    late = {"name": "x.service", "unit": "x.service", "hash": "1" * 40, "desiredState": "launched"}
    cluster.describe("m1", units=[late])
    cluster.obey("m1")
    cluster.step()
    cluster.step()
    assert cluster.told("m1") == {"x.service": "removed"}
    cluster.settle()
    assert cluster.told("m1") == {"b.service": "launched"}


def test_an_old_report_is_no_answer_to_a_new_order(cluster: UnitCluster) -> None:
    cluster.set_unit("a.service", options="MachineID=id-m1")
    cluster.settle()
    cluster.set_unit("a.service", options="MachineID=id-m1", state="inactive")
    cluster.step()
    cluster.step()
    cluster.obey("m1")
    cluster.set_unit("a.service", options="MachineID=id-m1")
    for _ in range(3):
        cluster.step()
    assert cluster.told("m1") == {}, "the agent has not dropped its report yet"
    cluster.settle()
    assert cluster.told("m1") == {"a.service": "launched"}


def test_an_agent_that_cant_ask_systemd_acknowledges_nothing(cluster: UnitCluster) -> None:
    cluster.set_unit("a.service")
    cluster.settle()
    cluster.drop_unit("a.service")
    cluster.step()
    blind = {"name": "a.service", "load": "error", "active": "inactive", "sub": "dead", "message": "no answer"}
    cluster.held["m1"]["status"]["units"] = [blind]
    cluster._renew("m1")
    cluster.step()
    assert cluster.told("m1") == {"a.service": "removed"}


def test_a_unit_that_has_to_leave_is_not_renewed_before(cluster: UnitCluster) -> None:
    cluster.set_unit("a.service", options="MachineID=id-m1")
    cluster.set_unit("b.service", options="MachineID=id-m1")
    cluster.settle()
    cluster.set_unit("a.service", options="Conflicts=b.service")
    assert not [action for action in cluster.plan().actions if isinstance(action, SetUnits)]
    cluster.settle()
    assert (cluster.where("a.service"), cluster.where("b.service")) == (["m2"], ["m1"])
