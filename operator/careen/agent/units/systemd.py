"""What the agent needs of a machine's systemd, and of the folder with the unit files. Each kind of machine has one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from .sight import Launch, UnitState

DONE = ("done", "skipped", "canceled")
"""Results of a start that are no failure: it was done, a condition of the unit said no, or another job took over."""


class SystemdError(Exception):
    """systemd refused, failed or did not answer; the message is its own sentence where it has one."""


class Systemd(Protocol):
    """The machine's systemd. Every call but `listen` may fail with SystemdError or OSError, and has a deadline."""

    def listen(self, on_change: Callable[[], None]) -> None:
        """Call this whenever a unit that was last looked for may have another state. It must return at once."""

    async def look(self, names: Collection[str]) -> Mapping[str, UnitState]:
        """The units of these names; from what systemd has pushed, so that asking often costs little."""
        ...

    async def link(self, name: str, *, install: bool) -> None:
        """Put the file of the shelf into systemd's search path until the next boot; install: and enable it."""

    async def unlink(self, name: str) -> None:
        """Disable the unit, take its links out of the search path, and forget that it failed."""

    async def reload(self) -> None:
        """Read all unit files again."""

    async def start(self, name: str) -> Awaitable[str]:
        """Ask for the unit's start. What it returns ends with the job, and is systemd's word for its result, such as
        done or failed; it fails with SystemdError when that can't be known any more."""
        ...

    async def stop(self, name: str) -> Awaitable[str]:
        """Ask for the unit's stop, in the same way."""
        ...

    async def close(self) -> None:
        """Let go of it. Nothing of the machine changes."""


@dataclass(frozen=True)
class Shelved:
    """What the agent keeps of units on the machine until the next boot."""

    held: Mapping[str, str]
    """Hash of each unit's file, by the unit's name."""
    launches: Mapping[str, Launch]
    """What was started in this boot."""
    unread: bool = False
    """Whether files have changed since systemd last read them."""


class Shelf(Protocol):
    """The unit files and the memory of this boot; all of it goes with the boot. Every call may raise OSError."""

    def look(self) -> Shelved:
        """What is there now."""
        ...

    def read(self, name: str) -> str | None:
        """The file of one unit; None if there is none."""
        ...

    def write(self, name: str, text: str) -> None:
        """Write a unit's file."""

    def remove(self, name: str) -> None:
        """Take a unit's file away."""

    def note_launch(self, name: str, launch: Launch | None) -> None:
        """Remember that a unit was started; None: forget it."""

    def note_unread(self, unread: bool) -> None:
        """Remember whether systemd has still to read the files."""


@dataclass(frozen=True)
class UnitHost:
    """A machine that can hold units."""

    shelf: Shelf
    systemd: Systemd
