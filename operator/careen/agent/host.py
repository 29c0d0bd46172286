"""What an agent needs of the machine it runs on. Each kind of machine has one implementation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from careen.disk.types import SlotName

from .actions import StageImage, VerifySlot
from .record import Journal, Method, Moved
from .view import BootView, DiskView, HostFacts


class RebootError(Exception):
    """The machine is known not to reboot: the request was refused."""


class KexecRefusedError(Exception):
    """The kernel can't be loaded for kexec here; the firmware may still boot the slot. Nothing was armed."""


@dataclass(frozen=True)
class Sight:
    """The machine at one instant."""

    disk: DiskView
    boot: BootView
    facts: HostFacts
    journal: Journal | None
    api_answered: bool
    """Whether `note_api_answer` was called in this boot."""
    unhealthy: str | None
    """Why the local gates do not pass; None if they do."""
    reset_prepared: bool = False
    """Whether the next boot would empty the writable file system."""


class Host(Protocol):
    """The machine. Every call is durable when it returns, may be repeated, and may fail with DiskError or OSError.

    One agent at a time: a host refuses to be opened twice.
    """

    async def look(self) -> Sight:
        """Everything that can be seen now."""
        ...

    async def note_api_answer(self) -> None:
        """Remember, until the next boot, that the API server answered."""

    async def write_journal(self, journal: Journal) -> None:
        """Replace the journal."""

    async def invalidate(self, slot: SlotName) -> None:
        """Drop the slot's record, then make it P0 T0 S0."""

    async def admit(self, image: StageImage) -> None:
        """See that a release is trusted and fits this machine, and write nothing. Raises StageError if not."""

    async def stage(self, image: StageImage, on_progress: Callable[[Moved], None]) -> None:
        """Admit the release, make the slot hold it, verify and record it. Raises StageError. May be cancelled."""

    async def verify(self, check: VerifySlot) -> bool:
        """Read back what the slot holds and keep the record in step; whether it is the release asked for."""
        ...

    async def arm(self, slot: SlotName, method: Method) -> None:
        """Give the passive slot its one boot. Raises KexecRefusedError before anything is armed, and StageError."""

    async def disarm(self, slot: SlotName) -> None:
        """Take the passive slot's boot away."""

    async def mark_good(self, slot: SlotName) -> None:
        """Mark the booted slot good, above the other."""

    async def abandon(self, slot: SlotName) -> None:
        """Give up the booted slot."""

    async def repair_table(self) -> None:
        """Bring both copies of the partition table in step, and remember what was wrong."""

    async def prepare_reset(self) -> None:
        """Leave the marker that makes the next boot empty the writable file system but for what is the machine's own:
        its identity, its SSH host keys, the agent's credentials and state. See agent/reset.py."""

    async def drop_reset(self) -> None:
        """Take that marker away."""

    async def request_reboot(self, method: Method, slot: SlotName) -> None:
        """Ask for the reboot; `slot` is the booted one if no update is behind it, and then nothing was armed.

        Raises RebootError if it will surely not come.
        """
