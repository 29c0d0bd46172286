# ruff: noqa: ARG002  (it looks at nothing)
"""The systemd of a machine whose people do not want it to run units."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping

from .sight import UnitState
from .systemd import SystemdError

SENTENCE = "this machine runs no units: its agent was started with --no-units"


class UnwillingSystemd:
    """Refuses everything, and says why; so the sentence comes into status.units."""

    def listen(self, on_change: Callable[[], None]) -> None:
        """Nothing ever changes."""

    async def look(self, names: Collection[str]) -> Mapping[str, UnitState]:
        """Refused."""
        raise SystemdError(SENTENCE)

    async def link(self, name: str, *, install: bool) -> None:
        """Refused."""
        raise SystemdError(SENTENCE)

    async def unlink(self, name: str) -> None:
        """Refused."""
        raise SystemdError(SENTENCE)

    async def reload(self) -> None:
        """Refused."""
        raise SystemdError(SENTENCE)

    async def start(self, name: str) -> Awaitable[str]:
        """Refused."""
        raise SystemdError(SENTENCE)

    async def stop(self, name: str) -> Awaitable[str]:
        """Refused."""
        raise SystemdError(SENTENCE)

    async def close(self) -> None:
        """There is nothing to let go of."""
