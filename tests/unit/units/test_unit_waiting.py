"""Waiting for a unit: what is believed at once, what has to last, and what is told meanwhile."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from careen.cli.units import progress, waiting
from careen.cli.units.commands import RELAY
from careen.cli.units.views import read_unit
from careen.cli.units.waiting import Ending, Watch, Wish, wait_for
from careen.units.file import unit_hash

CONTENT = "[Service]\nExecStart=/bin/web\n"
WISH = Wish("web.service", "web.service", "launched", 1)


class Scene:
    """One unit that changes."""

    def __init__(self) -> None:
        self.watch = Watch()
        self.told: list[str] = []

    def show(self, active: str | None, sub: str = "", *, reason: str = "") -> None:
        report = {"node": "m1", "hash": unit_hash(CONTENT), "load": "loaded", "active": active, "sub": sub}
        status: dict[str, Any] = {"observedGeneration": 1, "currentState": "inactive", "placements": []}
        if active is not None:
            status |= {"currentState": "launched", "placements": [{"node": "m1"}], "machines": [report]}
        if reason:
            row = {"type": "Ready", "status": "False", "reason": "Starting", "message": reason}
            status["conditions"] = [row]
        unit = {"metadata": {"name": "web.service", "generation": 1}, "spec": {"content": CONTENT}, "status": status}
        self.watch.units = {("", "web.service"): read_unit(unit)}
        self.watch.note_change()

    def wait(self, seconds: float = 20.0) -> asyncio.Task[Ending]:
        return asyncio.create_task(wait_for(self.watch, WISH, seconds, self.told.append))


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(progress, "SETTLE_SECONDS", 0.3)
    monkeypatch.setattr(waiting, "QUIET_SECONDS", 0.1)
    return Scene()


async def test_a_state_in_between_is_not_believed(scene: Scene) -> None:
    scene.show("activating", "auto-restart")
    waits = scene.wait()
    await asyncio.sleep(0.1)
    scene.show("active", "running")
    assert await waits == Ending("web.service", ok=True, sentence="Unit web.service launched on m1")


async def test_one_that_lasts_is(scene: Scene) -> None:
    scene.show("activating", "auto-restart")
    ending = await scene.wait()
    assert not ending.ok
    assert "does not stay up on m1" in ending.sentence


async def test_a_success_that_is_not_the_usual_one_says_so(scene: Scene) -> None:
    scene.show("inactive", "dead")
    ending = await scene.wait()
    assert ending.ok
    assert not ending.usual


async def test_reasons_are_told_once_and_again_when_they_change(scene: Scene) -> None:
    scene.show(None, reason="first")
    waits = scene.wait()
    await asyncio.sleep(0.3)
    scene.show(None, reason="first")
    await asyncio.sleep(0.3)
    scene.show(None, reason="second")
    await asyncio.sleep(0.3)
    scene.show("active", "running")
    assert (await waits).ok
    assert scene.told == [
        "Unit web.service waits: Starting: first",
        "Unit web.service waits: Starting: second",
    ]


async def test_what_passes_at_once_is_not_told(scene: Scene) -> None:
    scene.show(None, reason="first")
    waits = scene.wait()
    await asyncio.sleep(0.02)
    scene.show("active", "running")
    assert (await waits).ok
    assert scene.told == []


async def test_the_deadline_holds_while_nothing_happens(scene: Scene) -> None:
    scene.show(None, reason="no place")
    ending = await scene.wait(0.4)
    assert ending.sentence == "Unit web.service is not launched after 0.4 s: Starting: no place"


async def test_a_unit_that_goes_ends_the_wait(scene: Scene) -> None:
    scene.show(None)
    waits = scene.wait()
    await asyncio.sleep(0.05)
    scene.watch.units = {}
    scene.watch.note_change()
    assert not (await waits).ok


def test_the_relay_hands_on_output_and_exit_code() -> None:
    words = [sys.executable, "-c", RELAY, "sh", "-c", "echo out; echo err >&2; exit 7"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as relay:
        assert relay.stdout is not None
        assert relay.stderr is not None
        assert (relay.stdout.read(), relay.stderr.read()) == (b"out\n", b"err\n")
        assert relay.wait(60) == 7


def test_the_relay_ends_its_program_with_the_connection() -> None:
    words = [sys.executable, "-c", RELAY, "sleep", "600"]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as relay:
        assert relay.stdin is not None
        relay.stdin.close()
        assert relay.wait(60) != 0
