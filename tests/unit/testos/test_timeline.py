"""How the steps of an update are read from what was seen."""

from __future__ import annotations

from typing import Any

import pytest

from careen.kube.resources import CORE_NODES, NODES
from careen.sandbox.witness import Sighting
from testos.serial import Line
from testos.timeline import Moves, NotSeenError, Track, find_panic, read_passage

ON = 1000.0
PROGRESS = {"bytesTotal": 100, "bytesFetched": 7, "bytesReused": 30, "bytesSkipped": 63}


def make_node(
    phase: str, goal: str = "Stage", boot: str = "one", *, version: str = "2", order: str = "o2"
) -> dict[str, Any]:
    """A Node whose agent speaks of order o2."""
    assignment: dict[str, Any] = {"id": order, "goal": goal, "release": {"version": version}}
    if goal != "Stage":
        assignment["fromBootID"] = "one"
    step = {"id": "o2", "phase": phase, "progress": PROGRESS}
    return {"spec": {"assignment": assignment}, "status": {"bootID": boot, "step": step}}


def make_track(*, lines: list[tuple[float, str]] | None = None) -> Track:
    """A kexec from 1 to 2, one step every ten seconds or so."""
    versions = [
        (1005.0, make_node("Committed", version="1", order="o1")),
        (1010.0, make_node("Idle")),
        (1012.0, make_node("Staging")),
        (1030.0, make_node("Staged")),
        (1042.0, make_node("Staged", "Activate")),
        (1043.0, make_node("Activating", "Activate")),
        (1070.0, make_node("Verifying", "Activate", "two")),
        (1072.0, make_node("Committed", "Commit", "two")),
    ]
    cores = [
        (1001.0, {"spec": {"unschedulable": True}}),
        (1002.0, {"spec": {}}),
        (1040.0, {"spec": {"unschedulable": True}}),
    ]
    shown = lines or [
        (3.0, "[  OK  ] Stopped target Initrd"),
        (45.0, "         Stopping Careen agent..."),
        (60.0, "INITRD 6.50 started"),
        (80.0, "INITRD 1.00 started"),
    ]
    return Track(
        [Sighting(i, NODES, "vm", document, at) for i, (at, document) in enumerate(versions)],
        [Sighting(i, CORE_NODES, "vm", document, at) for i, (at, document) in enumerate(cores)],
        [Line(i, at, text) for i, (at, text) in enumerate(shown)],
        ON,
    )


def test_each_step_has_its_seconds() -> None:
    passage = read_passage(make_track(), "2", 1000.0)
    assert passage.list_steps() == [
        ("staged", 20.0),
        ("waited", 10.0),
        ("drained", 2.0),
        ("requested", 3.0),
        ("kernelStarted", 8.5),
        ("agentBack", 16.5),
        ("ended", 2.0),
    ]
    assert passage.outage == 25.0
    assert passage.moves == Moves(total=100, fetched=7, reused=30, skipped=63)


def test_the_kernel_that_came_back_counts() -> None:
    lines = [
        (45.0, "Stopping x"),
        (50.0, "INITRD 2.0 started"),
        (52.0, "Kernel panic - not syncing"),
        (66.0, "INITRD 3.0 started"),
    ]
    track = make_track(lines=lines)
    assert read_passage(track, "2", 1000.0).kernel_started == 1063.0
    assert find_panic(track, 1045.0) == 1052.0


@pytest.mark.parametrize(
    ("version", "since", "lines", "message"),
    [
        ("3", 1000.0, None, "ordered"),
        ("2", 1045.0, None, "staged"),
        ("2", 1000.0, [(3.0, "Stopped target"), (60.0, "INITRD 6.5 started")], "shutdown"),
        ("2", 1000.0, [(45.0, "Stopping x")], "kernel"),
    ],
)
def test_says_what_was_not_seen(
    version: str, since: float, lines: list[tuple[float, str]] | None, message: str
) -> None:
    with pytest.raises(NotSeenError, match=message):
        read_passage(make_track(lines=lines), version, since)
