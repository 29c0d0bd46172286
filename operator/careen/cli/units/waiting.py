"""Waiting for units by watch, with a deadline: until they are as wished for, or it is clear that they won't be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from careen.cli.fleet import Document
from careen.cli.target import CommandError
from careen.cli.units.progress import Goal, Progress, judge_unit
from careen.cli.units.views import UnitView, read_machine, read_unit
from careen.kube.resources import NODES, UNITS, Resource
from careen.kube.store import Store

if TYPE_CHECKING:
    from careen.kube.session import Session

T = TypeVar("T")
Tell = Callable[[str], None]
QUIET_SECONDS = 1.0
"""A reason to wait is told when it has lasted so long: what passes by itself is of no interest."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is waited for."""

    name: str
    object: str
    goal: Goal
    generation: int
    """Generation of the object that holds the wish."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What came of a wish."""

    name: str
    ok: bool
    sentence: str
    usual: bool = True
    """Whether it is as one would think; else people should read the sentence."""


class Watch:
    """Units as they are now, for any number of waits at once."""

    def __init__(self) -> None:
        self.units: Mapping[tuple[str, str], UnitView] = {}
        self._changed = asyncio.Event()

    def note_change(self) -> None:
        """Wake all who wait for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_change(self, seconds: float) -> bool:
        """Wait for the next change, at most so long; whether there was one."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True


@asynccontextmanager
async def watch_units(session: Session, objects: set[str], seconds: float) -> AsyncIterator[Watch]:
    """Follow these Unit objects. CommandError when they can't be read within so many seconds."""
    watch = Watch()

    def decode(document: Document) -> UnitView | None:
        return read_unit(document) if document["metadata"]["name"] in objects else None

    field = f"metadata.name={next(iter(objects))}" if len(objects) == 1 else None
    store = Store(session, UNITS, decode=decode, field_selector=field, on_change=lambda _: watch.note_change())
    watch.units = store.objects
    async with _running(store, seconds):
        yield watch


@asynccontextmanager
async def _running(store: Store[T], seconds: float) -> AsyncIterator[None]:
    run = asyncio.create_task(store.run())
    try:
        try:
            await store.wait_synced(seconds)
        except TimeoutError as error:
            raise CommandError(str(error)) from error
        yield
    finally:
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)


async def wait_for(watch: Watch, wish: Wish, seconds: float, tell: Tell) -> Ending:
    """Wait until the wish has come true or can't, at most so long; reasons to wait go to `tell` as they change."""
    ends = time.monotonic() + seconds
    told: str | None = None
    last: Progress | None = None
    since = time.monotonic()
    while True:
        unit = watch.units.get(("", wish.object))
        if unit is None:
            return Ending(wish.name, ok=False, sentence=f"Unit {wish.name} was destroyed meanwhile")
        progress = judge_unit(unit, wish.goal, wish.generation)
        now = time.monotonic()
        if progress != last:
            last, since = progress, now
        waiting = progress.outcome == "Waiting"
        held = QUIET_SECONDS if waiting else progress.settle
        if now - since >= held:
            if not waiting:
                ok = progress.outcome == "Done"
                return Ending(wish.name, ok=ok, sentence=progress.sentence, usual=not progress.settle)
            if progress.sentence and progress.sentence != told:
                told = progress.sentence
                tell(f"Unit {wish.name} waits: {told}")
        if now >= ends:
            why = f": {progress.sentence}" if progress.sentence else ""
            return Ending(wish.name, ok=False, sentence=f"Unit {wish.name} is not {wish.goal} after {seconds:g} s{why}")
        settled = since + held
        await watch.wait_change(min(ends, settled if settled > now else ends) - now)


async def wait_gone(session: Session, names: set[str], seconds: float, tell: Tell) -> dict[str, list[str]]:
    """Wait until no machine has anything of these units; for each that is left after so long, the machines."""
    watch = Watch()

    def decode(document: Document) -> frozenset[str]:
        machine = read_machine(document, None)
        held = {each.unit for each in machine.reports if each.held}
        # Ordered and not reported yet: it may be about to start.
        ordered = {each["name"] for each in (document.get("spec") or {}).get("units") or ()}
        return frozenset(names & (held | ordered))

    store: Store[frozenset[str]] = _make_store(session, NODES, decode, watch)
    ends = time.monotonic() + seconds
    async with _running(store, seconds):
        quiet = time.monotonic() + QUIET_SECONDS
        while left := _group(store.objects):
            now = time.monotonic()
            if now >= ends:
                break
            if quiet <= now:
                tell("; ".join(f"Unit {name} is still on {', '.join(left[name])}" for name in sorted(left)))
                quiet = ends
            await watch.wait_change(min(ends, quiet) - now)
    return left


def _make_store(session: Session, kind: Resource, decode: Callable[[Document], T], watch: Watch) -> Store[T]:
    return Store(session, kind, decode=decode, on_change=lambda _: watch.note_change())


def _group(machines: Mapping[tuple[str, str], frozenset[str]]) -> dict[str, list[str]]:
    """Machines that have something of a unit, by the unit."""
    found: dict[str, list[str]] = {}
    for (_, machine), names in sorted(machines.items()):
        for name in names:
            found.setdefault(name, []).append(machine)
    return found
