"""How the units of a machine are kept."""

from __future__ import annotations

from dataclasses import dataclass, field

from .report import Pace
from .watcher import UnitObserver


@dataclass(frozen=True)
class KeeperSettings:
    """How the units of a machine are kept. All times are in seconds."""

    request_seconds: float = 10.0
    """Deadline of one request to the API server."""
    retry_seconds: float = 60.0
    """After a failure, how long the unit is left alone, unless its order changes or the Node's list of units does."""
    look_seconds: float = 300.0
    """How often a machine with units is looked at without any sign of a change: nobody tells of a hand on a file."""
    pace: Pace = field(default_factory=Pace)
    """How seldom status.units is written."""
    observer: UnitObserver = field(default_factory=UnitObserver)
    """Hears of what the keeper does."""
