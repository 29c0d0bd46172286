"""The leader's loop: plan at once when idle; what arrives during a plan joins the next; no polling in between."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Any

from careen.core.actions import Action, Plan, WriteNote, WritePolicy, WriteUnit
from careen.core.decode import decode_lock
from careen.core.plan import make_plan
from careen.core.rollouts import needed_releases
from careen.core.roster import Roster
from careen.kube import write
from careen.kube.errors import NotFound
from careen.kube.resources import LOCKS
from careen.kube.retry import retry_idempotent
from careen.kube.session import Session
from careen.observe import metrics

from .decisions import log_decision
from .execute import PATIENCE_SECONDS, Executor
from .figures import Sight
from .laps import record_lap
from .releases import ReleaseBook
from .stopwatch import Stopwatch
from .world import World

logger = logging.getLogger(__name__)

POLICY_WRITE_SECONDS = 1.0
"""Least seconds between two writes of one policy's status: counts move with every machine, people read slower."""
LONGEST_SLEEP = 60.0
FENCE_SECONDS = 30.0


class Loop:
    """One leader's work, from the fence to the last plan."""

    def __init__(self, session: Session, world: World, book: ReleaseBook, wake: asyncio.Event) -> None:
        self._session = session
        self._world = world
        self._book = book
        self._wake = wake
        self._policy_writes: dict[str, float] = {}
        self._unit_writes: dict[str, float] = {}
        self._roster = Roster()
        self._deferred: float | None = None
        self._notes_wait_since: float | None = None
        self._shown: tuple[set[str], set[str]] = (set(), set())
        self._stopwatch = Stopwatch()
        self.sight: Sight | None = None
        """What the last plan saw; None while this process does not lead."""
        self.planned_at: float | None = None
        """Monotonic instant of the last plan, or of the lead's beginning; for the liveness probe."""

    async def lead(self, term: int, executor: Executor) -> None:
        """Lead until cancelled: raise the fence, take a consistent list, then plan and act."""
        # From here on: an earlier lead's last plan would look as if this one were stuck, and what it waited for as due.
        self.planned_at = time.monotonic()
        self._world.begin_lead()
        self._stopwatch = Stopwatch()
        self._roster = Roster()
        await self._world.wait_synced(FENCE_SECONDS * 10)
        await self._raise_fence(term, executor.may_write)
        await self._world.relist()
        metrics.show_leader(True, term)
        try:
            while True:
                self._wake.clear()
                sight = self._plan(term, executor)
                told = {explanation.machine: explanation for explanation in sight.plan.explanations}
                for action in sight.plan.actions:
                    if not self._must_wait(action, executor):
                        executor.submit(action)
                        log_decision(action, told)
                self._show(sight)
                await self._sleep(sight.plan, executor)
        finally:
            metrics.show_leader(False, term)
            self.sight = None
            self._book.want({})  # Who stands by has no use for answers, and the next lead looks anew.
            await executor.close()

    async def _raise_fence(self, term: int, may_write: Callable[[], bool]) -> None:
        """Write our term into every RebootLock: from here on every late write of an older leader fails (rule 2)."""
        await self._world.locks.relist()
        names = [lock.name for lock in self._world.locks.objects.values()]
        await asyncio.gather(*(self._raise_term(name, term, may_write) for name in names))

    async def _raise_term(self, name: str, term: int, may_write: Callable[[], bool]) -> None:
        """Write our term into one lock, however often others write it meanwhile; never over a successor's.

        Each try is a compare-and-swap on what was just read: a leader that was deposed meanwhile would lower the term
        of the next one. Where none succeeds within FENCE_SECONDS, the first plan writes the term, and it grants
        nothing from this lock before.
        """

        async def attempt() -> bool:
            path = LOCKS.path(name=name)
            stored = (await self._session.request("GET", path, timeout=FENCE_SECONDS / 3)).body
            lock = decode_lock(stored)
            if lock.term >= term or not may_write():
                return True
            wanted = ("/status/term", term) if "status" in stored else ("/status", {"term": term})
            ops: list[dict[str, Any]] = [
                {"op": "test", "path": "/metadata/uid", "value": lock.uid},
                {"op": "test", "path": "/metadata/resourceVersion", "value": lock.resource_version},
                {"op": "add", "path": wanted[0], "value": wanted[1]},
            ]
            answer = await write.patch_json(self._session, LOCKS, name, ops, subresource="status")
            if isinstance(answer, write.TestFailed):
                return False
            self._world.locks.apply(answer)
            return True

        until = time.monotonic() + FENCE_SECONDS
        with suppress(NotFound):  # Deleted since the list.
            while not await retry_idempotent(attempt, deadline=FENCE_SECONDS) and time.monotonic() < until:
                pass

    def _plan(self, term: int, executor: Executor) -> Sight:
        started = time.monotonic()
        busy = executor.busy()
        snapshot = self._world.snapshot(term=term, busy=busy, refusals=executor.refusals, releases=self._book.known())
        self._book.want(needed_releases(snapshot))
        executor.forget_refusals({pod.uid for pods in snapshot.pods.values() for pod in pods})
        plan = make_plan(snapshot, self._world.now(), self._roster)
        self._unit_writes = {name: at for name, at in self._unit_writes.items() if name in snapshot.units}
        self.planned_at = time.monotonic()
        metrics.record_plan(self.planned_at - started)
        return Sight(snapshot, plan)

    def _must_wait(self, action: Action, executor: Executor) -> bool:
        """Whether an action that only people read has to wait; it is then planned anew when its time comes."""
        now = time.monotonic()
        match action:
            case WritePolicy():
                due = self._policy_writes.get(action.name, 0.0) + POLICY_WRITE_SECONDS
                if action.urgent or now >= due:
                    self._policy_writes[action.name] = now
                    return False
            case WriteUnit():
                due = self._unit_writes.get(action.name, -inf) + action.pace
                if now >= due:
                    self._unit_writes[action.name] = now
                    return False
            case WriteNote() if not is_timed(action):
                if not executor.pressed:
                    self._notes_wait_since = None
                    return False
                self._notes_wait_since = self._notes_wait_since or now
                due = self._notes_wait_since + PATIENCE_SECONDS
                if now >= due:
                    return False
            case _:
                return False
        self._deferred = due if self._deferred is None else min(self._deferred, due)
        return True

    async def _sleep(self, plan: Plan, executor: Executor) -> None:
        """Until something has changed, or until the passing of time alone may change the plan."""
        mono = time.monotonic()
        wakes = [mono + LONGEST_SLEEP]
        if plan.wake_at is not None:
            wakes.append(mono + plan.wake_at - self._world.now())
        wakes += [at for at in (executor.next_release(), self._world.next_silence(), self._deferred) if at is not None]
        self._deferred = None
        try:
            async with asyncio.timeout(max(0.001, min(wakes) - mono)):
                await self._wake.wait()
        except TimeoutError:
            return
        # Events that are already in the socket's buffer join this plan instead of causing another one.
        await asyncio.sleep(0)

    def _show(self, sight: Sight) -> None:
        """Bring the metrics up to date, when all that presses is on its way."""
        self.sight = sight
        policies, locks = set(sight.snapshot.policies), set(sight.snapshot.locks)
        before_policies, before_locks = self._shown
        self._shown = (policies, locks)
        for name in policies - before_policies:
            metrics.expect_policy(name)
        for name in locks - before_locks:
            metrics.expect_lock(name)
        for lap in self._stopwatch.look(sight, time.monotonic()):
            record_lap(lap)
        for name in before_policies - policies:
            metrics.forget_policy(name)
            self._policy_writes.pop(name, None)
        for name in before_locks - locks:
            metrics.forget_lock(name)


def is_timed(action: WriteNote) -> bool:
    """Whether something runs from an instant in this note, so that it must be stored at once."""
    return action.note.state == "Draining" or action.note.settled_since is not None
