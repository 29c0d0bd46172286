"""What time it is for signatures that expire, on a machine whose own clock may be wrong."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from careen.kube.clock import ServerClock


class TrustClock:
    """The API server's time once it has answered; until then, this machine's own.

    A machine without a battery for its clock boots years ago, and would find every signature current, or none.
    """

    def __init__(self) -> None:
        self._server: ServerClock | None = None

    def follow(self, server: ServerClock) -> None:
        """Go by this clock from its first answer on. It runs on time.monotonic()."""
        self._server = server

    def now(self) -> datetime:
        """The time, with a zone. May be called from any thread."""
        seconds = self._server.now(time.monotonic()) if self._server is not None else None
        return datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
