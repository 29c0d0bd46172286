"""Where the machine's files are, and how its programs are run: on the machine itself, or from a container on it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

DEADLINE_SECONDS = 30.0
"""Longest a program may take, unless the caller knows better."""

STATE = "/var/lib/careen"
"""The agent's folder on the ROOT partition."""
RUN = "/run/careen"
"""The agent's folder that lasts until the next boot; on a tmpfs."""


@dataclass(frozen=True)
class Root:
    """The machine's file system. path: where it is seen from here; `/` but for a container (and for tests)."""

    path: Path = Path("/")

    def at(self, path: str) -> Path:
        """Where an absolute path of the machine is seen from here."""
        return self.path / path.lstrip("/")

    def read(self, path: str) -> str | None:
        """A file's text without white space around it; None if there is none or it can't be read."""
        try:
            return self.at(path).read_text(errors="replace").strip()
        except OSError:
            return None

    def names(self, path: str) -> list[str]:
        """Names in a folder, sorted; empty if there is none."""
        try:
            return sorted(entry.name for entry in self.at(path).iterdir())
        except OSError:
            return []


@dataclass(frozen=True)
class Answer:
    """How a program ended. code: its exit code, 127 if it is not installed, 124 if it took too long."""

    code: int
    output: str
    error: str = ""

    @property
    def sentence(self) -> str:
        """What it had to say, on one line."""
        return " ".join((self.error or self.output).split()) or f"exit code {self.code}"


class Commands(Protocol):
    """Programs of the machine."""

    def run(self, argv: Sequence[str], *, timeout: float = DEADLINE_SECONDS) -> Answer:
        """Run a program and wait for its end. Never raises for what the program does."""
        ...


class HostCommands:
    """Runs the machine's own programs; from a container by chroot, with the machine's D-Bus and systemd sockets."""

    def __init__(self, root: Root) -> None:
        self._root = root

    def run(self, argv: Sequence[str], *, timeout: float = DEADLINE_SECONDS) -> Answer:
        """Run a program and wait for its end."""
        try:
            done = subprocess.run(
                [*self._prefix, *argv],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
                env=_environment(),
            )
        except FileNotFoundError:
            return Answer(127, "", f"{argv[0]} is not installed")
        except subprocess.TimeoutExpired:
            return Answer(124, "", f"{argv[0]} did not end within {timeout:g} s")
        except OSError as error:
            return Answer(126, "", f"{argv[0]}: {error.strerror}")
        return Answer(done.returncode, done.stdout, done.stderr)

    @property
    def _prefix(self) -> tuple[str, ...]:
        return () if self._root.path == Path("/") else ("chroot", str(self._root.path))


def _environment() -> Mapping[str, str]:
    """Ours, in English, and telling systemctl that it may be in a chroot: that is how a container gets at the host."""
    return {**os.environ, "LC_ALL": "C", "SYSTEMD_IGNORE_CHROOT": "1", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"}
