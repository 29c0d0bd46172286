"""`careen plan` and `careen status` without a cluster: what is foreseen, and what is said of a machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from careen.core.assemble import Facts, Objects, assemble, find_silent, group_pods, read_switch
from careen.core.decode import decode_machine
from careen.core.forecast import foresee
from careen.core.lines import read_line
from careen.core.pods import Pod
from careen.core.releases import Fault, Lookup, Release, ReleaseKey
from careen.core.snapshot import CoreNode, Holder, Lock, Machine, Policy, Slot, Terms, Wave

DIGEST = "sha256:" + "a" * 64
RELEASE = Release("http://x", "2.0.0", DIGEST, 4096, "2.0.0.img")
TERMS = Terms("default", 0, 600, 600, "Rollback", "Auto", 3600)
NAMES = ("m1", "m2", "m3")


def core(name: str) -> CoreNode:
    return CoreNode(name, f"core-{name}", "1", {}, True, False, f"boot-{name}", f"id-{name}")


def machine(name: str) -> Machine:
    return Machine(
        name,
        f"uid-{name}",
        "1",
        1,
        0.0,
        core_uid=f"core-{name}",
        core_machine_id=f"id-{name}",
        booted="A",
        boot_id=f"boot-{name}",
        protocol=1,
        slots={"A": Slot(True, "1.0.0", "sha256:" + "0" * 64)},
    )


def policy(**fields: Any) -> Policy:
    base = Policy("os", "u", "1", 1, (), "http://x", "2.0.0", None, TERMS)
    return replace(base, **fields)


def objects(**fields: Any) -> Objects:
    base = Objects(
        machines={name: machine(name) for name in NAMES},
        core_nodes={name: core(name) for name in NAMES},
        policies={"os": policy()},
        locks={"default": Lock("default", "l", "1", 1, 1, term=3)},
    )
    return replace(base, **fields)


KEY = ReleaseKey("http://x", "version", "2.0.0")
FACTS = Facts(releases={KEY: Lookup(RELEASE)}, term=5)


def test_the_rollout_that_would_begin_is_looked_behind() -> None:
    waves = (Wave("canary", node_names=("m1",), soak_seconds=60),)
    forecast = foresee(assemble(objects(policies={"os": policy(waves=waves)}), FACTS), "os", 100.0)
    assert forecast.begins
    assert [(wave.name, wave.machines, wave.open, wave.soak_seconds) for wave in forecast.waves] == [
        ("canary", ("m1",), True, 60),
        ("rest", ("m2", "m3"), False, 0),
    ]
    assert [(step.action, step.machine) for step in forecast.steps] == [("stage", "m1")]
    reasons = {each.machine: each.reason for each in forecast.explanations}
    assert reasons == {"m1": "Staging", "m2": "WavePending", "m3": "WavePending"}


def test_an_unknown_release_is_said_and_nothing_is_done() -> None:
    facts = replace(FACTS, releases={KEY: Lookup(fault=Fault("ReleaseUnavailable", "there is no 2.0.0"))})
    forecast = foresee(assemble(objects(), facts), "os", 100.0)
    assert (forecast.rollout, forecast.unresolved.message, forecast.steps) == (None, "there is no 2.0.0", ())
    assert {each.reason for each in forecast.explanations} == {"ReleaseUnavailable"}


def test_a_grant_is_foreseen_although_the_lock_has_the_term_of_an_old_leader() -> None:
    begun = foresee(assemble(objects(), FACTS), "os", 100.0)
    node = {
        "metadata": {"name": "m1", "uid": "uid-m1", "resourceVersion": "1", "generation": 1},
        "spec": {"coreNode": {"uid": "core-m1", "machineID": "id-m1"}, "assignment": assignment(begun.rollout)},
        "status": {
            "bootID": "boot-m1",
            "booted": "A",
            "protocol": 1,
            "bootDecision": {"method": "Kexec", "reason": "Supported", "deadman": "TrialTimer"},
            "slots": {"A": {"successful": True, "version": "1.0.0"}},
            "step": {"id": "order", "observedGoal": "Stage", "phase": "Staged"},
        },
    }
    machines = {**objects().machines, "m1": decode_machine(node)}
    stored = {"os": policy(rollout=begun.rollout)}
    forecast = foresee(assemble(objects(machines=machines, policies=stored), FACTS), "os", 101.0)
    assert not forecast.begins
    assert ("grant", "m1") in {(step.action, step.machine) for step in forecast.steps}


def assignment(rollout: Any) -> dict[str, Any]:
    terms = {
        "lock": "default",
        "readySeconds": 0,
        "verifyTimeoutSeconds": 600,
        "commitTimeoutSeconds": 600,
        "onSilence": "Rollback",
        "bootMethod": "Auto",
        "drainTimeoutSeconds": 3600,
    }
    release = {"repository": "http://x", "version": "2.0.0", "digest": DIGEST, "sizeBytes": 4096, "path": "2.0.0.img"}
    named = {"id": "order", "policy": {"name": "os", "uid": "u"}, "rollout": rollout.id}
    return {**named, "release": release, "goal": "Stage", "terms": terms}


def test_silence_at_a_first_look() -> None:
    renewals = {"m1": "2026-01-01T00:00:00Z", "m2": "2026-01-01T00:03:01Z", "m4": "nonsense"}
    now = 1_767_225_600.0 + 181  # 2026-01-01T00:03:01Z
    assert find_silent(("m1", "m2", "m3", "m4"), renewals, now) == {"m1", "m3", "m4"}


@pytest.mark.parametrize(
    ("data", "on"), [(None, False), ({}, False), ({"paused": "false"}, False), ({"paused": " True"}, True)]
)
def test_switch(data: dict[str, str] | None, on: bool) -> None:
    assert read_switch({"data": data}) is on


def test_pods_are_grouped_in_one_order() -> None:
    pods = [Pod("b", "x", "1", "m1", False), Pod("a", "z", "2", "m1", False), Pod("a", "y", "3", "m2", False)]
    assert group_pods(pods) == group_pods(reversed(pods))
    assert [pod.uid for pod in group_pods(pods)["m1"]] == ["2", "1"]


def status(**fields: Any) -> dict[str, Any]:
    slots = {
        "A": {"priority": 1, "tries": 0, "successful": True, "version": "1.0.0"},
        "B": {"priority": 2, "tries": 1, "successful": False},
    }
    return {"bootID": "boot-m1", "booted": "A", "protocol": 1, "slots": slots, **fields}


def line(status: dict[str, Any], spec: dict[str, Any] | None = None, *held: Holder) -> Any:
    document = {
        "metadata": {"name": "m1", "uid": "u", "resourceVersion": "1"},
        "spec": spec or {},
        "status": status,
    }
    lock = Lock("default", "l", "1", 1, 1, holders=held)
    return read_line(decode_machine(document), document, [lock])


class _Rollout:
    id = "1-aaaaaaaaaaaa"


def test_line_of_a_machine_at_rest() -> None:
    found = line(status())
    assert (found.slots, found.version, found.order) == ("A* 1/0/1  B  2/1/0", "1.0.0", "")
    assert found.reason == "NoPolicy"
    assert line({}).reason == "AgentMissing"


@pytest.mark.parametrize(
    ("goal", "phase", "held", "reason"),
    [
        ("Stage", "Staging", False, "Staging"),
        ("Stage", "Staged", True, "Draining"),
        ("Activate", "Activating", True, "Activating"),
        ("Activate", "Verifying", True, "Verifying"),
        ("Abort", "Verifying", True, "GivingBack"),
        ("Commit", "Committed", True, "Returning"),
    ],
)
def test_line_tells_what_the_operator_writes_no_note_for(goal: str, phase: str, held: bool, reason: str) -> None:
    order = {**assignment(_Rollout), "goal": goal}
    if goal != "Stage":
        order["fromBootID"] = "boot-0"
    holders = [Holder("m1", 0.0, order="order")] if held else []
    found = line(status(step={"id": "order", "observedGoal": goal, "phase": phase}), {"assignment": order}, *holders)
    assert found.reason == reason


def test_line_gives_the_operators_word_otherwise() -> None:
    note = {"state": "Waiting", "reason": "LockFull", "message": "it is full", "since": "2026-01-01T00:00:00Z"}
    found = line(status(orchestration=note))
    assert (found.state, found.reason, found.message) == ("Waiting", "LockFull", "it is full")


@pytest.mark.parametrize(("phase", "reason"), [("Committed", "UpToDate"), ("RolledBack", "RolledBack")])
def test_line_of_an_ended_order_is_not_the_word_from_its_drain(phase: str, reason: str) -> None:
    note = {"state": "Draining", "reason": "Draining", "message": "2 pods", "since": "2026-01-01T00:00:00Z"}
    order = {**assignment(_Rollout), "goal": "Commit", "fromBootID": "boot-0"}
    step = {"id": "order", "observedGoal": "Commit", "phase": phase}
    assert line(status(step=step, orchestration=note), {"assignment": order}).reason == reason


@pytest.mark.parametrize(("said", "goal"), [("Activating", "Commit"), ("Returning", "Commit"), ("Verifying", "Abort")])
def test_line_of_an_ended_order_is_not_what_it_was_stuck_in(said: str, goal: str) -> None:
    note = {"state": said, "reason": "AgentSilent", "message": "away", "since": "2026-01-01T00:00:00Z"}
    order = {**assignment(_Rollout), "goal": goal, "fromBootID": "boot-0"}
    step = {"id": "order", "observedGoal": goal, "phase": "Committed"}
    found = line(status(step=step, orchestration=note), {"assignment": order})
    assert (found.state, found.reason) == ("UpToDate", "UpToDate")


@pytest.mark.parametrize(
    ("said", "phase", "reason"),
    [("Activating", "Activating", "AgentSilent"), ("Returning", "Committed", "NodeNotReady")],
)
def test_line_tells_what_a_machine_is_stuck_in(said: str, phase: str, reason: str) -> None:
    note = {"state": said, "reason": reason, "message": "why", "since": "2026-01-01T00:00:00Z"}
    order = {**assignment(_Rollout), "goal": "Activate", "fromBootID": "boot-0"}
    step = {"id": "order", "observedGoal": "Activate", "phase": phase}
    this, later = Holder("m1", 0.0, order="order"), Holder("m1", 2e9, order="order")
    found = line(status(step=step, orchestration=note), {"assignment": order}, this)
    assert (found.state, found.reason, found.message) == (said, reason, "why")
    assert line(status(step=step, orchestration=note), {"assignment": order}, later).reason != reason
