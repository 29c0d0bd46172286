"""What the agent's loop is told, and what it ends with."""

from __future__ import annotations

from dataclasses import dataclass, field

from careen.api.meta import NAMESPACE

from .observer import Observer
from .record import Method
from .units.settings import KeeperSettings


@dataclass(frozen=True)
class Settings:
    """How the agent talks to the API server."""

    namespace: str = NAMESPACE
    """Namespace of the install, which holds the agent's Lease."""
    renew_seconds: float = 60.0
    """Seconds between two renewals of the Lease. The operator calls an agent silent after 180."""
    progress_seconds: float = 5.0
    """Least seconds between two writes of a staging's progress."""
    request_seconds: float = 10.0
    """Deadline of one request to the API server."""
    look_seconds: float = 300.0
    """Seconds after which a waiting agent looks again: nobody tells it of a hand on a slot, or of a bad disk. It does
    so with the next renewal, so that nothing else wakes an idle machine."""
    observer: Observer = field(default_factory=Observer)
    """Hears of what the agent does."""
    units: KeeperSettings = field(default_factory=KeeperSettings)
    """How the machine's units are kept."""


@dataclass(frozen=True)
class Exit:
    """Why the agent ended: the machine is to reboot now."""

    method: Method
    slot: str
