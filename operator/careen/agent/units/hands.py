"""Carries operations out, and follows the jobs of systemd that come of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from .decision import Load, Operation, Reload, Start, Stop, Unload, tell_unread
from .sight import Launch
from .systemd import DONE, SystemdError, UnitHost

logger = logging.getLogger(__name__)

STOP_SECONDS = 600.0
"""How long a stop is waited for before it is called failed and asked for again; systemd itself kills after 90 seconds
unless the unit says otherwise. A start may take for ever, and is waited for as long as the agent lives."""

Note = Callable[[Operation, Exception | None], None]


@dataclass
class Outcome:
    """What came of the operations of one pass."""

    failed: set[str] = field(default_factory=set)
    """Units whose operation failed; no further one was tried on them."""
    loaded: set[str] = field(default_factory=set)
    """Units whose file was linked."""
    unloaded: set[str] = field(default_factory=set)
    """Units whose file was taken away."""
    unreadable: str | None = None
    """Why systemd could not read the files again; None if it could, or was not asked to."""


class Hands:
    """Does what was decided. node: for the log. note_fault: told of jobs that failed; wake: of all that ended."""

    def __init__(
        self, host: UnitHost, node: str, note_fault: Callable[[str, str], None], wake: Callable[[], None]
    ) -> None:
        self._shelf = host.shelf
        self._systemd = host.systemd
        self._node = node
        self._note_fault = note_fault
        self._wake = wake
        self._stops: dict[str, asyncio.Task[None]] = {}
        self._starts: dict[str, asyncio.Task[None]] = {}

    @property
    def stopping(self) -> frozenset[str]:
        """Units whose stop was asked for and has not ended."""
        return frozenset(self._stops)

    async def close(self) -> None:
        """Follow no job any longer; systemd goes on with them."""
        tasks = [*self._stops.values(), *self._starts.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def carry_out(self, operations: Iterable[Operation], note: Note) -> Outcome:
        """Do them in their order. A unit with which one fails is left alone; the others go on."""
        outcome = Outcome()
        for operation in operations:
            name = None if isinstance(operation, Reload) else operation.name
            if name in outcome.failed or (outcome.unreadable is not None and isinstance(operation, Start)):
                # What systemd has not read must not be started: it would run the content before it. A file may have
                # been linked in a pass before this one, so this goes for all of them.
                continue
            try:
                await self._do(operation)
            except (SystemdError, OSError) as error:
                note(operation, error)
                if name is not None:
                    outcome.failed.add(name)
                    continue
                outcome.unreadable = str(error) or type(error).__name__
                changed = outcome.loaded | outcome.unloaded
                for each in sorted(changed):
                    self._note_fault(each, tell_unread(error))
                outcome.failed |= changed
            else:
                note(operation, None)
                if isinstance(operation, Load):
                    outcome.loaded.add(operation.name)
                elif isinstance(operation, Unload):
                    outcome.unloaded.add(operation.name)
        return outcome

    async def _do(self, operation: Operation) -> None:
        match operation:
            case Unload(name):
                self._shelf.note_unread(True)
                await self._systemd.unlink(name)
                self._shelf.remove(name)
                self._shelf.note_launch(name, None)
            case Load():
                await self._load(operation)
            case Reload():
                await self._systemd.reload()
                self._shelf.note_unread(False)
            case Stop(name):
                self._note_stop(name)
                job = await self._systemd.stop(name)
                self._stops[name] = asyncio.create_task(self._follow_stop(name, job))
            case Start(name, digest):
                await self._start(name, digest)

    async def _load(self, load: Load) -> None:
        self._shelf.note_unread(True)
        self._shelf.write(load.name, load.text)
        try:
            await self._systemd.link(load.name, install=load.install)
        except (SystemdError, OSError):
            # A file that could not be enabled is not held: the next try begins from nothing.
            with suppress(SystemdError, OSError):
                await self._systemd.unlink(load.name)
            self._shelf.remove(load.name)
            raise

    def _note_stop(self, name: str) -> None:
        launch = self._shelf.look().launches.get(name)
        if launch is not None:
            self._shelf.note_launch(name, replace(launch, stopping=True))

    async def _start(self, name: str, digest: str) -> None:
        job = await self._systemd.start(name)
        # Not before: an agent that dies in between asks once more, which changes nothing of a unit that runs.
        self._shelf.note_launch(name, Launch(digest))
        if (before := self._starts.pop(name, None)) is not None:
            before.cancel()
        self._starts[name] = asyncio.create_task(self._follow_start(name, digest, job))

    async def _follow_stop(self, name: str, job: Awaitable[str]) -> None:
        try:
            async with asyncio.timeout(STOP_SECONDS):
                result = await job
        except TimeoutError:
            self._note_fault(name, f"its stop has not ended within {STOP_SECONDS:g} s")
        except SystemdError as error:
            self._note_fault(name, f"its stop can't be followed: {error}")
        else:
            if result == "done":
                self._shelf.note_launch(name, None)
            else:
                self._note_fault(name, f"its stop ended with {result}: it may run on, and its file stays")
        finally:
            self._stops.pop(name, None)
            self._wake()

    async def _follow_start(self, name: str, digest: str, job: Awaitable[str]) -> None:
        try:
            result = await job
        except SystemdError as error:
            logger.info("%s: the start of %s can't be followed: %s", self._node, name, error)
            return
        launch = Launch(digest)
        if result not in DONE and self._shelf.look().launches.get(name) == launch:
            self._shelf.note_launch(name, Launch(digest, f"its start ended with {result}"))
            logger.warning("%s: the start of %s ended with %s", self._node, name, result)
        self._starts.pop(name, None)
        self._wake()
