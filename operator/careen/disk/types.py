"""The words of the disk room: slot names, boot attributes, partition entries and the errors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from uuid import UUID

USR_TYPE = UUID("5dfbf5f4-2848-4bac-aa5e-0d9a20b745a6")
"""Partition type of both slots; the only type that the boot rule looks at."""

ROOT_TYPE = UUID("3884dd41-8582-4404-b9a8-e9b84f2df50e")
"""Partition type of ROOT, the writable partition that both slots share."""

MAX_PRIORITY = 15
MAX_TRIES = 15

_PRIORITY_SHIFT = 48
_TRIES_SHIFT = 52
_SUCCESSFUL_SHIFT = 56
_OUR_BITS = 0xF << _PRIORITY_SHIFT | 0xF << _TRIES_SHIFT | 1 << _SUCCESSFUL_SHIFT


class DiskError(Exception):
    """The disk is not as it must be, or the change asked for is not allowed. The message is for the user."""


class GptInvalidError(DiskError):
    """Neither copy of the partition table can be trusted. Nothing was written."""


class DiskBusyError(DiskError):
    """Somebody else holds the lock of the disk, and held it until the deadline."""


class AmbiguousSlotsError(DiskError):
    """USR-A and USR-B cannot be told for certain, so no slot may be touched."""


class UnsafeChangeError(DiskError):
    """The change would leave a machine that cannot boot, or touch the slot that runs. Nothing was written."""


class ReadBackError(DiskError):
    """The disk gave back other bytes than were written and flushed to it."""


class DiskIoError(DiskError):
    """Reading or writing failed in the kernel; the message names the byte offset."""


class OutOfRangeError(DiskError):
    """A read or write would leave its partition."""


class ToolMissingError(DiskError):
    """A program that is needed is not installed; the message names its package."""


class ToolFailedError(DiskError):
    """A program that was run reported an error; the message carries its words."""


class SlotName(StrEnum):
    """One of the two places for an OS."""

    A = "A"
    B = "B"

    @property
    def other(self) -> SlotName:
        """The slot that this one is not."""
        return SlotName.B if self is SlotName.A else SlotName.A

    @property
    def label(self) -> str:
        """Partition label on the disk."""
        return f"USR-{self.value}"

    @property
    def guid(self) -> UUID:
        """Fixed unique GUID: boot loaders compare with it to pick the kernel, so it never changes."""
        return _SLOT_GUIDS[self]


_SLOT_GUIDS = {
    SlotName.A: UUID("7130c94a-213a-4e5a-8e26-6cce9662f132"),
    SlotName.B: UUID("e03dd35c-7c2d-4a47-b3fe-27f15780a57c"),
}


@dataclass(frozen=True)
class Attributes:
    """The boot attributes in a slot's GPT entry.

    priority: 0 to 15, higher boots first, 0 is never booted. tries: 0 to 15, boots left before the slot must
    be successful. successful: the slot was marked good. Raises ValueError for values that do not fit.
    """

    priority: int
    tries: int
    successful: bool

    def __post_init__(self) -> None:
        if not 0 <= self.priority <= MAX_PRIORITY:
            raise ValueError(f"priority is {self.priority}; allowed: 0 to {MAX_PRIORITY}")
        if not 0 <= self.tries <= MAX_TRIES:
            raise ValueError(f"tries is {self.tries}; allowed: 0 to {MAX_TRIES}")

    @classmethod
    def decode(cls, word: int) -> Attributes:
        """Read them out of the entry's 64-bit attribute word."""
        return cls(
            priority=word >> _PRIORITY_SHIFT & 0xF,
            tries=word >> _TRIES_SHIFT & 0xF,
            successful=bool(word >> _SUCCESSFUL_SHIFT & 1),
        )

    def encode(self, word: int) -> int:
        """Put them into `word`, leaving every bit that is not ours as it was."""
        ours = self.priority << _PRIORITY_SHIFT | self.tries << _TRIES_SHIFT | int(self.successful) << _SUCCESSFUL_SHIFT
        return word & ~_OUR_BITS | ours

    @property
    def bootable(self) -> bool:
        """True if the boot rule may choose this slot at all."""
        return self.priority >= 1 and (self.tries > 0 or self.successful)

    @property
    def good(self) -> bool:
        """True if this slot boots after any number of resets: priority at least 1 and marked good."""
        return self.priority >= 1 and self.successful

    def __str__(self) -> str:
        return f"P{self.priority} T{self.tries} S{int(self.successful)}"


GIVEN_UP = Attributes(priority=0, tries=0, successful=False)
"""What a slot holds that must never be booted: being written, or rolled back."""


@dataclass(frozen=True)
class Entry:
    """One used entry of the partition table. LBAs are in units of `sector_size` bytes, both inclusive."""

    partition: int
    type_guid: UUID
    guid: UUID
    label: str
    first_lba: int
    last_lba: int
    word: int
    sector_size: int

    @property
    def attributes(self) -> Attributes:
        """Boot attributes, decoded from the 64-bit attribute word."""
        return Attributes.decode(self.word)

    @property
    def start(self) -> int:
        """First byte of the partition on the disk."""
        return self.first_lba * self.sector_size

    @property
    def size(self) -> int:
        """Length of the partition in bytes."""
        return (self.last_lba - self.first_lba + 1) * self.sector_size

    def with_attributes(self, attributes: Attributes) -> Entry:
        """The same entry with other boot attributes and all foreign bits kept."""
        return replace(self, word=attributes.encode(self.word))


@dataclass(frozen=True)
class Slot:
    """A slot: its name, and the partition that holds it."""

    name: SlotName
    entry: Entry

    @property
    def partition(self) -> int:
        """Partition number, counted from 1."""
        return self.entry.partition

    @property
    def guid(self) -> UUID:
        """Unique GUID of the partition."""
        return self.entry.guid

    @property
    def label(self) -> str:
        """Label of the partition."""
        return self.entry.label

    @property
    def first_lba(self) -> int:
        """First sector of the partition."""
        return self.entry.first_lba

    @property
    def last_lba(self) -> int:
        """Last sector of the partition."""
        return self.entry.last_lba

    @property
    def attributes(self) -> Attributes:
        """Boot attributes."""
        return self.entry.attributes

    @property
    def start(self) -> int:
        """First byte of the partition on the disk."""
        return self.entry.start

    @property
    def size(self) -> int:
        """Length of the partition in bytes."""
        return self.entry.size
