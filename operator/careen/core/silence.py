"""Which agents are silent: no change of their Lease seen for too long while we were looking.

Clocks of machines are never compared with ours: what counts is how long *we* have seen a Lease unchanged, on our own
monotonic clock, with a live watch. Only at a cold start, when nothing has been watched yet, the Lease's renewTime is
held against the API server's Date, until the Lease is seen to change (design.md section 1, "silent").
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

SILENCE_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What is known of one agent's Lease."""

    renewed: str
    """renewTime as written; only compared for equality."""
    seen_at: float
    """Monotonic instant at which this renewTime was first seen."""
    stale: bool
    """Whether it was too old once, at the first look or later, and has not changed since."""


class SilenceTracker:
    """Remembers when each agent's Lease was last seen to change; a fold over events, with time as an argument."""

    def __init__(self, silence_seconds: float = SILENCE_SECONDS) -> None:
        self._limit = silence_seconds
        self._known: dict[str, Heartbeat] = {}

    def observe(self, machine: str, renewed: str, age: float | None, mono: float) -> None:
        """Take one version of a Lease; `age` is how far its renewTime is behind the API server's time, if known."""
        known = self._known.get(machine)
        if known is not None and known.renewed == renewed:
            return
        stale = known is None and age is not None and age > self._limit
        self._known[machine] = Heartbeat(renewed, mono, stale)

    def keep(self, silent: Iterable[str]) -> None:
        """Machines that were found silent stay so until their Lease changes.

        A gap of the watch starts the time of all others anew; a silent machine would count as alive again in it, and
        its place in the budgets would be given to another one.
        """
        for machine in silent:
            known = self._known.get(machine)
            if known is not None and not known.stale:
                self._known[machine] = replace(known, stale=True)

    def forget(self, machine: str) -> None:
        """The Lease is gone."""
        self._known.pop(machine, None)

    def is_silent(self, machine: str, mono: float, live_since: float) -> bool:
        """Whether the agent is silent at `mono`, with a watch that has been unbroken since `live_since`."""
        known = self._known.get(machine)
        if known is None or known.stale:
            return True
        return mono - max(known.seen_at, live_since) >= self._limit

    def next_silence(self, mono: float, live_since: float) -> float | None:
        """Earliest monotonic instant at which another agent becomes silent if nothing changes."""
        ends = (max(k.seen_at, live_since) + self._limit for k in self._known.values() if not k.stale)
        return min((end for end in ends if end > mono), default=None)
