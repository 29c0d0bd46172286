"""What is written: a sentence that is stored whole, and conditions that keep the time of their last change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from careen.core.actions import WriteLock, WriteNote
from careen.core.decode import decode_lock, decode_machine
from careen.core.encode import encode_lock_status, encode_note
from careen.core.instants import format_instant
from careen.core.snapshot import Lock, Machine, Note

FIRST, LATER = 1_900_000_000.0, 1_900_000_100.0


def times(status: dict[str, Any]) -> dict[str, str]:
    return {condition["type"]: condition["lastTransitionTime"] for condition in status["conditions"]}


def stored(status: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": "x", "uid": "u", "resourceVersion": "1"}, "status": status}


def note(state: str) -> WriteNote:
    return WriteNote("x", "u", 1, Note(state, "LockFull", "because", FIRST))


def test_a_nodes_condition_keeps_its_time_until_its_status_changes() -> None:
    first = encode_note(Machine("x", "u", "1", 1, 0.0), note("Waiting"), FIRST)
    again = encode_note(decode_machine(stored(first)), note("Staging"), LATER)
    assert times(again) == times(first)
    ended = encode_note(decode_machine(stored(again)), note("UpToDate"), LATER)
    assert times(ended) == {
        "Ready": format_instant(LATER), "Reconciling": format_instant(LATER), "Stalled": format_instant(FIRST),
    }  # fmt: skip


def test_a_locks_condition_keeps_its_time_until_its_status_changes() -> None:
    write = WriteLock("x", "u", "1", 1, 1, False, 1, ())
    first = encode_lock_status(Lock("x", "u", "1", 1, 1), write, FIRST)
    again = encode_lock_status(decode_lock(stored(first)), replace(write, term=2), LATER)
    assert times(again) == times(first)
    paused = encode_lock_status(decode_lock(stored(again)), replace(write, paused=True), LATER)
    assert times(paused)["Ready"] == format_instant(LATER)
    assert times(paused)["Stalled"] == format_instant(FIRST)


def test_a_sentence_that_is_too_long_to_be_stored_is_written_once(cluster: Any) -> None:
    cluster.add("m0")
    cluster.set_policy()
    cluster.give("m0", "Stage", "Failed")
    step = replace(cluster.machines["m0"].step, error_class="Transfer", error_message="x" * 1024)
    cluster.change("m0", step=step)
    cluster.set_lock()
    (written,) = cluster.find(WriteNote)
    status = encode_note(cluster.machines["m0"], written, cluster.at)
    assert len(status["orchestration"]["message"]) == 1024
    cluster.change("m0", note=decode_machine(stored(status)).note)
    assert not cluster.find(WriteNote)
