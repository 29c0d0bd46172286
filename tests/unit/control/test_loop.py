"""What the leader's loop holds back, and what it never does."""

import asyncio
import copy
from types import SimpleNamespace

import pytest

from careen.control import loop as loop_module
from careen.control.loop import Loop
from careen.core.actions import Cordon, PolicyState, WriteNote, WritePolicy
from careen.core.snapshot import Note
from careen.kube.errors import Invalid


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
    return WritePolicy("p", "u", "1", PolicyState(1, None, None, (), ()), urgent)


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


class OneLock:
    """An API server with one RebootLock; `before_patch` runs once, right before a patch is looked at."""

    def __init__(self, status):
        self.lock = {"metadata": {"name": "default", "uid": "u", "resourceVersion": "1"}, "spec": {"max": 1}}
        if status is not None:
            self.lock["status"] = status
        self.before_patch = lambda: None

    def write(self, status):
        version = str(int(self.lock["metadata"]["resourceVersion"]) + 1)
        self.lock = {**self.lock, "status": status}
        self.lock["metadata"] = {**self.lock["metadata"], "resourceVersion": version}

    async def request(self, method, _path, *, body=None, **_):
        if method == "PATCH":
            happen, self.before_patch = self.before_patch, lambda: None
            happen()
            self._patch(body)
        return SimpleNamespace(body=copy.deepcopy(self.lock))

    def _patch(self, ops):
        tests = {op["path"]: op["value"] for op in ops if op["op"] == "test"}
        known = {f"/metadata/{key}": value for key, value in self.lock["metadata"].items()}
        (path, value) = next((op["path"], op["value"]) for op in ops if op["op"] == "add")
        if any(known[key] != wanted for key, wanted in tests.items()) or (
            path == "/status/term" and "status" not in self.lock
        ):
            raise Invalid(422, "Invalid", "the server rejected our request due to an error in our request")
        self.write({**self.lock["status"], "term": value} if path == "/status/term" else value)


async def raise_fence(api, term, *, may_write=lambda: True):
    async def relist():
        pass

    locks = SimpleNamespace(objects={"x": SimpleNamespace(name="default")}, relist=relist, apply=lambda _: None)
    loop = Loop(api, SimpleNamespace(locks=locks), None, asyncio.Event())
    await asyncio.wait_for(loop._raise_fence(term, may_write), 5)
    return api.lock.get("status")


HELD = [{"id": "m0"}]


@pytest.mark.parametrize(("status", "after"), [(None, {}), ({}, {}), ({"holders": HELD, "term": 1}, {"holders": HELD})])
async def test_the_fence_is_raised_over_whatever_is_there(status, after):
    assert await raise_fence(OneLock(status), 3) == {**after, "term": 3}


@pytest.mark.parametrize("status", [None, {"term": 1}])
async def test_the_fence_is_raised_over_what_was_written_meanwhile(status):
    api = OneLock(status)
    api.before_patch = lambda: api.write({"term": 2, "holders": HELD})
    assert await raise_fence(api, 3) == {"term": 3, "holders": HELD}


@pytest.mark.parametrize("status", [None, {"term": 1}])
async def test_a_deposed_leader_does_not_lower_its_successors_fence(status):
    api = OneLock(status)
    api.before_patch = lambda: api.write({"term": 4, "holders": HELD})
    assert await raise_fence(api, 3) == {"term": 4, "holders": HELD}
    assert await raise_fence(OneLock({"term": 4}), 3) == {"term": 4}


async def test_who_no_longer_leads_raises_no_fence():
    assert await raise_fence(OneLock({"term": 1}), 3, may_write=lambda: False) == {"term": 1}
