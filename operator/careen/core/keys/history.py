"""The last events, and who is told of which.

Two things are better than in etcd, whose search of the past follows other rules than its live watches:
* hidden keys below the watched path are not told from the past either (etcd delivers them);
* the end of `/a` is not told to a past wait on `/ab` (etcd compares plain strings).
And a stream with a past index gets all that is there and then what comes (etcd sends one event and falls silent).
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Generic, TypeVar

from .events import Event
from .faults import Code, Refusal
from .paths import ROOT, is_below, is_hidden_below, split_path

HISTORY_EVENTS = 1000
"""Events of the whole store that are kept, refreshes counted."""
HISTORY_OCTETS = 16 * 1024 * 1024
"""Bytes of paths and values that the kept events may hold; 1000 events of big values would not fit into a snapshot.
It is a constant, not an option: all that apply the same log must forget at the same index."""

Waiter = TypeVar("Waiter")


@dataclass(frozen=True, slots=True)
class Watch:
    """What a client waits for."""

    path: str
    recursive: bool = False
    since: int = 0
    """First index of interest; 0 = from now on."""

    def settle(self, index: int) -> "Watch":
        """The watch, with "from now on" as what it is at this index; to be done before it is used."""
        return self if self.since else replace(self, since=index + 1)


@dataclass(slots=True, eq=False)
class History:
    """The events from `start` to the current index."""

    last: int
    """Index of the newest event."""
    start: int = 1
    """The oldest index that can be asked for."""
    events: deque[Event] = field(default_factory=deque)
    octets: int = 0

    def append(self, event: Event) -> None:
        """Keep one more, and forget the oldest when there are too many."""
        assert event.index == self.last + 1, f"event {event.index} after {self.last}"
        kept = event.settled()
        self.events.append(kept)
        self.last = kept.index
        self.octets += kept.octets
        self.start = max(self.start, self.last - HISTORY_EVENTS + 1)
        while self.events and (self.events[0].index < self.start or self.octets > HISTORY_OCTETS):
            gone = self.events.popleft()
            self.octets -= gone.octets
            self.start = max(self.start, gone.index + 1)

    def search(self, watch: Watch) -> Refusal | Iterator[Event]:
        """The kept events that the watch asks for, oldest first; a refusal when what it asks for is forgotten."""
        if watch.since < self.start:
            cause = f"the requested history has been cleared [{self.start}/{watch.since}]"
            return Refusal(Code.HISTORY_CLEARED, cause, self.last)
        first = self.events[0].index if self.events else self.last + 1
        recent = islice(self.events, max(0, watch.since - first), None)
        return (event for event in recent if tells_past(watch, event))


def tells_live(watch: Watch, event: Event) -> bool:
    """Whether a waiting watch is told of a fresh event.

    The end of a parent is told to those who watch a path that was there below it.
    """
    if event.refresh or event.index < watch.since:
        return False
    return _tells_path(watch, event.node.key) or _took_away(event, watch.path)


def tells_past(watch: Watch, event: Event) -> bool:
    """Whether a kept event answers a watch. Which paths there were below an ended directory is no longer known."""
    if event.refresh or event.index < watch.since:
        return False
    if _tells_path(watch, event.node.key):
        return True
    ended = event.action in ("delete", "expire") and event.previous is not None and event.previous.directory
    return ended and is_below(watch.path, event.node.key)


def _tells_path(watch: Watch, path: str) -> bool:
    if path == watch.path:
        return True
    return watch.recursive and is_below(path, watch.path) and not is_hidden_below(path, watch.path)


def _took_away(event: Event, path: str) -> bool:
    entry = event.removed
    if entry is None or not is_below(path, event.node.key):
        return False
    for part in split_path(path)[len(split_path(event.node.key)) :]:
        entry = entry.children.get(part) if entry is not None and entry.children is not None else None
    return entry is not None


class WatchTable(Generic[Waiter]):
    """Who waits, by path: an event's waiters are found without asking all of them."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[Waiter, Watch]] = {}

    def __len__(self) -> int:
        return sum(len(waiters) for waiters in self._waiting.values())

    def add(self, waiter: Waiter, watch: Watch) -> None:
        """Let it wait. A waiter may wait on one path once."""
        self._waiting.setdefault(watch.path, {})[waiter] = watch

    def remove(self, waiter: Waiter, path: str) -> None:
        """Let it wait no longer; nothing happens when it does not."""
        waiters = self._waiting.get(path, {})
        waiters.pop(waiter, None)
        if not waiters:
            self._waiting.pop(path, None)

    def told(self, event: Event) -> list[Waiter]:
        """Those whom the event tells; they wait on until they are removed."""
        key = event.node.key
        paths = [ROOT]
        for part in split_path(key):
            paths.append(f"{paths[-1].rstrip('/')}/{part}")
        if event.removed is not None and event.removed.children:
            paths.extend(path for path in self._waiting if is_below(path, key))
        return [
            waiter
            for path in paths
            for waiter, watch in self._waiting.get(path, {}).items()
            if tells_live(watch, event)
        ]
