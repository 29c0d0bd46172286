"""A machine's serial console: every line with the time when it came, in memory and in a log."""

from __future__ import annotations

import re
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

_TAIL = 25


@dataclass(frozen=True)
class Line:
    """One line of the console."""

    number: int
    """Its place, from 0."""
    seconds: float
    """When its first byte came, in seconds since the machine was made."""
    text: str
    """What it says, without control characters."""


class ConsoleTimeoutError(AssertionError):
    """What was waited for did not appear on the console; the message shows the console's end."""


class Console:
    """Reads a console until its end. One for all starts of a machine, so that line numbers go on."""

    def __init__(self, log: Path) -> None:
        self.log = log
        """Where the lines go, each with its time."""
        self.lines: list[Line] = []
        """All lines so far."""
        self._began = time.monotonic()
        self._seen = 0
        self._news = threading.Condition()
        self._ended = True

    def attach(self, connection: socket.socket) -> threading.Thread:
        """Read from a machine that was just started."""
        self._ended = False
        thread = threading.Thread(target=self._read, args=(connection,), name="console", daemon=True)
        thread.start()
        return thread

    def note(self, text: str) -> None:
        """Put a remark of the harness between the lines."""
        self._add(f"# {text}", time.monotonic())

    @property
    def began(self) -> float:
        """The instant of this host's monotonic clock from which the lines' seconds count."""
        return self._began

    @property
    def seconds(self) -> float:
        """The time on the clock that the lines carry."""
        return time.monotonic() - self._began

    def wait_for(self, pattern: str, seconds: float) -> Line:
        """The next line, after the last one that was waited for, that the pattern is found in.

        Raises ConsoleTimeoutError after `seconds`, or as soon as the machine has ended.
        """
        wanted = re.compile(pattern)
        deadline = time.monotonic() + seconds
        with self._news:
            while True:
                for line in self.lines[self._seen :]:
                    if wanted.search(line.text):
                        self._seen = line.number + 1
                        return line
                left = deadline - time.monotonic()
                if left <= 0 or self._ended:
                    why = "the machine ended" if self._ended else f"it did not within {seconds:g} s"
                    raise ConsoleTimeoutError(f"{pattern!r} was to appear, but {why}\n{self.tail()}")
                self._news.wait(min(left, 1.0))

    def find(self, pattern: str, since: int = 0) -> list[Line]:
        """All lines so far, from number `since` on, that the pattern is found in."""
        return [line for line in self.lines[since:] if re.search(pattern, line.text)]

    def tail(self) -> str:
        """The end of the console, and where all of it is."""
        shown = [f"[{line.seconds:8.2f}] {line.text}" for line in self.lines[-_TAIL:]]
        return "\n".join([f"console ({self.log}):", *shown])

    def _read(self, connection: socket.socket) -> None:
        pending, came = b"", time.monotonic()
        with connection:
            while True:
                try:
                    data = connection.recv(65536)
                except OSError:
                    data = b""
                if not data:
                    break
                if not pending:
                    came = time.monotonic()
                *whole, pending = (pending + data).split(b"\n")
                for text in whole:
                    self._add(text.decode("utf-8", "replace"), came)
                    came = time.monotonic()
        if pending:
            self._add(pending.decode("utf-8", "replace"), came)
        with self._news:
            self._ended = True
            self._news.notify_all()

    def _add(self, text: str, came: float) -> None:
        clean = re.sub(r"\x1b\[[0-9;?=]*[A-Za-z]|\x1bc|[\x00-\x08\x0b-\x1f]", "", text)
        with self._news:
            line = Line(len(self.lines), came - self._began, clean)
            self.lines.append(line)
            with self.log.open("a") as log:
                log.write(f"[{line.seconds:8.2f}] {clean}\n")
            self._news.notify_all()
