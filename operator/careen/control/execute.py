"""The executor: one small idempotent function for each action, several in flight, each guarded by one precondition.

It decides nothing. An answer goes into the store before the next plan; a refusal means that the plan was made from an
old view, and leaves the object alone until a newer version of it is seen.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from careen.api.meta import API_VERSION, CORDONED_ANNOTATION
from careen.core.actions import (
    Action,
    Cordon,
    CreateNode,
    DeleteNode,
    Evict,
    RekeyNode,
    SetOrder,
    SetUnits,
    Turn,
    Uncordon,
    WriteLock,
    WriteNote,
    WriteOutcome,
    WritePolicy,
    WriteUnit,
    list_turns,
    target,
)
from careen.core.encode import encode_lock_status, encode_note, encode_order, encode_outcome, encode_policy_status
from careen.core.pods import Refusal
from careen.core.unitdocs import encode_holdings, encode_unit_status
from careen.kube import write
from careen.kube.errors import AlreadyExists, ApiError, Conflict, NotFound, TooManyRequests, Unreachable
from careen.kube.events import Reporting, post_event
from careen.kube.evict import AlreadyGone, Evicted, Refused, evict
from careen.kube.resources import CORE_NODES, LOCKS, NODES, POLICIES, UNITS, Resource
from careen.kube.session import Session
from careen.kube.store import Store
from careen.observe import metrics

from .world import World

logger = logging.getLogger(__name__)

MOST_IN_FLIGHT = 64
MOST_NOTES_IN_FLIGHT = 2
"""Notes are for people: a burst of them must not stand before a grant at the API server."""
PATIENCE_SECONDS = 2.0
"""How long a note or an event may wait for orders and grants to get through."""
STALE_HOLD = 0.5
"""Seconds that an object is left alone after a failed precondition, if no newer version of it is seen before."""
FIRST_BACKOFF, LAST_BACKOFF = 0.5, 30.0
FAILURE_MEMORY = 300.0
"""Seconds after a hold for which failures still count: what is not tried again by then (a pod that went by itself)
would be remembered for ever."""
EVICTED_HOLD = 30.0
"""Seconds for which an accepted eviction is not asked for again: the deletion is on its way to our watch."""
EVICTION_BACKOFF = 5.0
"""Seconds between evictions that a disruption budget refuses, unless the server says otherwise."""
Target = tuple[str, str]


@dataclass(slots=True)
class Hold:
    """An object that is left alone for a while."""

    until: float
    version: str | None
    """A newer version than this one ends the hold; None: only time does."""
    failures: int = 0


class Executor:
    """Carries out actions. `wake` is called when one has ended; `may_write` is asked right before each."""

    def __init__(
        self, session: Session, world: World, identity: str, *, wake: Callable[[], None], may_write: Callable[[], bool]
    ) -> None:
        self._session = session
        self._world = world
        self._wake = wake
        self.may_write = may_write
        self._reporting = Reporting("careen.dev/operator", identity)
        self._slots = asyncio.Semaphore(MOST_IN_FLIGHT)
        self._note_slots = asyncio.Semaphore(MOST_NOTES_IN_FLIGHT)
        self._pressing: set[Target] = set()
        self._calm = asyncio.Event()
        self._calm.set()
        self._running: dict[Target, asyncio.Task[None]] = {}
        self._events: set[asyncio.Task[None]] = set()
        self._holds: dict[Target, Hold] = {}
        self.refusals: dict[str, Refusal] = {}

    def busy(self) -> frozenset[Target]:
        """Objects with a write on its way, or that are left alone for a while."""
        now = time.monotonic()
        self._holds = {
            where: hold
            for where, hold in self._holds.items()
            if now < hold.until + (FAILURE_MEMORY if hold.failures else 0.0)
        }
        held = (where for where, hold in self._holds.items() if now < hold.until and not self._is_newer(where, hold))
        return frozenset(self._running) | frozenset(held)

    def next_release(self) -> float | None:
        """Monotonic instant at which the next hold ends by time."""
        now = time.monotonic()
        return min((hold.until for hold in self._holds.values() if hold.until > now), default=None)

    @property
    def pressed(self) -> bool:
        """Whether something that machines wait for is on its way; what only people read can wait for a moment."""
        return bool(self._pressing)

    def submit(self, action: Action) -> None:
        """Start an action; its object is busy until it has ended."""
        where = target(action)
        assert where not in self._running, f"{where} has a write in flight"
        if not (isinstance(action, WriteNote | WritePolicy) or (isinstance(action, WriteUnit) and action.pace)):
            self._pressing.add(where)
            self._calm.clear()
        self._running[where] = asyncio.create_task(self._run(action, where), name=f"{type(action).__name__}-{where[1]}")

    async def close(self) -> None:
        """Cancel what is in flight and wait for it to end: a deposed leader writes nothing more."""
        tasks = [*self._running.values(), *self._events]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._running.clear()

    async def _run(self, action: Action, where: Target) -> None:
        name = type(action).__name__
        outcome = "failed"
        try:
            async with self._note_slots if isinstance(action, WriteNote) else self._slots:
                if not self.may_write():
                    outcome = "refused"
                    return
                outcome = await self._carry_out(action, where)
        finally:
            metrics.record_action(name, outcome)
            self._running.pop(where, None)
            self._pressing.discard(where)
            if not self._pressing:
                self._calm.set()
            self._wake()

    async def _carry_out(self, action: Action, where: Target) -> str:
        known = self._holds.get(where)
        try:
            done = await _DOERS[type(action)](self, action)
        except (Conflict, AlreadyExists, NotFound) as error:
            logger.info("%s %s is stale: %s", type(action).__name__, where[1], error.message)
            done = False
        except ApiError as error:
            asked = error.retry_after if isinstance(error, TooManyRequests) else None
            # Without an answer the write may have been done: only a newer version or time tells.
            version = self._version(where) if isinstance(error, Unreachable) else None
            self._back_off(where, known, version, asked or 0.0)
            logger.warning("%s %s failed: %s", type(action).__name__, where[1], error)
            return "failed"
        except Exception:
            # A bug: without a pause the next plan would ask for the same at once, and again, as fast as it can.
            self._back_off(where, known, None)
            logger.exception("%s %s failed", type(action).__name__, where[1])
            return "failed"
        if not done:
            self._holds[where] = Hold(time.monotonic() + STALE_HOLD, self._version(where))
            return "stale"
        if self._holds.get(where) is known:
            # Not one that the action itself has laid: then it asks for time.
            self._holds.pop(where, None)
        for turn in list_turns(action):
            self._post(turn)
        return "done"

    def _back_off(self, where: Target, known: Hold | None, version: str | None, least: float = 0.0) -> None:
        failures = (known.failures if known else 0) + 1
        wait = min(LAST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(failures - 1, 10))
        self._holds[where] = Hold(time.monotonic() + max(wait, least), version, failures)

    def _store(self, kind: str) -> Store[Any] | None:
        world = self._world
        stores: dict[str, Store[Any]] = {
            "Node": world.machines,
            "CoreNode": world.cores,
            "UpdatePolicy": world.policies,
            "RebootLock": world.locks,
            "Unit": world.units,
        }
        return stores.get(kind)

    def _version(self, where: Target) -> str | None:
        store = self._store(where[0])
        held = store.objects.get(("", where[1])) if store is not None else None
        return str(held.resource_version) if held is not None else None

    def _is_newer(self, where: Target, hold: Hold) -> bool:
        return hold.version is not None and self._version(where) != hold.version

    def _post(self, turn: Turn) -> None:
        stamp = hashlib.sha256(f"{turn.uid}/{turn.reason}/{turn.message}".encode()).hexdigest()[:16]
        regarding = {
            "apiVersion": API_VERSION,
            "kind": turn.kind,
            "metadata": {"name": turn.name, "uid": turn.uid},
        }
        task = asyncio.create_task(self._post_calmly(turn, regarding, stamp))
        self._events.add(task)
        task.add_done_callback(self._events.discard)

    async def _post_calmly(self, turn: Turn, regarding: dict[str, Any], stamp: str) -> None:
        """Post when nothing presses any more, or when people have waited long enough."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._calm.wait()
        await post_event(
            self._session,
            regarding,
            reason=turn.reason,
            note=turn.message,
            type="Warning" if turn.warning else "Normal",
            action=turn.reason,
            reporting=self._reporting,
            dedup=stamp,
        )

    async def _patch(
        self, resource: Resource, store: Store[Any], action: Any, ops: list[dict[str, Any]], *, status: bool = False
    ) -> bool:
        """A JSON patch that tests uid and resourceVersion; the answer goes into the store at once."""
        tests = [
            {"op": "test", "path": "/metadata/uid", "value": action.uid},
            {"op": "test", "path": "/metadata/resourceVersion", "value": action.resource_version},
        ]
        subresource = "status" if status else None
        answer = await write.patch_json(self._session, resource, action.name, [*tests, *ops], subresource=subresource)
        if isinstance(answer, write.TestFailed):
            return False
        store.apply(answer)
        return True

    async def create_node(self, action: CreateNode) -> bool:
        """Create the careen Node."""
        core = {"uid": action.core_uid, "machineID": action.machine_id}
        body = {"metadata": {"name": action.name}, "spec": {"coreNode": core}}
        self._world.machines.apply(await write.create(self._session, NODES, body))
        return True

    async def delete_node(self, action: DeleteNode) -> bool:
        """Delete the careen Node of a machine that is gone."""
        outcome = await write.delete(self._session, NODES, action.name, uid=action.uid)
        if outcome is write.Deletion.TERMINATING:
            # Somebody's finalizer keeps it: to ask again at once would change nothing, and go on for ever.
            self._holds[target(action)] = Hold(time.monotonic() + LAST_BACKOFF, None)
        else:
            self._world.machines.forget("", action.name, action.uid)
        return True

    async def rekey_node(self, action: RekeyNode) -> bool:
        """Note the core Node that the machine is registered as now."""
        core = {"uid": action.core_uid, "machineID": action.machine_id}
        ops = [{"op": "add", "path": "/spec/coreNode", "value": core}]
        return await self._patch(NODES, self._world.machines, action, ops)

    async def set_order(self, action: SetOrder) -> bool:
        """Replace the whole assignment."""
        ops = [{"op": "add", "path": "/spec/assignment", "value": encode_order(action.order)}]
        return await self._patch(NODES, self._world.machines, action, ops)

    async def write_lock(self, action: WriteLock) -> bool:
        """Replace term and holders: the grant."""
        lock = self._world.locks.objects.get(("", action.name))
        if lock is None:
            return False
        status = encode_lock_status(lock, action, self._world.now())
        ops = [{"op": "add", "path": "/status", "value": status}]
        return await self._patch(LOCKS, self._world.locks, action, ops, status=True)

    async def write_policy(self, action: WritePolicy) -> bool:
        """Replace a policy's status."""
        policy = self._world.policies.objects.get(("", action.name))
        if policy is None:
            return False
        status = encode_policy_status(policy, action.state, self._world.now())
        ops = [{"op": "add", "path": "/status", "value": status}]
        return await self._patch(POLICIES, self._world.policies, action, ops, status=True)

    async def write_unit(self, action: WriteUnit) -> bool:
        """Replace a unit's status, and in it the decision where it runs."""
        unit = self._world.units.objects.get(("", action.name))
        if unit is None:
            return False
        status = encode_unit_status(unit, action.state, self._world.now())
        ops = [{"op": "add", "path": "/status", "value": status}]
        return await self._patch(UNITS, self._world.units, action, ops, status=True)

    async def set_units(self, action: SetUnits) -> bool:
        """Replace what a machine is to hold of units."""
        ops = [{"op": "add", "path": "/spec/units", "value": encode_holdings(action.holdings)}]
        return await self._patch(NODES, self._world.machines, action, ops)

    async def write_note(self, action: WriteNote) -> bool:
        """Say why a machine waits; fields of the agent are not touched."""
        machine = self._world.machines.objects.get(("", action.name))
        if machine is None:
            return False
        body = {"metadata": {"uid": action.uid}, "status": encode_note(machine, action, self._world.now())}
        version = action.resource_version
        answer = await write.patch_merge(
            self._session, NODES, action.name, body, subresource="status", resource_version=version
        )
        self._world.machines.apply(answer)
        return True

    async def write_outcome(self, action: WriteOutcome) -> bool:
        """Store what came of a request, in place of what came of the one before."""
        status = encode_outcome(action, self._world.now())
        ops = [{"op": "add", "path": "/status/request", "value": status["request"]}]
        return await self._patch(NODES, self._world.machines, action, ops, status=True)

    async def cordon(self, action: Cordon) -> bool:
        """Make the node unschedulable and mark it as ours, in one patch."""
        return await self._mark(action.name, action.uid, action.resource_version, action.order, {"unschedulable": True})

    async def uncordon(self, action: Uncordon) -> bool:
        """Take our mark off, and the cordon with it if nobody has done so."""
        spec = {"unschedulable": None} if action.schedulable else {}
        return await self._mark(action.name, action.uid, action.resource_version, None, spec)

    async def _mark(self, name: str, uid: str, version: str, order: str | None, spec: dict[str, Any]) -> bool:
        body = {
            "metadata": {"uid": uid, "annotations": {CORDONED_ANNOTATION: order}},
            "spec": spec,
        }
        answer = await write.patch_merge(self._session, CORE_NODES, name, body, resource_version=version)
        self._world.cores.apply(answer)
        return True

    async def evict(self, action: Evict) -> bool:
        """Ask for one pod to leave; a budget's no is remembered for the plan."""
        outcome = await evict(self._session, action.namespace, action.name, action.uid)
        where = target(action)
        match outcome:
            case Evicted():
                metrics.record_eviction("evicted")
                self._remember(action.uid, None)
                self._holds[where] = Hold(time.monotonic() + EVICTED_HOLD, None)
            case AlreadyGone():
                metrics.record_eviction("gone")
                self._holds[where] = Hold(time.monotonic() + STALE_HOLD, None)
            case Refused():
                metrics.record_eviction("refused")
                budget = f"disruption budget {outcome.budget}: " if outcome.budget else ""
                wait = outcome.retry_after or EVICTION_BACKOFF
                named = (action.namespace, outcome.budget) if outcome.budget else None
                self._remember(action.uid, Refusal(f"{budget}{outcome.message}", self._world.now() + wait, named))
        return True

    def _remember(self, pod: str, refusal: Refusal | None) -> None:
        """Note what came of a pod's eviction; as a new mapping, since snapshots hold the one before."""
        kept = {uid: known for uid, known in self.refusals.items() if uid != pod}
        self.refusals = kept if refusal is None else {**kept, pod: refusal}

    def forget_refusals(self, pods: set[str]) -> None:
        """Drop refusals of pods that are gone."""
        self.refusals = {uid: refusal for uid, refusal in self.refusals.items() if uid in pods}


_DOERS: dict[type, Callable[[Executor, Any], Awaitable[bool]]] = {
    CreateNode: Executor.create_node,
    DeleteNode: Executor.delete_node,
    RekeyNode: Executor.rekey_node,
    SetOrder: Executor.set_order,
    WriteLock: Executor.write_lock,
    Cordon: Executor.cordon,
    Uncordon: Executor.uncordon,
    Evict: Executor.evict,
    WriteNote: Executor.write_note,
    WriteOutcome: Executor.write_outcome,
    WritePolicy: Executor.write_policy,
    WriteUnit: Executor.write_unit,
    SetUnits: Executor.set_units,
}
