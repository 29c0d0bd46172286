"""The kubelet of a virtual machine, played from outside: it tells the core Node what the console shows."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from careen.sandbox.client import Api, ApiError
from careen.sandbox.nodes import NODES

from .serial import Console

STRATEGIC_MERGE = "application/strategic-merge-patch+json"
_UP = re.compile(r"OS up: version=(\S+) .*\bid=(\S+)")
# What a kubelet says by falling silent: the machine goes down, or is being started.
_DOWN = re.compile(r"# power|# reset|Kernel panic|Shutting down|(LOADER|INITRD) .*(started|giving up)")
_PAUSE_SECONDS = 0.3


class ConsoleKubelet:
    """Keeps a core Node's Ready condition and boot ID in step with a console, in a thread of its own."""

    def __init__(self, api: Callable[[], Api], console: Console, node: str, machine_id: str) -> None:
        """api: makes a client, since one belongs to one thread."""
        self._api = api
        self._console = console
        self._node = node
        self._machine_id = machine_id
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"kubelet-{node}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; safe to call twice."""
        self._stopping.set()
        self._thread.join(10)

    def _run(self) -> None:
        api, read = self._api(), 0
        wanted: dict[str, Any] | None = None
        try:
            while not self._stopping.wait(_PAUSE_SECONDS):
                lines = self._console.lines[read:]
                read += len(lines)
                for line in lines:
                    if found := _UP.search(line.text):
                        wanted = self._describe_up(*found.groups())
                    elif _DOWN.search(line.text):
                        wanted = {"conditions": [_ready("False", "the machine is down")]}
                if wanted is not None:
                    # Said again at the next turn if the API server can't be reached: the last word counts.
                    with suppress(ApiError, OSError):
                        api.patch(f"{NODES}/{self._node}/status", {"status": wanted}, STRATEGIC_MERGE)
                        wanted = None
        finally:
            api.close()

    def _describe_up(self, version: str, boot_id: str) -> dict[str, Any]:
        info = {"bootID": boot_id, "machineID": self._machine_id, "osImage": f"Careen test OS {version}"}
        return {"nodeInfo": info, "conditions": [_ready("True", "the machine is up")]}


def _ready(status: str, message: str) -> dict[str, Any]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    stamps = {"lastHeartbeatTime": now, "lastTransitionTime": now}
    return {"type": "Ready", "status": status, "reason": "Console", "message": message, **stamps}
