"""status.units as it should be, and when a change of it is worth a write. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from careen.api.held import MOST_UNITS

from .sight import ABSENT, AT_REST, Order, Orders, Sight, UnitState

MAX_MESSAGE = 1024
Document = dict[str, Any]


def report_units(orders: Orders, sight: Sight, faults: Mapping[str, str]) -> list[Document]:
    """status.units: what is ordered and what is held, by name. faults: why an order is not done, by the unit's name."""
    desired = {each.name: each.desired for each in orders.listed}
    names = [*desired, *(name for name in orders.unreadable if name not in desired)]
    others = sorted(name for name in sight.held if name not in desired and name not in orders.unreadable)
    reports = []
    for name in sorted([*names, *others[: max(0, MOST_UNITS - len(names))]]):
        fault = faults.get(name) or orders.unreadable.get(name)
        gone = desired.get(name) == "removed" and not sight.has(name)
        # With an order to remove it, a unit of the machine's own under the same name does not count.
        state = ABSENT if gone else sight.state(name)
        reports.append(_describe(name, state, sight, fault))
    return reports[:MOST_UNITS]


def report_blindness(orders: Orders, before: object, fault: str, kept: Mapping[str, str] | None) -> list[Document]:
    """status.units while systemd can't be asked: what was last known, with that sentence.

    before: status.units as it stands. A unit that is not in there yet is shown as one that could not be read. kept:
    hashes of the units of which anything is on the machine; None if nobody knows: then no removal counts as done.
    """
    known = {str(entry.get("name")): entry for entry in normalize(before)}
    hashes = {each.name: each.hash for each in orders.listed if each.desired == "removed"} if kept is None else kept
    for name in [*(each.name for each in orders.listed), *orders.unreadable]:
        unknown = {"name": name, "load": "error", "active": "inactive", "sub": "dead", "launched": False}
        known.setdefault(name, unknown | ({"hash": hashes[name]} if name in hashes else {}))
    told = {name: {**entry, "message": fault[:MAX_MESSAGE]} for name, entry in known.items()}
    return [told[name] for name in sorted(told)][:MOST_UNITS]


def _describe(name: str, state: UnitState, sight: Sight, fault: str | None) -> Document:
    launch, held = sight.launches.get(name), sight.held.get(name)
    document: Document = {"name": name, "load": state.load[:64], "active": state.active[:64], "sub": state.sub[:64]}
    if held is not None:
        document["hash"] = held
    document["launched"] = launch is not None and launch.hash == held
    # A start that failed is of no interest once systemd has made the unit run all the same.
    message = fault or (launch.fault if launch is not None and state.active != "active" else None)
    if message:
        document["message"] = message[:MAX_MESSAGE]
    return document


def normalize(reports: object) -> list[Document]:
    """status.units as it stands, with what may be left out filled in, to be compared."""
    entries = reports if isinstance(reports, list) else []
    return [{"launched": False, **entry} for entry in entries if isinstance(entry, dict)]


def list_done(orders: Orders, reports: Iterable[Document]) -> frozenset[Order]:
    """Orders that these reports say are done: the operator waits for the word of each."""
    told = {str(report.get("name")): report for report in reports}
    return frozenset(order for order in orders.listed if order.name in told and _is_done(order, told[order.name]))


def _is_done(order: Order, report: Document) -> bool:
    active = report.get("active")
    if order.desired == "removed":
        return "hash" not in report and active in AT_REST
    if report.get("hash") != order.hash:
        return False
    if order.desired == "launched":
        return bool(report.get("launched")) and active != "activating"
    return report.get("load") == "loaded" and active in AT_REST


@dataclass(frozen=True)
class Pace:
    """How seldom status.units is written. All times are in seconds."""

    quiet: float = 0.4
    """A change is written when nothing more has changed for so long: a unit goes through several states at once."""
    longest: float = 1.5
    """But no later than so long after the first change that is not written."""
    burst: int = 6
    """Writes that may follow each other without more ado."""
    interval: float = 10.0
    """After them, one write in so long: a unit that fails and restarts for ever must not keep the API server busy. What
    says for the first time that an order is done does not wait for it: the unit may be down until that is known."""


class Pacer:
    """Tells when to write. All instants are seconds of one clock."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._seen: Sequence[Document] | None = None
        self._first = math.inf
        self._last = -math.inf
        self._tokens = float(pace.burst)
        self._counted = -math.inf

    def due(
        self, wanted: Sequence[Document], written: Sequence[Document], now: float, *, pressing: bool = False
    ) -> float | None:
        """The instant at which `wanted` is to be written; None if it says what is `written`. Ask at each change.

        pressing: somebody waits for it, and it is not said again and again.
        """
        if list(wanted) == list(written):
            self._seen, self._first = None, math.inf
            return None
        if self._seen is None or list(wanted) != list(self._seen):
            self._seen, self._last = list(wanted), now
            self._first = min(self._first, now)
        settled = min(self._last + self._pace.quiet, self._first + self._pace.longest)
        return settled if pressing else max(settled, self._next_token(now))

    def spend(self, now: float) -> None:
        """A write was made, or tried."""
        self._refill(now)
        self._tokens = max(0.0, self._tokens - 1.0)
        self._seen, self._first = None, math.inf

    def _next_token(self, now: float) -> float:
        self._refill(now)
        return now if self._tokens >= 1.0 else now + (1.0 - self._tokens) * self._pace.interval

    def _refill(self, now: float) -> None:
        if self._counted > -math.inf:
            grown = (now - self._counted) / self._pace.interval
            self._tokens = min(float(self._pace.burst), self._tokens + grown)
        self._counted = now


def count_active(states: Iterable[UnitState]) -> dict[str, int]:
    """How many units are in each active state."""
    counts: dict[str, int] = {}
    for state in states:
        counts[state.active] = counts.get(state.active, 0) + 1
    return counts
