"""QEMU's control socket."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

_SECONDS = 60.0


class MonitorError(Exception):
    """QEMU refused a command, or ended."""


class Monitor:
    """Speaks QMP over a unix socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_SECONDS)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("rb")
        self._read()
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: Any) -> Any:
        """Run a command and return its answer, such as execute("system_reset"). Raises MonitorError, TimeoutError."""
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            answer = self._read()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise MonitorError(f"{command}: {answer['error'].get('desc')}")

    def say(self, command: str) -> str:
        """Run a command of QEMU's human monitor, such as `info block`, and return what it prints."""
        return str(self.execute("human-monitor-command", **{"command-line": command}))

    def close(self) -> None:
        """Let go of the socket."""
        self._file.close()
        self._socket.close()

    def _read(self) -> dict[str, Any]:
        line = self._file.readline()
        if not line:
            raise MonitorError("QEMU has ended")
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer
