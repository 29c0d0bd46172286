"""The agent's Lease: what tells the operator that a machine's agent lives."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from careen.api.meta import AGENT_LEASE_PREFIX, API_VERSION
from careen.kube.errors import ApiError
from careen.kube.lease import renew_agent_lease
from careen.kube.session import Session

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Heartbeat:
    """How the Lease of a machine's agent is renewed."""

    session: Session
    namespace: str
    """Namespace of the install."""
    node: str
    """Name of the machine's Node."""
    renew_seconds: float
    """Seconds between two renewals."""
    request_seconds: float
    """Deadline of one request."""
    note: Callable[[bool], None]
    """Told after each try whether it succeeded."""

    async def keep(self, find_uid: Callable[[], str | None], remade: asyncio.Event) -> None:
        """Renew the Lease for ever; soon again when it failed, and at once when the Node was made again.

        find_uid: the Node's UID, None while there is none. remade: set when the Node came, went or was made again. The
        Lease belongs to the Node, and the garbage collector takes it away with that one. Without a Node it would stay
        for ever once the machine is gone, so there is none before the Node is there.
        """
        while True:
            remade.clear()
            uid = find_uid()
            pause = await self._renew(uid) if uid is not None else None
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await remade.wait()

    async def _renew(self, uid: str) -> float:
        """Renew it, as one of the Node with this UID; seconds to wait before it is done again."""
        name = AGENT_LEASE_PREFIX + self.node
        owner = {"apiVersion": API_VERSION, "kind": "Node", "name": self.node, "uid": uid}
        pause, done = self.renew_seconds * random.uniform(0.95, 1.05), True
        try:
            await renew_agent_lease(self.session, self.namespace, name, owner=owner, timeout=self.request_seconds)
        except ApiError as error:
            logger.warning("%s: the Lease was not renewed: %s", self.node, error)
            pause, done = min(pause, 5.0 * random.uniform(0.5, 1.0)), False
        self.note(done)
        return pause
