"""The kubelet of a simulated machine: it tells the core Node whether the machine is up, and which boot runs."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from careen.agent.imagehost import BootRecord
from careen.kube.errors import ApiError
from careen.kube.resources import CORE_NODES
from careen.kube.session import Session

logger = logging.getLogger(__name__)

STRATEGIC_MERGE = "application/strategic-merge-patch+json"
_RETRY_SECONDS = 1.0
_REQUEST_SECONDS = 5.0


class Kubelet:
    """Writes the status of one core Node with the kubelet's own credentials, and nothing else of it.

    The last thing said wins: a write that fails is tried again until something newer is to be said.
    """

    def __init__(self, session: Session, name: str, machine_id: str) -> None:
        self._session = session
        self._name = name
        self._machine_id = machine_id
        self._task: asyncio.Task[None] | None = None

    def say_ready(self, boot: BootRecord) -> None:
        """The machine is up: Ready, with this boot. Written in the background."""
        info = {"bootID": boot.boot_id, "machineID": self._machine_id, "osImage": boot.os_image}
        self._say({"nodeInfo": info, "conditions": [_ready("True", "KubeletReady", "the machine is up")]})

    async def say_down(self, wait_seconds: float = 2.0) -> None:
        """The machine goes down: not Ready. Returns when it is written, or after `wait_seconds`."""
        self._say({"conditions": [_ready("False", "KubeletNotReady", "the machine is going down")]})
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=wait_seconds)

    async def close(self) -> None:
        """Stop trying."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def _say(self, status: dict[str, Any]) -> None:
        if self._task is not None:
            self._task.cancel()
        self._task = asyncio.create_task(self._write(status))

    async def _write(self, status: dict[str, Any]) -> None:
        path = CORE_NODES.path(name=self._name, subresource="status")
        while True:
            try:
                await self._session.request(
                    "PATCH", path, body={"status": status}, content_type=STRATEGIC_MERGE, timeout=_REQUEST_SECONDS
                )
            except ApiError as error:
                logger.warning("the status of Node %s was not written: %s", self._name, error)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return


def _ready(status: str, reason: str, message: str) -> dict[str, Any]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    stamps = {"lastHeartbeatTime": now, "lastTransitionTime": now}
    return {"type": "Ready", "status": status, "reason": reason, "message": message, **stamps}
