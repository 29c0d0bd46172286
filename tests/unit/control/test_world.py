"""The operator's live copies, and what a plan is made from."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from careen.control import world as world_module
from careen.control.settings import Settings
from careen.control.world import AgentLease, World
from careen.core.instants import format_instant
from careen.kube.store import Change, ChangeType


@pytest.fixture
def world() -> World:
    session: Any = SimpleNamespace(clock=SimpleNamespace(now=lambda _: time.time()))
    made = World(session, Settings("me"), lambda: None)
    made.machines._objects["", "m0"] = SimpleNamespace(step=SimpleNamespace(id=""), phase="Idle", in_flight=False)  # type: ignore[assignment]
    return made


def lease_of(world: World, renewed: str | None) -> None:
    """The agent's Lease as the watch shows it; None: deleted."""
    new = AgentLease("m0", renewed) if renewed is not None else None
    old = AgentLease("m0", "") if renewed is None else None
    kind = ChangeType.DELETED if new is None else ChangeType.ADDED
    world._lease_changed(Change(kind, "careen-system", "agent-m0", "u", old, new))


def silent(world: World) -> frozenset[str]:
    return world.snapshot(term=1, busy=frozenset(), refusals={}, releases={}).silent


def test_an_agent_whose_lease_is_deleted_is_silent_until_there_is_another(world: World) -> None:
    assert silent(world) == {"m0"}
    lease_of(world, format_instant(time.time()))
    assert not silent(world)
    lease_of(world, None)
    assert silent(world) == {"m0"}
    assert world.silence.next_silence(0.0, 0.0) is None
    lease_of(world, format_instant(time.time()))
    assert not silent(world)


def test_the_operator_plans_from_what_a_dry_run_plans_from(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world_module, "assemble", lambda objects, facts: (set(objects.machines), facts.term))
    assert world.snapshot(term=7, busy=frozenset(), refusals={}, releases={}) == ({"m0"}, 7)  # type: ignore[comparison-overlap]
