"""Keeps a machine's units as they are ordered, beside the updates: look, decide, act, tell, and wait for a change.

It holds no state that matters: an agent that is killed at any line finds what it needs on the shelf and in systemd.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from careen.agent.reminder import Reminder
from careen.agent.view import NodeView
from careen.kube.errors import ApiError
from careen.kube.resources import NODES
from careen.kube.session import Session
from careen.kube.store import Store
from careen.kube.write import patch_merge

from .contents import Contents, NoAnswerError
from .decision import Operation, Plan, Reload, decide, find_wanted
from .hands import Hands
from .report import Pacer, count_active, list_done, normalize, report_blindness, report_units
from .settings import KeeperSettings
from .sight import Order, Orders, Sight, UnitState, read_orders
from .systemd import SystemdError, UnitHost

logger = logging.getLogger(__name__)

BLIND_SECONDS = 10.0
"""How soon a systemd that did not answer is asked again."""
REMINDER_SECONDS = 600.0
"""How often the log says again that it still does not."""
LONGEST_API_PAUSE_SECONDS = 60.0
MOST_TURNS = 16
"""Turns in a row with something to do before the keeper takes its time: an order is done in two or three."""
CALM_SECONDS = 5.0
"""How long it then waits before each further one: what comes to no end must not take the machine's processor."""


@dataclass(frozen=True)
class Fault:
    """Why an order is not done."""

    order: Order
    message: str
    until: float
    """Instant of time.monotonic() before which the unit is left alone."""


