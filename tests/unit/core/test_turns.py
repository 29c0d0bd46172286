"""Events: one for each turning point of a rollout or a machine, and none for what only goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from careen.core.actions import WriteNote, WritePolicy
from careen.core.snapshot import Step, Wave

CANARY = (Wave("canary", node_names=("m0",), soak_seconds=60),)


def policy_turns(cluster: Any) -> list[str]:
    return [turn.reason for write in cluster.find(WritePolicy) for turn in write.turns]


def test_a_new_wave_is_told_once(cluster: Any) -> None:
    cluster.add("m0", version="2.0.0")
    cluster.add("m1")
    cluster.set_policy(waves=CANARY)
    cluster.set_lock()
    cluster.store_rollout(wave_done_at=cluster.at)
    assert policy_turns(cluster) == []
    cluster.at += 61
    (write,) = cluster.find(WritePolicy)
    (turn,) = write.turns
    rollout = write.state.rollout
    assert (turn.reason, turn.warning) == ("WaveStarted", False)
    assert turn.message == f"rollout {rollout.id} is in wave {rollout.wave_names[1]}"
    cluster.policies["os"] = replace(cluster.policies["os"], rollout=rollout)
    assert policy_turns(cluster) == []


def test_a_halt_and_its_end_are_told(cluster: Any) -> None:
    cluster.add("m0", "m1")
    cluster.set_policy()
    cluster.set_lock()
    cluster.give("m0", "Activate", "RolledBack", step_cause="Panic")
    assert policy_turns(cluster) == ["RolloutHalted"]
    rollout = cluster.assess().rollout
    cluster.policies["os"] = replace(cluster.policies["os"], rollout=rollout, resume=(rollout.id, 1))
    assert policy_turns(cluster) == ["RolloutResumed"]


@pytest.mark.parametrize("silent", [True, False])
def test_a_machine_that_does_not_come_back_is_told_of(cluster: Any, silent: bool) -> None:
    cluster.add("m0")
    cluster.set_policy()
    order = cluster.give("m0", "Activate", "Activating")
    cluster.set_lock("m0")
    cluster.change_core("m0", unschedulable=True, cordoned_for=order.id)
    cluster.facts["silent"] = frozenset({"m0"} if silent else ())
    turns = [note.turn for note in cluster.find(WriteNote) if note.turn is not None]
    assert [turn.reason for turn in turns] == (["AgentSilent"] if silent else [])
    for note in cluster.find(WriteNote):
        cluster.change("m0", note=note.note)
    assert not [note for note in cluster.find(WriteNote) if note.turn is not None], "told once"


def test_a_staging_that_fails_is_told_of(cluster: Any) -> None:
    cluster.add("m0")
    cluster.set_policy()
    cluster.set_lock()
    order = cluster.give("m0", phase="Failed")
    cluster.change("m0", step=Step(order.id, "Stage", "Failed", None, "Transfer", "the mirror is down"))
    (note,) = cluster.find(WriteNote)
    assert note.turn.reason == "StagingFailed"
    assert "the mirror is down" in note.turn.message


def test_machines_that_only_wait_for_silent_agents_are_not_told_of(cluster: Any) -> None:
    cluster.add("m0", "m1")
    cluster.set_policy()
    cluster.set_lock()
    cluster.facts["silent"] = frozenset({"m0", "m1"})
    assert [note.turn for note in cluster.find(WriteNote)] == [None, None]
