"""What boots the machine after a reset, and what it must be told when a slot is armed, marked good, or given up.

The GPT attributes are always the truth that the agent reads. A back end does what its boot loader needs besides,
durable when it returns, and safe to repeat. The loader may know less than the table, never more: it learns of an armed
slot after the table, and of a slot that is given up before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from careen.agent.record import Method
from careen.disk.types import SlotName
from careen.release.manifest import Image

from .bootfiles import BootFiles


@dataclass(frozen=True)
class ArmedBoot:
    """A slot that is about to be armed. line: makes the command line for a boot by kexec or by the firmware.

    image: what the signed document says of the slot's content.
    """

    slot: SlotName
    method: Method
    version: str
    image: Image
    files: BootFiles | None
    line: Callable[[Method], str]


class BootLoader(Protocol):
    """The firmware's side of arming."""

    @property
    def name(self) -> str:
        """What --loader calls it."""
        ...

    @property
    def needs_files(self) -> bool:
        """Whether the firmware can boot a slot only if it is given kernel and initrd apart."""
        ...

    def arm(self, boot: ArmedBoot) -> None:
        """After the slot is armed in the table, and again before the reboot. Raises OSError, DiskError."""

    def is_armed(self, slot: SlotName, image: Image, method: Method) -> bool:
        """Whether all that `arm` leaves is there, byte for byte: power may have gone in its midst."""
        ...

    def commit(self, boot: ArmedBoot) -> None:
        """Before the booted slot is marked good; what `arm` has not left is put there. Raises OSError, DiskError."""

    def give_up(self, slot: SlotName) -> None:
        """Before a slot is disarmed, abandoned or invalidated. Raises OSError, DiskError."""


class GptPriority:
    """A loader that honours priority, tries and successful in the GPT, as GRUB's gptprio does."""

    name = "gptprio"
    needs_files = False

    def arm(self, boot: ArmedBoot) -> None:
        """Nothing: the table says all."""

    def is_armed(self, slot: SlotName, image: Image, method: Method) -> bool:  # noqa: ARG002
        """Always: the table says all."""
        return True

    def commit(self, boot: ArmedBoot) -> None:
        """Nothing: the table says all."""

    def give_up(self, slot: SlotName) -> None:
        """Nothing: the table says all."""
