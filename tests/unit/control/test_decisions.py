"""The decision log: which decisions are lines, and what a line says."""

from __future__ import annotations

from careen.control.decisions import describe_decision
from careen.core.actions import Cordon, Evict, Turn, WriteLock, WriteNote, WritePolicy
from small_cluster import Cluster


def test_each_decision_about_a_machine_names_policy_and_reason(cluster: Cluster) -> None:
    cluster.add("m0", "m1")
    cluster.set_policy()
    cluster.set_lock()
    plan = cluster.plan()
    told = {e.machine: e for e in plan.explanations}
    lines = [fields for action in plan.actions if (fields := describe_decision(action, told)) is not None]
    orders = [line for line in lines if line["decision"] == "SetOrder"]
    assert {line["node"] for line in orders} == {"m0", "m1"}
    assert all((line["policy"], line["goal"], line["reason"]) == ("os", "Stage", "Staging") for line in orders)
    assert all(line["why"] for line in orders)


def test_a_note_says_why_a_machine_waits(cluster: Cluster) -> None:
    cluster.add("m0")
    cluster.set_policy(paused=True)
    cluster.set_lock()
    plan = cluster.plan()
    (note,) = [action for action in plan.actions if isinstance(action, WriteNote)]
    line = describe_decision(note, {e.machine: e for e in plan.explanations})
    assert line is not None
    assert (line["node"], line["policy"], line["state"], line["reason"]) == ("m0", "os", "Waiting", "Paused")


def test_a_lock_says_who_was_granted_and_freed() -> None:
    write = WriteLock("default", "u", "1", 1, 1, False, 1, (), granted=("m1",), freed=("m0",))
    assert describe_decision(write, {}) == {
        "decision": "WriteLock",
        "lock": "default",
        "granted": ("m1",),
        "freed": ("m0",),
    }


def test_what_only_repeats_itself_is_no_line() -> None:
    policy = WritePolicy("os", "u", "1", None)  # type: ignore[arg-type]
    assert describe_decision(policy, {}) is None
    assert describe_decision(WriteLock("default", "u", "1", 1, 1, False, 1, ()), {}) is None
    turn = Turn("UpdatePolicy", "os", "u", "RolloutHalted", "2.1.0 failed on m0 (Panic)", warning=True)
    line = describe_decision(WritePolicy("os", "u", "1", None, turns=(turn,)), {})  # type: ignore[arg-type]
    assert line is not None
    assert (line["policy"], line["reason"], line["why"]) == ("os", "RolloutHalted", turn.message)


def test_cordons_and_evictions_name_their_machine() -> None:
    assert describe_decision(Cordon("m0", "u", "1", "o1"), {}) == {"decision": "Cordon", "node": "m0"}
    line = describe_decision(Evict("shop", "web-1", "u", "m0"), {})
    assert line == {"decision": "Evict", "node": "m0", "pod": "shop/web-1"}
