"""What an agent tells about itself while it works: nothing, or metrics."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .actions import Step
from .record import Moved
from .view import AgentView, SlotView

if TYPE_CHECKING:
    from careen.observe.agent import AgentMetrics, SlotFigures


class Observer:
    """Hears of everything and keeps nothing."""

    def see(self, view: AgentView) -> None:
        """The agent has looked at its machine."""

    def note_step(self, step: Step, seconds: float, fault: str | None) -> None:
        """A step on the machine has ended; fault: class of the error that it failed with."""

    def note_progress(self, order: str, moved: Moved) -> None:
        """A staging has come so far."""

    def note_renewal(self, done: bool) -> None:
        """The Lease was renewed, or was not."""


class MetricsObserver(Observer):
    """Puts it into metrics."""

    def __init__(self, metrics: AgentMetrics) -> None:
        self._metrics = metrics
        self._moved: tuple[str, Moved] = ("", Moved())

    def see(self, view: AgentView) -> None:
        """Show the machine."""
        from careen.observe.agent import MachineFigures

        retry = view.node.retry if view.node else 0
        told = (view.node.status.get("step") or {}) if view.node else {}
        rejected = view.journal.rejected if view.journal else ()
        self._metrics.show(
            MachineFigures(
                slots={"A": _describe_slot(view.disk.a), "B": _describe_slot(view.disk.b)},
                booted=view.disk.booted.value,
                method=view.boot.method,
                phase=told.get("phase") or "Idle",
                rejected=sum(retry <= entry.retry for entry in rejected),
                unhealthy=view.unhealthy is not None,
            )
        )

    def note_step(self, step: Step, seconds: float, fault: str | None) -> None:
        """Count and time the step."""
        self._metrics.record_step(type(step).__name__, "done" if fault is None else "failed", seconds)
        if fault is not None:
            self._metrics.record_failure(fault)

    def note_progress(self, order: str, moved: Moved) -> None:
        """Count what has come since the last word on this order; a try that begins anew counts again."""
        known, before = self._moved
        if known != order or moved.done < before.done:
            before = Moved()
        self._moved = (order, moved)
        for source in ("fetched", "reused", "skipped"):
            grown = getattr(moved, source) - getattr(before, source)
            if grown > 0:
                self._metrics.record_bytes(source, grown)

    def note_renewal(self, done: bool) -> None:
        """Count the renewal."""
        self._metrics.record_renewal(time.time() if done else None)


def _describe_slot(slot: SlotView) -> SlotFigures:
    from careen.observe.agent import SlotFigures

    attributes = slot.attributes
    return SlotFigures(slot.version or "", attributes.priority, attributes.tries, attributes.successful)
