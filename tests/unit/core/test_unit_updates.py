"""Units and updates: who refuses an activation, and who leaves before it."""

from __future__ import annotations

import pytest

from careen.core.actions import SetOrder, WriteLock
from careen.core.forecast import foresee
from unit_cluster import UnitCluster


@pytest.fixture
def cluster() -> UnitCluster:
    made = UnitCluster()
    made.add_machines(3)
    return made


def staged(cluster: UnitCluster, *machines: str) -> None:
    """Machines that are staged and may be granted, one at a time."""
    cluster.set_policy()
    for machine in machines:
        cluster.give(machine)
    cluster.set_lock()


def granted(cluster: UnitCluster) -> list[str]:
    return [name for action in cluster.plan().actions if isinstance(action, WriteLock) for name in action.granted]


def reason(cluster: UnitCluster, machine: str) -> tuple[str, str, str]:
    return next((e.state, e.reason, e.message) for e in cluster.plan().explanations if e.machine == machine)


def test_a_unit_that_can_go_nowhere_else_refuses_the_activation(cluster: UnitCluster) -> None:
    cluster.set_unit("a.service", options="MachineID=id-m1")
    cluster.settle()
    staged(cluster, "m1")
    assert granted(cluster) == []
    assert reason(cluster, "m1") == (
        "Waiting", "UnitNotMovable", "unit a.service can't leave m1: 2 machines: MachineID is not id-m1",
    )  # fmt: skip
    assert cluster.settle() == 0, "nothing moves by being asked"


def test_unless_its_spec_allows_the_interruption(cluster: UnitCluster) -> None:
    cluster.set_unit("a.service", options="MachineID=id-m1", placement={"interruptible": True})
    cluster.set_unit("g.service", options="Global=true")
    cluster.settle()
    staged(cluster, "m1")
    assert granted(cluster) == ["m1"]


def test_two_machines_are_not_granted_when_their_units_could_only_go_to_each_other(cluster: UnitCluster) -> None:
    for machine in ("m1", "m2"):
        cluster.describe(machine, metadata={"disk": "big"})
    cluster.set_unit("a.service", options="MachineMetadata=disk=big")
    cluster.settle()
    assert cluster.where("a.service") == ["m1"]
    staged(cluster, "m1", "m2")
    cluster.set_policy(max_unavailable=3)
    cluster.set_lock(limit=3)
    assert len(granted(cluster)) == 1


def test_units_leave_before_the_machine_is_told_to_boot(cluster: UnitCluster) -> None:
    cluster.set_unit("a.service")
    cluster.settle()
    staged(cluster, "m1")
    cluster.set_lock("m1")
    cluster.change_core("m1", unschedulable=True, cordoned_for=cluster.machines["m1"].order.id)  # type: ignore[union-attr]
    assert reason(cluster, "m1") == ("Draining", "Draining", "1 units have to leave: a.service")
    cluster.step()
    cluster.step()
    assert not cluster.find(SetOrder, "m1")
    cluster.settle()
    assert cluster.where("a.service") == ["m2"]
    assert [order.order.goal for order in cluster.find(SetOrder, "m1")] == ["Activate"]


def test_a_dry_run_tells_which_units_leave(cluster: UnitCluster) -> None:
    cluster.set_unit("a.service")
    cluster.settle()
    staged(cluster, "m1")
    cluster.set_lock("m1")
    cluster.step()
    steps = foresee(cluster.snapshot(), "os", cluster.at).steps
    assert ("units", "m1", "is to hold 0 units, and to give up a.service") in {
        (each.action, each.machine, each.message) for each in steps
    }


def test_a_unit_that_does_not_go_gives_the_lock_back_in_the_end(cluster: UnitCluster) -> None:
    cluster.set_unit("a.service")
    cluster.settle()
    staged(cluster, "m1")
    cluster.set_lock("m1")
    cluster.change_core("m1", unschedulable=True, cordoned_for=cluster.machines["m1"].order.id)  # type: ignore[union-attr]
    cluster.step()
    cluster.step()
    cluster.note("m1", "Draining", "Draining", cluster.at - 30)
    cluster.at += 3600
    order = next(action.order for action in cluster.find(SetOrder, "m1"))
    assert (order.goal, order.cause) == ("Abort", "Withdrawn")


def test_a_holder_that_a_new_unit_blocks_gives_the_lock_back(cluster: UnitCluster) -> None:
    cluster.set_unit("a.service", options="MachineMetadata=disk=big")
    cluster.describe("m1", metadata={"disk": "big"})
    cluster.describe("m2", metadata={"disk": "big"})
    cluster.settle()
    staged(cluster, "m1")
    cluster.set_lock("m1")
    cluster.describe("m2", metadata={})
    order = next(action.order for action in cluster.find(SetOrder, "m1"))
    assert (order.goal, order.cause) == ("Abort", "Withdrawn")
    assert reason(cluster, "m1")[1] == "UnitNotMovable"
