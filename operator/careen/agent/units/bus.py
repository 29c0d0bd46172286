"""The machine's systemd over D-Bus: what it pushes is kept, and it is asked only for what it has not told.

Units that do not run and that nobody looks at are forgotten by systemd, and are read anew when they are asked for; both
are told to everybody as UnitNew and UnitRemoved. So after such a word only units in systemd's memory are asked for:
to ask for the others by their paths would bring them back, with another word of it, for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .busnames import MATCHES, SERVICE, THE_BUS, THE_MANAGER, UNIT, Where, escape_pattern, properties_of, to_name
from .sight import ABSENT, UnitState
from .systemd import SystemdError

if TYPE_CHECKING:
    from dbus_fast import Message
    from dbus_fast.aio import MessageBus

logger = logging.getLogger(__name__)

SOCKET = "/run/dbus/system_bus_socket"
"""Where the system bus of a machine is."""
LINKS = Path("/run/systemd/system")
"""Where systemd links units until the next boot."""
CALL_SECONDS = 30.0
"""Deadline of one call. A reload of many units takes seconds; a start or a stop only queues a job."""
RELOAD_SECONDS = 120.0
"""Deadline of a reload: generators run in it."""
MOST_LOOKS = 5
"""How often a unit is asked for in a row when it changes during each answer."""
MOST_EARLY = 256
"""Results of jobs that are kept for callers who have not heard of their job yet."""

NO_UNIT = "org.freedesktop.systemd1.NoSuchUnit"
ABSENT_UNIT_FILES = ("org.freedesktop.DBus.Error.FileNotFound", "System.Error.ENOENT", NO_UNIT)
"""Errors of disabling a unit that has no file any more: there is nothing to disable."""


class BusSystemd:
    """systemd of a machine. It connects at the first call, and again after the connection was lost.

    address: of the bus, in D-Bus' form. files: folder of the unit files, as systemd names it. links: folder of the
    search path that systemd links them into. root: where the machine's / is seen.
    """

    def __init__(self, address: str, files: Path, *, links: Path = LINKS, root: Path = Path("/")) -> None:
        self._address = address
        self._files = files
        self._links = links
        self._root = root
        self._on_change: Callable[[], None] = lambda: None
        self._bus: MessageBus | None = None
        self._opening = asyncio.Lock()
        self._states: dict[str, UnitState] = {}
        self._known: frozenset[str] = frozenset()
        self._stale = False
        self._told: set[str] = set()
        self._calls = 0
        self._jobs: dict[str, asyncio.Future[str]] = {}
        self._early: dict[str, str] = {}
        self._watching: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None

    def listen(self, on_change: Callable[[], None]) -> None:
        """Call this when systemd tells of a unit that was last looked for."""
        self._on_change = on_change

    async def look(self, names: Collection[str]) -> Mapping[str, UnitState]:
        """The units of these names. Raises SystemdError, OSError."""
        await self._open()
        self._known = frozenset(names)
        for name in self._states.keys() - self._known:
            del self._states[name]
        if self._stale and self._known:
            await self._ask_for_loaded()
        for _ in range(MOST_LOOKS):
            # All of it may be forgotten while one is asked for: somebody has systemd read its files.
            for name in sorted(self._known - self._states.keys()):
                await self._ask_for(name)
            if self._known <= self._states.keys():
                return {name: self._states[name] for name in names}
        raise SystemdError("systemd reads its files again and again, so its units can't be seen")

    async def link(self, name: str, *, install: bool) -> None:
        """Link the file into /run/systemd/system, and enable it until the next boot if it says how."""
        self._states.pop(name, None)
        await self._manage("LinkUnitFiles", "asbb", [[str(self._files / name)], True, True])
        if install:
            await self._manage("EnableUnitFiles", "asbb", [[name], True, True])

    async def unlink(self, name: str) -> None:
        """Take all its links away, and forget its failure."""
        self._states.pop(name, None)
        await self._manage("DisableUnitFiles", "asb", [[name], True], unless=ABSENT_UNIT_FILES)
        await self._manage("ResetFailedUnit", "s", [name], unless=(NO_UNIT,))

    async def reload(self) -> None:
        """Read all unit files again."""
        try:
            await self._manage("Reload", seconds=RELOAD_SECONDS)
        finally:
            self._states.clear()

    async def start(self, name: str) -> Awaitable[str]:
        """Queue its start."""
        return await self._queue("StartUnit", name)

    async def stop(self, name: str) -> Awaitable[str]:
        """Queue its stop."""
        return await self._queue("StopUnit", name)

    async def close(self) -> None:
        """Disconnect."""
        tasks = [task for task in (self._watching, self._renewing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._drop("the connection was closed")

    async def _queue(self, member: str, name: str) -> Awaitable[str]:
        """Queue a job. Its result may come before the answer that names it, and is kept until then."""
        self._calls += 1
        try:
            (path,) = await self._manage(member, "ss", [name, "replace"])
        finally:
            self._calls -= 1
            if not self._calls:
                early, self._early = self._early, {}
            else:
                early = self._early
        job = self._jobs.setdefault(path, asyncio.get_running_loop().create_future())
        if path in early and not job.done():
            del self._jobs[path]
            job.set_result(early[path])
        return asyncio.shield(job)

    async def _ask_for(self, name: str) -> None:
        """Ask for one unit, which systemd reads for that if it must.

        What it tells of the unit meanwhile may be newer than the answer, though it is taken in before it: then the unit
        is asked for once more.
        """
        for _ in range(MOST_LOOKS):
            self._told.discard(name)
            (values,) = await self._call(properties_of(name), "GetAll", "s", [UNIT])
            self._states[name] = self._make_state(name, {key: variant.value for key, variant in values.items()})
            if name not in self._told:
                return
        # It changes all the time: the next look is soon enough.
        self._stale = True
        self._on_change()

    async def _ask_for_loaded(self) -> None:
        """Ask for those that systemd has in its memory; the others are at rest, whatever they were."""
        self._told.clear()
        # If systemd tells of further ones during the call, or gives no answer, it is to be asked again.
        self._stale = False
        try:
            patterns = [escape_pattern(name) for name in sorted(self._known)]
            (units,) = await self._manage("ListUnitsByPatterns", "asas", [[], patterns])
        except BaseException:
            self._stale = True
            raise
        listed = {unit[0]: unit for unit in units}
        for name in self._known & self._states.keys() - self._told:
            known, unit = self._states[name], listed.get(name)
            if unit is None:
                self._rest(name)
            elif unit[2] != known.load:
                # From which file it was read is not in the list.
                del self._states[name]
            else:
                self._states[name] = replace(known, active=unit[3], sub=unit[4])

    def _make_state(self, name: str, values: Mapping[str, Any]) -> UnitState:
        fragment = str(values.get("FragmentPath") or "")
        ours = fragment == str(self._files / name) or (fragment == str(self._links / name) and self._is_link(name))
        load, active, sub = (str(values.get(key) or "") for key in ("LoadState", "ActiveState", "SubState"))
        return UnitState(load, active, sub, fragment, ours)

    def _is_link(self, name: str) -> bool:
        """Whether the file in the search path is the link to ours, and not one that somebody else has put there."""
        try:
            link = self._root / self._links.relative_to("/") / name
            return link.readlink() == self._files / name
        except OSError:
            return False

    def _rest(self, name: str) -> None:
        self._states[name] = replace(self._states[name], active=ABSENT.active, sub=ABSENT.sub)

    async def _open(self) -> MessageBus:
        """The connection; a new one if there is none. Raises SystemdError, OSError."""
        async with self._opening:
            if self._bus is not None and self._bus.connected:
                return self._bus
            # Imported here: a machine without units never needs it.
            from dbus_fast import AuthError, InvalidAddressError
            from dbus_fast.aio import MessageBus

            try:
                async with asyncio.timeout(CALL_SECONDS):
                    bus = await MessageBus(bus_address=self._address).connect()
            except (AuthError, InvalidAddressError, EOFError, TimeoutError) as error:
                raise SystemdError(f"the bus {self._address} refuses: {error or type(error).__name__}") from error
            self._bus = bus
            bus.add_message_handler(self._hear)
            self._watching = asyncio.create_task(self._watch(bus))
            try:
                for rule in MATCHES:
                    await _send(bus, THE_BUS, "AddMatch", "s", [rule])
                await self._subscribe(bus)
            except BaseException:
                self._drop("the bus did not take the subscription")
                raise
            logger.info("connected to systemd at %s", self._address)
            return bus

    async def _subscribe(self, bus: MessageBus) -> None:
        await _send(bus, THE_MANAGER, "Subscribe")
        self._states.clear()

    async def _watch(self, bus: MessageBus) -> None:
        """Notice that the connection is lost, and let the next look make a new one."""
        with suppress(Exception):
            await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
        if self._bus is bus:
            logger.warning("the connection to systemd at %s was lost", self._address)
            self._drop("the connection to systemd was lost")
            self._on_change()

    def _drop(self, why: str) -> None:
        bus, self._bus = self._bus, None
        self._states.clear()
        jobs, self._jobs, self._early = self._jobs, {}, {}
        for job in jobs.values():
            if not job.done():
                job.set_exception(SystemdError(why))
                # Nobody may follow it any more.
                job.exception()
        if bus is not None and bus.connected:
            bus.disconnect()

    async def _manage(
        self,
        member: str,
        signature: str = "",
        body: list[Any] | None = None,
        *,
        seconds: float = CALL_SECONDS,
        unless: Iterable[str] = (),
    ) -> list[Any]:
        return await self._call(THE_MANAGER, member, signature, body, seconds=seconds, unless=unless)

    async def _call(
        self,
        where: Where,
        member: str,
        signature: str,
        body: list[Any] | None,
        *,
        seconds: float = CALL_SECONDS,
        unless: Iterable[str] = (),
    ) -> list[Any]:
        bus = await self._open()
        return await _send(bus, where, member, signature, body, seconds=seconds, unless=unless)

    def _hear(self, message: Message) -> bool:
        """Take in what systemd tells; whether anything more is to be done with the message: never."""
        if message.message_type.name != "SIGNAL":
            return False
        match message.interface, message.member:
            case "org.freedesktop.DBus.Properties", "PropertiesChanged":
                self._take_change(message)
            case "org.freedesktop.systemd1.Manager", "JobRemoved":
                self._take_result(str(message.body[1]), str(message.body[3]))
            case "org.freedesktop.systemd1.Manager", "UnitNew":
                self._note_unit(message.body[0], gone=False)
            case "org.freedesktop.systemd1.Manager", "UnitRemoved":
                self._note_unit(message.body[0], gone=True)
            case "org.freedesktop.systemd1.Manager", "Reloading" if not message.body[0]:
                self._states.clear()
                self._on_change()
            case "org.freedesktop.DBus", "NameOwnerChanged" if message.body[0] == SERVICE and message.body[2]:
                # systemd was started anew, as by an update of it: it knows nothing of who has subscribed.
                self._renewing = asyncio.create_task(self._renew())
        return False

    async def _renew(self) -> None:
        try:
            if self._bus is not None:
                await self._subscribe(self._bus)
        except SystemdError as error:
            logger.warning("systemd at %s took no subscription: %s", self._address, error)
            self._drop("systemd was started anew")
        self._on_change()

    def _take_change(self, message: Message) -> None:
        name = to_name(message.path or "")
        if name not in self._known or message.body[0] != UNIT:
            return
        self._told.add(name)
        known = self._states.get(name)
        if known is None:
            return
        changed: dict[str, Any] = {key: variant.value for key, variant in message.body[1].items()}
        found = replace(
            known,
            load=str(changed.get("LoadState", known.load)),
            active=str(changed.get("ActiveState", known.active)),
            sub=str(changed.get("SubState", known.sub)),
        )
        if found != known:
            self._states[name] = found
            self._on_change()

    def _take_result(self, path: str, result: str) -> None:
        job = self._jobs.pop(path, None)
        if job is None:
            if self._calls and len(self._early) < MOST_EARLY:
                self._early[path] = result
        elif not job.done():
            job.set_result(result)

    def _note_unit(self, name: str, *, gone: bool) -> None:
        if name not in self._known:
            return
        if gone and name in self._states:
            self._rest(name)
        else:
            # Its state may have changed before systemd first told of it.
            self._stale = True
        self._on_change()


async def _send(
    bus: MessageBus,
    where: Where,
    member: str,
    signature: str = "",
    body: list[Any] | None = None,
    *,
    seconds: float = CALL_SECONDS,
    unless: Iterable[str] = (),
) -> list[Any]:
    """Call a method; its answer. unless: names of errors that are as good as an answer. Raises SystemdError."""
    from dbus_fast import Message, MessageType

    message = Message(*where, member, signature=signature, body=body or [])
    try:
        async with asyncio.timeout(seconds):
            answer = await bus.call(message)
    except TimeoutError:
        raise SystemdError(f"{member}: no answer within {seconds:g} s") from None
    except (OSError, EOFError) as error:
        raise SystemdError(f"{member}: the connection was lost: {error}") from error
    if answer is None:
        raise SystemdError(f"{member}: no answer")
    if answer.message_type is MessageType.ERROR and answer.error_name not in tuple(unless):
        raise SystemdError(f"{answer.body[0] if answer.body else answer.error_name}")
    return list(answer.body)