class Keeper:
    """Runs beside the agent's loop. name: of the machine; nodes: its Node, which others keep up to date."""

    def __init__(
        self, host: UnitHost, session: Session, name: str, nodes: Store[NodeView], settings: KeeperSettings
    ) -> None:
        self._host = host
        self._session = session
        self._name = name
        self._nodes = nodes
        self._settings = settings
        self._wake = asyncio.Event()
        self._contents = Contents(session, settings.request_seconds)
        self._hands = Hands(host, name, self._note_fault, self._wake.set)
        self._pacer = Pacer(settings.pace)
        self._entries: object = None
        self._orders = Orders()
        self._told: frozenset[Order] = frozenset()
        self._faults: dict[str, Fault] = {}
        self._loaded: dict[str, str] = {}
        self._reload_after = 0.0
        self._unreadable: str | None = None
        self._turns = 0
        self._api_after = 0.0
        self._api_failures = 0
        self._blindness = Reminder(REMINDER_SECONDS)

    def wake(self) -> None:
        """The Node has changed."""
        self._wake.set()

    async def run(self) -> None:
        """Keep the units until cancelled; what runs then runs on."""
        self._host.systemd.listen(self._wake.set)
        try:
            while True:
                self._wake.clear()
                try:
                    pause = await self._turn()
                except Exception:
                    # A bug. The updates of this machine must not suffer from it, nor its units be forgotten for good.
                    logger.exception("%s: units", self._name)
                    pause = self._settings.retry_seconds
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
        finally:
            await self._hands.close()
            await self._host.systemd.close()

    async def _turn(self) -> float | None:
        """One look with all that follows from it; seconds until the next one, None: when something changes."""
        node = self._nodes.objects.get(("", self._name))
        if node is None:
            # Not known yet, or gone: that orders nothing.
            return None
        self._read_orders(node)
        try:
            sight = await self._look()
        except (SystemdError, OSError) as error:
            return await self._tell_blindness(node, error)
        if self._blindness.forget():
            logger.info("%s: systemd answers again", self._name)
        if sight is None:
            return await self._report(node, [], None)
        pause = self._settings.look_seconds if self._orders.listed or sight.held else None
        self._note_unfound(sight)
        if await self._fetch(sight):
            # The machine and its orders have gone on while the API server was asked, which may take its time.
            return 0.0
        refusals = await self._work(sight)
        faults = refusals | {name: fault.message for name, fault in self._faults.items()}
        self._observe(sight, faults)
        pause = _sooner(pause, self._until_retry())
        return await self._report(node, report_units(self._orders, sight, faults), pause)

    def _read_orders(self, node: NodeView) -> None:
        if node.units == self._entries:
            return
        self._entries, self._orders = node.units, read_orders(node.units)
        self._api_after = 0.0
        listed = {each.name: each for each in self._orders.listed}
        # What failed is tried again with the next change of the list; with another order its failure is forgotten.
        kept = {name: fault for name, fault in self._faults.items() if listed.get(name) == fault.order}
        self._faults = {name: replace(fault, until=0.0) for name, fault in kept.items()}

    async def _look(self) -> Sight | None:
        """The units of the machine; None if there are none, and systemd was not asked."""
        shelved = self._host.shelf.look()
        names = {*(each.name for each in self._orders.listed), *self._orders.unreadable, *shelved.held}
        names |= shelved.launches.keys()
        if not names and not shelved.unread:
            return None
        states: Mapping[str, UnitState] = await self._host.systemd.look(names)
        unreadable = self._unreadable if time.monotonic() < self._reload_after else None
        return Sight(shelved.held, states, shelved.launches, shelved.unread, self._hands.stopping, unreadable)

    async def _work(self, sight: Sight) -> dict[str, str]:
        """Do what is to be done now; refusals that stand as long as the machine is as it is."""
        waiting = self._find_waiting()
        plan = decide(self._orders.listed, self._contents.texts, sight, waiting)
        busy = {name for each in plan.operations if (name := _name_of(each)) is not None}
        missing = {each.name for each in self._find_wanted(sight) if each.hash not in self._contents.texts}
        for name in self._faults.keys() - waiting - busy - missing - sight.stopping:
            del self._faults[name]
        self._turns = self._turns + 1 if plan.operations else 0
        if plan.operations:
            await self._act(plan)
        return dict(plan.refusals)

    def _find_waiting(self) -> set[str]:
        now = time.monotonic()
        return {name for name, fault in self._faults.items() if fault.until > now}

    def _find_wanted(self, sight: Sight) -> list[Order]:
        waiting = self._find_waiting()
        return [each for each in find_wanted(self._orders.listed, sight) if each.name not in waiting]

    async def _fetch(self, sight: Sight) -> bool:
        """Read the contents that are missing; whether the API server was asked for any."""
        wanted = self._find_wanted(sight)
        self._contents.keep(wanted)
        if time.monotonic() < self._api_after or all(each.hash in self._contents.texts for each in wanted):
            return False
        try:
            problems = await self._contents.fetch(wanted)
        except NoAnswerError as error:
            logger.warning("%s: contents of units can't be read: %s", self._name, error)
            self._pause_api()
            return True
        for order in wanted:
            if order.name in problems:
                self._note_fault(order.name, problems[order.name])
        return True

    def _note_unfound(self, sight: Sight) -> None:
        """Files that systemd does not find though they were linked: not again and again without a pause."""
        for name, digest in self._loaded.items():
            if sight.held.get(name) == digest and sight.state(name).load == "not-found":
                self._note_fault(name, "systemd does not find its file, though it was linked")
        self._loaded = {}

    async def _act(self, plan: Plan) -> None:
        outcome = await self._hands.carry_out(plan.operations, self._note_operation)
        if outcome.unreadable is not None:
            self._unreadable = outcome.unreadable
            self._reload_after = time.monotonic() + self._settings.retry_seconds
        self._loaded = {each.name: each.hash for each in self._orders.listed if each.name in outcome.loaded}
        if self._turns > MOST_TURNS:
            logger.warning("%s: units come to no rest: %s", self._name, plan.operations)
            await asyncio.sleep(CALM_SECONDS)
        self._wake.set()

    def _note_operation(self, operation: Operation, error: Exception | None) -> None:
        kind = type(operation).__name__
        self._settings.observer.note_operation(kind, done=error is None)
        name = _name_of(operation)
        told = {"node": self._name, "step": kind}
        if error is None:
            logger.info("%s: %s %s", self._name, kind, name or "", extra=told)
        elif name is None:
            logger.warning("%s: %s failed: %s", self._name, kind, error, extra=told)
        else:
            self._note_fault(name, f"{kind} failed: {error}")

    def _note_fault(self, name: str, message: str) -> None:
        """Leave the unit alone for a while, and tell why."""
        order = next((each for each in self._orders.listed if each.name == name), None)
        if order is None:
            return
        before = self._faults.get(name)
        if before is None or before.message != message:
            logger.warning("%s: %s: %s", self._name, name, message)
        pause = self._settings.retry_seconds * random.uniform(0.8, 1.2)
        self._faults[name] = Fault(order, message, time.monotonic() + pause)

    def _until_retry(self) -> float | None:
        now = time.monotonic()
        instants = [fault.until for fault in self._faults.values()]
        instants += [instant for instant in (self._api_after, self._reload_after) if instant > now]
        return max(0.05, min(instants) - now) if instants else None

    def _observe(self, sight: Sight, faults: Mapping[str, str]) -> None:
        states = [sight.state(name) for name in sight.held]
        self._settings.observer.see(count_active(states), behind=len(faults) + len(self._orders.unreadable))

    async def _tell_blindness(self, node: NodeView, error: Exception) -> float:
        """Say that systemd can't be asked. Nothing is done, and what was known of the units stands."""
        if self._blindness.is_due(str(error), time.monotonic()):
            logger.error("%s: systemd can't be asked about units, so nothing is done: %s", self._name, error)
        kept: dict[str, str] | None = None
        with suppress(OSError):
            shelved = self._host.shelf.look()
            kept = {name: launch.hash for name, launch in shelved.launches.items()} | dict(shelved.held)
        fault = f"systemd can't be asked: {error}"
        told = report_blindness(self._orders, node.status.get("units"), fault, kept)
        return await self._report(node, told, BLIND_SECONDS) or BLIND_SECONDS

    async def _report(self, node: NodeView, reports: list[dict[str, Any]], pause: float | None) -> float | None:
        """Write status.units if it is time to; the pause, cut short if it will be time before its end."""
        now = time.monotonic()
        done = list_done(self._orders, reports)
        written, pressing = normalize(node.status.get("units")), bool(done - self._told)
        due = self._pacer.due(reports, written, now, pressing=pressing)
        if due is None:
            self._note_told(done)
            return pause
        due = max(due, self._api_after)
        if due > now:
            return _sooner(pause, due - now)
        self._pacer.spend(now)
        body = {"metadata": {"uid": node.uid}, "status": {"units": reports or None}}
        seconds = self._settings.request_seconds
        try:
            answer = await patch_merge(self._session, NODES, self._name, body, subresource="status", timeout=seconds)
        except ApiError as error:
            logger.warning("%s: status.units was not written: %s", self._name, error)
            self._settings.observer.note_write(done=False)
            return _sooner(pause, self._pause_api())
        self._settings.observer.note_write(done=True)
        self._api_failures = 0
        self._note_told(done)
        self._nodes.apply(answer)
        return pause

    def _note_told(self, done: frozenset[Order]) -> None:
        """Remember which orders are known to be done, as long as they stand: a unit may come to another end later."""
        self._told = (self._told | done) & frozenset(self._orders.listed)

    def _pause_api(self) -> float:
        self._api_failures += 1
        pause = min(2.0 ** min(self._api_failures, 16), LONGEST_API_PAUSE_SECONDS) * random.uniform(0.5, 1.0)
        self._api_after = time.monotonic() + pause
        return pause


def _name_of(operation: Operation) -> str | None:
    return None if isinstance(operation, Reload) else operation.name


def _sooner(one: float | None, other: float | None) -> float | None:
    given = [each for each in (one, other) if each is not None]
    return min(given) if given else None
