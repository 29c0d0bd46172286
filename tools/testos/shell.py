"""Commands inside a running machine, through a root shell on its second serial port."""

from __future__ import annotations

import secrets
import socket
import time
from pathlib import Path


class ShellError(AssertionError):
    """A command in the machine failed, or did not end in time."""


class Shell:
    """A root shell, there from early in the boot on. It is lost at each reboot, and simply there again after it."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))

    def run(self, command: str, seconds: float = 60.0) -> str:
        """What a command prints. Raises ShellError when it fails, or does not end within `seconds`."""
        code, output = self.try_run(command, seconds)
        if code:
            raise ShellError(f"{command!r} ended with {code}:\n{output}")
        return output

    def try_run(self, command: str, seconds: float = 60.0) -> tuple[int, str]:
        """Exit code of a command, and what it prints. Raises ShellError when it does not end within `seconds`."""
        mark = secrets.token_hex(6)
        # The mark is broken in two where the terminal echoes the command, so that only its output shows it whole.
        begin, end = f"{mark[:6]}''{mark[6:]}b", f"{mark[:6]}''{mark[6:]}e"
        self._drain()
        self._socket.sendall(f"\necho {begin}; {{ {command}\n}}; echo {end} $?\n".encode())
        text = self._read_until(f"{mark}e ", seconds, command)
        body = text.split(f"{mark}b", 1)[-1]
        output, _, rest = body.partition(f"{mark}e ")
        return int(rest.split()[0]), self._clean(output)

    def send(self, command: str) -> None:
        """Start a command that ends the machine, or this boot; nothing is read."""
        self._socket.sendall(f"\n{command}\n".encode())

    def close(self) -> None:
        """Let go of the port."""
        self._socket.close()

    def _drain(self) -> None:
        self._socket.settimeout(0.05)
        try:
            while self._socket.recv(65536):
                pass
        except TimeoutError:
            pass

    def _read_until(self, mark: str, seconds: float, command: str) -> str:
        deadline, data = time.monotonic() + seconds, b""
        while True:
            text = data.decode("utf-8", "replace").replace("\r", "")
            found = text.find(mark)
            if found >= 0 and "\n" in text[found:]:
                return text
            self._socket.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                part = self._socket.recv(65536)
            except TimeoutError:
                part = b""
            if not part or time.monotonic() > deadline:
                raise ShellError(f"{command!r} did not end within {seconds:g} s:\n{text[-2000:]}")
            data += part

    @staticmethod
    def _clean(output: str) -> str:
        lines = [line for line in output.split("\n") if not line.startswith(("> ", "# > "))]
        return "\n".join(lines).strip()
