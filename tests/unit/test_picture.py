"""What the demo draws, from objects that no cluster has seen."""

from __future__ import annotations

import asyncio
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from careen.kube.resources import CORE_NODES, LOCKS, NODES
from careen.sandbox.picture import Picture
from careen.sandbox.witness import Moment


def make_node(name: str, version: str, phase: str | None) -> dict[str, Any]:
    slots = {
        "A": {"priority": 1, "tries": 0, "successful": True, "version": "1.0.0"},
        "B": {"priority": 2, "tries": 0, "successful": True, "version": "2.0.0"},
    }
    status: dict[str, Any] = {"bootID": "b", "booted": "B" if version == "2.0.0" else "A", "slots": slots}
    spec: dict[str, Any] = {}
    if phase is not None:
        terms = {
            "lock": "default",
            "readySeconds": 0,
            "verifyTimeoutSeconds": 1,
            "commitTimeoutSeconds": 1,
            "onSilence": "Rollback",
            "bootMethod": "Auto",
            "drainTimeoutSeconds": 1,
        }
        release = {"repository": "r", "version": "2.0.0", "digest": "sha256:" + "a" * 64, "sizeBytes": 1, "path": "p"}
        policy = {"name": "os", "uid": "u"}
        spec["assignment"] = {
            "id": f"order-{name}",
            "policy": policy,
            "rollout": "1-a",
            "goal": "Activate",
            "fromBootID": "b0",
            "release": release,
            "terms": terms,
        }
        status["step"] = {"id": f"order-{name}", "observedGoal": "Activate", "phase": phase}
    return {"metadata": {"name": name, "uid": name, "resourceVersion": "1"}, "spec": spec, "status": status}


def make_witness() -> Any:
    nodes = {
        "machine-1": make_node("machine-1", "1.0.0", "Activating"),
        "machine-2": make_node("machine-2", "2.0.0", "Committed"),
    }
    zone = {"metadata": {"labels": {"topology.kubernetes.io/zone": "zone-a"}}}
    cores = {"machine-1": zone, "machine-2": {"metadata": {"labels": {"topology.kubernetes.io/zone": "zone-b"}}}}
    moments = [Moment(1, {}), Moment(2, {"machine-1": "in flight"})]
    return SimpleNamespace(live={NODES: nodes, CORE_NODES: cores, LOCKS: {}}, replay=lambda: iter(moments))


async def follow(picture: Picture, seconds: float = 0.3) -> None:
    task = asyncio.create_task(picture.follow(make_witness()))
    await asyncio.sleep(seconds)
    assert not task.done(), task.exception()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_without_a_terminal_each_change_is_one_line() -> None:
    output = StringIO()
    picture = Picture(Console(file=output, width=200), "title")
    picture.tell("it begins")
    await follow(picture)
    lines = [line.split("s  ", 1)[1] for line in output.getvalue().splitlines()]
    assert lines == [
        "it begins",
        "machine-2 runs 2.0.0, marked good",
        "machine-1: runs 1.0.0, Activating, Activating",
        "machine-2: runs 2.0.0, Committed, UpToDate",
    ]


async def test_on_a_terminal_the_table_marks_who_is_down() -> None:
    output = StringIO()
    console = Console(file=output, width=140, force_terminal=True, color_system=None)
    await follow(Picture(console, "title"))
    drawn = output.getvalue()
    first = next(line for line in drawn.splitlines() if "machine-1" in line)
    assert ("▼ machine-1" in first, "▶ 1.0.0  1/0/1" in first, "boots 2.0.0" in first) == (True, True, True)
    assert "● machine-2" in drawn
    assert "1 of 2 down" in drawn


async def test_a_narrow_terminal_gets_fewer_columns() -> None:
    output = StringIO()
    await follow(Picture(Console(file=output, width=90, force_terminal=True, color_system=None), "title"))
    first = next(line for line in output.getvalue().splitlines() if "machine-1" in line)
    assert "▶ 1.0.0" in first
    assert "1/0/1" not in first
    assert "Activating" in first
    assert len(first) <= 90


async def test_the_picture_is_a_file_that_fetches_nothing(tmp_path: Path) -> None:
    picture = Picture(None, "title")
    await follow(picture)
    picture.save(tmp_path / "demo.svg", ["6 of 6"])
    drawn = (tmp_path / "demo.svg").read_text()
    assert drawn.count("machine-1") >= 2, "the telling moment and the end"
    assert "6&#160;of&#160;6" in drawn
    assert "url(http" not in drawn
