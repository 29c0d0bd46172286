"""An independent witness: watches all that decides on availability, and tells afterwards what was true at each instant.

It shares no code with the operator's decisions. The versions of all objects of one etcd are in one order, so the
events of its watches are put into the very order in which they happened, whichever stream was faster.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from careen.kube.errors import Gone, Unreachable
from careen.kube.resources import CORE_NODES, LEASES, LOCKS, NODES, POLICIES, Resource
from careen.kube.session import Session

Document = dict[str, Any]
Found = TypeVar("Found")

KINDS = (CORE_NODES, NODES, LOCKS, POLICIES, LEASES)
SILENCE_SECONDS = 180.0
PATIENCE_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Sighting:
    """One version of one object."""

    version: int
    kind: Resource
    name: str
    document: Document | None
    """None: it was deleted."""
    at: float
    """When it arrived here, in monotonic seconds."""


@dataclass(slots=True)
class Moment:
    """What was true from one version on."""

    version: int = 0
    unavailable: dict[str, str] = field(default_factory=dict)
    """Machines that were unavailable, and why."""
    holders: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Ids of the holders by lock."""
    terms: dict[str, int] = field(default_factory=dict)
    """Terms by lock."""


class Witness:
    """Watches until it is told to stop; see `call_witness`. Leases are those of one namespace, by their names."""

    def __init__(self, session: Session, namespace: str) -> None:
        self._session = session
        self._namespace = namespace
        self._seen: list[Sighting] = []
        self._listed = 0
        self._changed = asyncio.Condition()
        self.dismissed = False
        """Set it when the test takes the API server's history away: nothing is watched from then on."""
        self.live: dict[Resource, dict[str, Document]] = {kind: {} for kind in KINDS}
        """The objects as they were last seen, by kind and name."""

    async def listen(self, on_open: Callable[[], None]) -> None:
        """Watch all kinds until cancelled; `on_open` is called when all have been listed."""
        left = len(KINDS)

        def count() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                on_open()

        async with asyncio.TaskGroup() as group:
            for kind in KINDS:
                group.create_task(self._follow(kind, count))

    async def until(self, check: Callable[[Witness], Found], what: str, seconds: float = PATIENCE_SECONDS) -> Found:
        """Wait until `check` finds something true in `live`; TimeoutError with `what` when it does not in time."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                while not (found := check(self)):
                    await self._changed.wait()
                return found
        except TimeoutError:
            raise TimeoutError(f"not within {seconds:g} s: {what}") from None

    def replay(self) -> Iterator[Moment]:
        """What was true after each event, in the order of the versions, from when all kinds had been listed."""
        state: dict[Resource, dict[str, Document]] = {kind: {} for kind in KINDS}
        beats: dict[str, tuple[str, float]] = {}
        for seen in sorted(self._seen, key=lambda one: one.version):
            if seen.document is None:
                state[seen.kind].pop(seen.name, None)
            else:
                state[seen.kind][seen.name] = seen.document
                if seen.kind is LEASES:
                    renewed = seen.document.get("spec", {}).get("renewTime", "")
                    if beats.get(seen.name, ("", 0.0))[0] != renewed:
                        beats[seen.name] = (renewed, seen.at)
            if seen.version >= self._listed:
                yield _describe(seen, state, beats)

    def history(self, kind: Resource, name: str) -> list[Document]:
        """All versions of one object that were seen, in their order."""
        return [seen.document for seen in self.sightings(kind, name) if seen.document is not None]

    def sightings(self, kind: Resource, name: str) -> list[Sighting]:
        """All versions of one object that were seen, in their order, with the instants at which they arrived."""
        mine = (seen for seen in self._seen if seen.kind is kind and seen.name == name)
        return sorted(mine, key=lambda one: one.version)

    async def _follow(self, kind: Resource, on_listed: Callable[[], None]) -> None:
        path = kind.path(self._namespace if kind is LEASES else None)
        answer = (await self._session.request("GET", path)).body
        version = int(answer["metadata"]["resourceVersion"])
        self._listed = max(self._listed, version)
        for item in answer["items"] or ():
            await self._take(kind, "ADDED", item)
        on_listed()
        while True:
            query: dict[str, str | int] = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"}
            try:
                async with aclosing(self._session.stream(path, query)) as events:
                    async for event in events:
                        version = int(event["object"]["metadata"]["resourceVersion"])
                        await self._take(kind, event["type"], event["object"])
            except Unreachable:
                await asyncio.sleep(0.2)
            except Gone as error:
                raise RuntimeError(f"the witness has missed something of {path}: {error}") from error

    async def _take(self, kind: Resource, event: str, document: Document) -> None:
        if event == "BOOKMARK":
            return
        meta = document["metadata"]
        name, version = meta["name"], int(meta["resourceVersion"])
        deleted = event == "DELETED"
        self._seen.append(Sighting(version, kind, name, None if deleted else document, time.monotonic()))
        async with self._changed:
            if deleted:
                self.live[kind].pop(name, None)
            else:
                self.live[kind][name] = document
            self._changed.notify_all()


@asynccontextmanager
async def call_witness(session: Session, namespace: str) -> AsyncIterator[Witness]:
    """A witness that has listed everything and goes on watching; RuntimeError if it missed anything."""
    witness, opened = Witness(session, namespace), asyncio.Event()
    task = asyncio.create_task(witness.listen(opened.set), name="witness")
    waiting = asyncio.create_task(opened.wait())
    try:
        await asyncio.wait({task, waiting}, timeout=PATIENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        yield witness
        if task.done() and not witness.dismissed:
            task.result()
    finally:
        for each in (waiting, task):
            each.cancel()
        await asyncio.gather(waiting, task, return_exceptions=True)


def _describe(
    seen: Sighting, state: dict[Resource, dict[str, Document]], beats: dict[str, tuple[str, float]]
) -> Moment:
    locks = state[LOCKS]
    holders = {
        name: tuple(entry["id"] for entry in lock.get("status", {}).get("holders") or ())
        for name, lock in locks.items()
    }
    held = {name for names in holders.values() for name in names}
    unavailable = {}
    for name, node in state[NODES].items():
        beat = beats.get(f"agent-{name}")
        # An agent's Lease follows its Node: a machine that has never spoken is new, and was not taken down by anybody.
        silent = beat is not None and seen.at - beat[1] > SILENCE_SECONDS
        why = _find_fault(state[CORE_NODES].get(name), node, holds=name in held, silent=silent)
        if why:
            unavailable[name] = why
    terms = {name: int(lock.get("status", {}).get("term") or 0) for name, lock in locks.items()}
    return Moment(seen.version, unavailable, holders, terms)


def _find_fault(core: Document | None, node: Document, *, holds: bool, silent: bool) -> str:
    """Why a machine counts as unavailable; empty if it does not."""
    if core is None:
        return "no core Node"
    conditions = core.get("status", {}).get("conditions") or ()
    if not any(each["type"] == "Ready" and each["status"] == "True" for each in conditions):
        return "not Ready"
    if core.get("spec", {}).get("unschedulable"):
        return "unschedulable"
    if silent:
        return "silent"
    if holds:
        return "holds"
    return "in flight" if is_in_flight(node) else ""


def is_in_flight(node: Document) -> bool:
    """Whether a careen Node's goal Activate was written and its order has not ended."""
    order = node.get("spec", {}).get("assignment") or {}
    step = node.get("status", {}).get("step") or {}
    phase = step.get("phase") if step.get("id") == order.get("id") else None
    if not order.get("fromBootID"):
        return phase is None and step.get("phase") in ("Activating", "Verifying")
    if phase in ("Committed", "RolledBack"):
        return False
    if order["goal"] == "Abort" and phase not in ("Activating", "Verifying"):
        return False
    return not (phase == "Failed" and step.get("observedGoal") == order["goal"])
