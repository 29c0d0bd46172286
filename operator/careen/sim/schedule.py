"""Simulated time: events in the order of their instants, and the record of what happened."""

import heapq
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

START = datetime(2030, 1, 1, tzinfo=UTC).timestamp()


class BrokenError(Exception):
    """An invariant is broken. The message names it and tells what was seen."""


class Schedule:
    """A queue of calls; the run is over when it is empty, for then nothing would ever happen again."""

    def __init__(self, *, tracing: bool) -> None:
        self.now = START
        self.events = 0
        self.tracing = tracing
        self.trace: list[str] = []
        self._heap: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._count = 0

    def after(self, delay: float, call: Callable[..., object], *arguments: Any) -> None:
        """Make the call `delay` seconds from now."""
        self._count += 1
        heapq.heappush(self._heap, (self.now + delay, self._count, call, arguments))

    def run(self, *, most_events: int, most_seconds: float) -> None:
        """Run until nothing is left. BrokenError when it does not come to rest."""
        end = START + most_seconds
        while self._heap:
            instant, _, call, arguments = heapq.heappop(self._heap)
            self.now = max(self.now, instant)
            self.events += 1
            if self.events > most_events or self.now > end:
                raise BrokenError(f"no rest after {self.events} events and {self.now - START:.0f} s")
            call(*arguments)

    def note(self, who: str, what: str) -> None:
        """Add a line to the trace."""
        if self.tracing:
            self.trace.append(f"{self.now - START:9.2f}  {who:<12} {what}")
