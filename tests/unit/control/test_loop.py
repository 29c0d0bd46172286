"""What the leader's loop holds back, and what it never does."""

import asyncio
from types import SimpleNamespace

import pytest

from careen.control import loop as loop_module
from careen.control.loop import Loop
from careen.core.actions import Cordon, PolicyState, WriteNote, WritePolicy
from careen.core.snapshot import Note


@pytest.fixture
def clock(monkeypatch):
    """The loop's clock; it stands still until a test moves it."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(loop_module.time, "monotonic", lambda: clock.now)
    return clock


@pytest.fixture
def loop(clock):
    return Loop(None, None, None, asyncio.Event())


def note(state="Waiting", settled=None):
    return WriteNote("m", "u", 1, Note(state, "LockFull", "", 1.0, settled))


def status(*, urgent=False):
    return WritePolicy("p", "u", "1", PolicyState(1, None, (), ()), urgent)


def test_a_note_waits_while_orders_are_on_their_way_but_not_for_ever(loop, clock):
    pressed, calm = SimpleNamespace(pressed=True), SimpleNamespace(pressed=False)
    assert loop._must_wait(note(), pressed)
    assert not loop._must_wait(note(), calm)
    assert loop._must_wait(note(), pressed)
    clock.now += loop_module.PATIENCE_SECONDS
    assert not loop._must_wait(note(), pressed)


@pytest.mark.parametrize("timed", [note("Draining"), note("Verifying", settled=5.0)])
def test_a_note_that_time_runs_from_never_waits(loop, timed):
    assert not loop._must_wait(timed, SimpleNamespace(pressed=True))


def test_a_policys_status_is_written_once_a_second_unless_orders_wait_for_it(loop, clock):
    executor = SimpleNamespace(pressed=False)
    assert not loop._must_wait(status(), executor)
    assert loop._must_wait(status(), executor)
    assert not loop._must_wait(status(urgent=True), executor)
    clock.now += loop_module.POLICY_WRITE_SECONDS
    assert not loop._must_wait(status(), executor)


def test_orders_never_wait(loop):
    assert not loop._must_wait(Cordon("m", "u", "1", "o"), SimpleNamespace(pressed=True))
