"""What the keeper of units tells about itself while it works: nothing, or metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from careen.observe.agent import AgentMetrics


class UnitObserver:
    """Hears of everything and keeps nothing."""

    def see(self, counts: Mapping[str, int], *, behind: int) -> None:
        """Units by systemd's active state; behind: orders that are not done."""

    def note_operation(self, operation: str, *, done: bool) -> None:
        """An operation has ended."""

    def note_write(self, *, done: bool) -> None:
        """status.units was written, or was not."""


class MetricsUnitObserver(UnitObserver):
    """Puts it into metrics."""

    def __init__(self, metrics: AgentMetrics) -> None:
        self._metrics = metrics

    def see(self, counts: Mapping[str, int], *, behind: int) -> None:
        """Show the units."""
        self._metrics.show_units(counts, behind)

    def note_operation(self, operation: str, *, done: bool) -> None:
        """Count it."""
        self._metrics.record_unit_operation(operation, "done" if done else "failed")

    def note_write(self, *, done: bool) -> None:
        """Count it."""
        self._metrics.record_unit_write("done" if done else "failed")
