"""Budgets: by policy, by domain and for the control plane; machines down for other reasons count against us."""

from __future__ import annotations

from typing import Any

import pytest

from careen.core.budgets import Budgets

ZONES = (("zone", 1),)


def refuse(cluster: Any, name: str, *taken: str) -> str | None:
    fleet = cluster.fleet()
    budgets = Budgets(fleet)
    for other in taken:
        budgets.take(cluster.machines[other])
    refusal = budgets.refuse(cluster.machines[name])
    return None if refusal is None else refusal.reason


def fleet_of_four(cluster: Any, **policy: Any) -> None:
    cluster.add("a1", "a2", zone="a")
    cluster.add("b1", "b2", zone="b")
    cluster.set_policy(**policy)


@pytest.mark.parametrize(
    ("policy", "taken", "expected"),
    [
        ({"max_unavailable": 1}, (), None),
        ({"max_unavailable": 1}, ("b1",), "BudgetSpent"),
        ({"max_unavailable": 2}, ("b1",), None),
        ({"max_unavailable": "50%"}, ("b1",), None),
        ({"max_unavailable": "50%"}, ("b1", "b2"), "BudgetSpent"),
        ({"max_unavailable": 4, "topology": ZONES}, ("b1",), None),
        ({"max_unavailable": 4, "topology": ZONES}, ("a2",), "TopologyBudgetSpent"),
        ({"max_unavailable": 4, "topology": (("zone", "50%"),)}, ("a2",), "TopologyBudgetSpent"),
        ({"max_unavailable": 4, "topology": (("zone", 2),)}, ("a2",), None),
    ],
)
def test_grants_of_one_plan_see_one_another(
    cluster: Any, policy: dict[str, Any], taken: tuple[str, ...], expected: str | None
) -> None:
    fleet_of_four(cluster, **policy)
    assert refuse(cluster, "a1", *taken) == expected


@pytest.mark.parametrize("why", ["silent", "not ready", "cordoned", "in flight", "holds", "gone"])
def test_whatever_takes_a_machine_down_counts(cluster: Any, why: str) -> None:
    fleet_of_four(cluster)
    cluster.set_lock()
    match why:
        case "silent":
            cluster.facts["silent"] = frozenset({"b1"})
        case "not ready":
            cluster.change_core("b1", ready=False)
        case "cordoned":
            cluster.change_core("b1", unschedulable=True)
        case "in flight":
            cluster.give("b1", "Activate", "Activating")
        case "holds":
            cluster.give("b1")
            cluster.set_lock("b1")
        case "gone":
            cluster.give("b1")
            cluster.set_lock("b1")
            del cluster.machines["b1"]
    assert refuse(cluster, "a1") == "BudgetSpent"


@pytest.mark.parametrize(
    ("goal", "phase", "acknowledged", "down"),
    [
        ("Stage", "Staged", True, False),
        ("Activate", "Staged", False, True),
        ("Activate", "Failed", True, False),
        ("Activate", "Failed", False, True),
        ("Activate", "Idle", True, False),
        ("Commit", "Verifying", False, True),
        ("Commit", "Committed", True, False),
        ("Activate", "RolledBack", False, False),
        ("Abort", "Verifying", False, True),
        ("Abort", "Activating", False, True),
        ("Abort", "Staged", False, False),
    ],
)
def test_what_in_flight_means(cluster: Any, goal: str, phase: str, acknowledged: bool, down: bool) -> None:
    fleet_of_four(cluster)
    cause = "Withdrawn" if goal == "Abort" else None
    cluster.give("b1", goal, phase, acknowledged=acknowledged, cause=cause)
    assert cluster.machines["b1"].in_flight == down
    assert refuse(cluster, "a1") == ("BudgetSpent" if down else None)


def test_a_broken_machine_costs_nothing_more(cluster: Any) -> None:
    fleet_of_four(cluster, topology=ZONES)
    cluster.change_core("a1", ready=False)
    assert refuse(cluster, "a1") is None
    assert refuse(cluster, "a2") == "TopologyBudgetSpent"


def test_a_machine_that_is_no_longer_selected_counts_until_its_order_ends(cluster: Any, requirement: Any) -> None:
    fleet_of_four(cluster, selector=(requirement("zone", "In", ("a",)),))
    cluster.give("b1", "Activate", "Activating")
    assert refuse(cluster, "a1") == "BudgetSpent"
    cluster.give("b1", "Commit", "Committed")
    assert refuse(cluster, "a1") is None


def test_the_control_plane_goes_one_by_one_over_all_policies(cluster: Any, requirement: Any) -> None:
    cluster.add("c1", zone="a", control_plane=True)
    cluster.add("c2", zone="b", control_plane=True)
    cluster.set_policy(name="one", selector=(requirement("zone", "In", ("a",)),), max_unavailable=5)
    cluster.set_policy(name="two", selector=(requirement("zone", "In", ("b",)),), max_unavailable=5)
    assert refuse(cluster, "c1") is None
    assert refuse(cluster, "c1", "c2") == "ControlPlaneBudget"
    cluster.change_core("c2", ready=False)
    assert refuse(cluster, "c1") == "ControlPlaneBudget"


def test_a_broken_control_plane_machine_may_be_cured_while_no_other_is_held(cluster: Any) -> None:
    cluster.add("c1", "c2", "c3", control_plane=True)
    cluster.set_policy(max_unavailable=5)
    cluster.change_core("c1", ready=False)
    cluster.change_core("c2", ready=False)
    assert refuse(cluster, "c1") is None
    assert refuse(cluster, "c1", "c2") == "ControlPlaneBudget"


def test_the_sentence_names_who_is_down(cluster: Any) -> None:
    fleet_of_four(cluster)
    cluster.change_core("b1", ready=False)
    refusal = Budgets(cluster.fleet()).refuse(cluster.machines["a1"])
    assert refusal.message == "1 of at most 1 machines of policy os are unavailable: b1"
