"""Gates: each refusal by its name, and the order in which they answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from careen.core.gates import ACTIVATE_GATES, HELD_GATES, HOLD_GATES, REQUEST_ACTIVATE_GATES, REQUEST_GATES, STAGE_GATES
from careen.core.snapshot import Wave


def ready(cluster: Any) -> None:
    """One machine that is staged and may be granted; another one that is fine."""
    cluster.add("m0", "m1")
    cluster.set_policy()
    cluster.give("m0")
    cluster.give("m1")
    cluster.set_lock(limit=2)


def test_nothing_stands_in_the_way(cluster: Any) -> None:
    ready(cluster)
    granted = [name for action in cluster.plan().actions for name in getattr(action, "granted", ())]
    assert len(granted) == 1, "maxUnavailable is 1"
    assert cluster.reason(granted[0])[0] == "Draining"


def spoil(cluster: Any, how: str) -> None:
    match how:
        case "switch":
            cluster.facts["paused"] = True
        case "policy paused":
            cluster.policies["os"] = replace(cluster.policies["os"], paused=True)
        case "machine paused":
            cluster.change("m0", paused=True)
        case "rejected":
            cluster.change("m0", rejected=(("sha256:" + "2" * 64, 0),))
        case "halted":
            cluster.store_rollout(halted_at=cluster.at, failed=1)
        case "silent":
            cluster.facts["silent"] = frozenset({"m0"})
        case "silent and not ready":
            cluster.facts["silent"] = frozenset({"m0"})
            cluster.change_core("m0", ready=False)
        case "never spoke":
            cluster.change("m0", boot_id="")
        case "newer protocol":
            cluster.change("m0", protocol=99)
        case "no lock":
            cluster.locks.clear()
        case "lock paused":
            cluster.set_lock(limit=2, paused=True)
        case "wave":
            cluster.policies["os"] = replace(cluster.policies["os"], waves=(Wave("first", node_names=("m1",)),))
            cluster.store_rollout()
            cluster.give("m0")
        case "drain pause":
            cluster.note("m0", "Waiting", "DrainTimeout", cluster.at - 10)
        case "budget":
            cluster.change_core("m1", ready=False)
        case "full":
            cluster.set_lock(limit=0)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("switch", "ClusterPaused"),
        ("policy paused", "Paused"),
        ("machine paused", "Paused"),
        ("rejected", "ReleaseRejected"),
        ("halted", "RolloutHalted"),
        ("silent", "AgentSilent"),
        ("silent and not ready", "NodeNotReady"),
        ("never spoke", "AgentMissing"),
        ("newer protocol", "ProtocolSkew"),
        ("no lock", "LockMissing"),
        ("lock paused", "LockPaused"),
        ("wave", "WavePending"),
        ("drain pause", "DrainTimeout"),
        ("budget", "BudgetSpent"),
        ("full", "LockFull"),
    ],
)
def test_each_gate_refuses_by_its_name(cluster: Any, how: str, expected: str) -> None:
    ready(cluster)
    spoil(cluster, how)
    assert cluster.reason("m0") == ("Waiting", expected)
    assert not any("m0" in getattr(action, "granted", ()) for action in cluster.plan().actions)


@pytest.mark.parametrize(
    "how", ["switch", "policy paused", "machine paused", "rejected", "halted", "silent", "newer protocol", "no lock"]
)
def test_the_same_gates_refuse_to_stage(cluster: Any, how: str) -> None:
    ready(cluster)
    cluster.change("m0", order=None)
    spoil(cluster, how)
    assert not [action for action in cluster.plan().actions if hasattr(action, "order") and action.name == "m0"]


def test_capacity_does_not_keep_a_machine_from_staging(cluster: Any) -> None:
    ready(cluster)
    cluster.change("m0", order=None)
    spoil(cluster, "budget")
    cluster.set_lock(limit=0)
    assert cluster.reason("m0") == ("Staging", "Staging")


def test_two_policies_on_one_machine_are_a_conflict_of_both(cluster: Any) -> None:
    ready(cluster)
    cluster.set_policy(name="other")
    assert cluster.reason("m0") == ("Waiting", "PolicyConflict")
    for action in cluster.plan().actions:
        if type(action).__name__ == "WritePolicy":
            conditions = {name: (status, message) for name, status, _, message in action.state.conditions}
            assert conditions["PolicyConflict"] == ("True", "selected by more than one policy: os, other")


def test_the_drain_pause_ends(cluster: Any) -> None:
    ready(cluster)
    cluster.note("m0", "Waiting", "DrainTimeout", cluster.at - 300)
    assert cluster.reason("m0")[1] != "DrainTimeout"


def test_a_wait_tells_when_it_ends(cluster: Any) -> None:
    ready(cluster)
    spoil(cluster, "drain pause")
    plan = cluster.plan()
    waiting = next(e for e in plan.explanations if e.machine == "m0")
    assert waiting.until == cluster.at - 10 + 300
    assert plan.wake_at == waiting.until
    assert plan.waiting["os", "DrainTimeout"] == 1


def test_a_holder_is_held_to_the_gates_of_safety_but_not_to_capacity() -> None:
    names = [gate.__name__ for gate in HOLD_GATES]
    held = [*names, "check_deadman", "check_units"]
    assert [gate.__name__ for gate in HELD_GATES] == held
    assert [gate.__name__ for gate in STAGE_GATES] == [*names, "check_drain_pause"]
    capacity = ["check_drain_pause", "check_budgets", "check_free", "check_movable"]
    assert [gate.__name__ for gate in ACTIVATE_GATES] == [*held, *capacity]


def test_a_request_is_held_to_all_gates_but_those_of_a_release() -> None:
    names = [gate.__name__ for gate in HOLD_GATES]
    about_a_release = {
        "check_release",
        "check_halt",
        "check_image",
        "check_floor",
        "check_downgrade",
        "check_wave",
    }
    asked = [*(name for name in names if name not in about_a_release), "check_units"]
    capacity = ["check_drain_pause", "check_budgets", "check_free", "check_movable"]
    assert [gate.__name__ for gate in REQUEST_GATES] == asked
    assert [gate.__name__ for gate in REQUEST_ACTIVATE_GATES] == [*asked, *capacity]


def test_a_machine_that_failed_tells_its_own_error(cluster: Any) -> None:
    ready(cluster)
    cluster.give("m0", "Activate", "Failed")
    step = replace(cluster.machines["m0"].step, error_class="Boot", error_message="kexec: the image was refused")
    cluster.change("m0", step=step)
    cluster.policies["os"] = replace(cluster.policies["os"], max_failed=5)
    told = next(e for e in cluster.plan().explanations if e.machine == "m0")
    assert told.reason == "ReleaseRejected"
    assert told.message == "2.0.0 failed here (Boot: kexec: the image was refused); `careen retry m0` tries it again"
