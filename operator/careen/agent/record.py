"""What the agent's journal holds: the order that is open, the orders that ended, the releases rejected here. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

from careen.api.meta import PROTOCOL, OnSilence
from careen.api.node import CauseWord, ErrorClass, Goal, Phase
from careen.disk.types import SlotName

Method = Literal["Kexec", "Firmware"]
Verdict = Literal["COMMIT", "ROLLBACK"]
Deadman = Literal["HardwareWatchdog", "TrialTimer", "Missing"]
OrderKind = Literal["Update", "Reboot", "Reset"]

MAX_ENDED = 8
"""Ended orders that the journal remembers, newest last."""
MAX_BOOTS = 8
"""Boots that the journal remembers, newest last."""
MAX_REJECTED = 16
"""Rejections that the journal remembers, newest last."""


@dataclass(frozen=True)
class Fault:
    """Why something failed: the class for programs and a sentence for people."""

    class_: ErrorClass
    message: str


@dataclass(frozen=True)
class Moved:
    """How far a staging is, in bytes of the image. When it is done the three make up the whole image."""

    reused: int = 0
    """Copied from the booted slot, or from elsewhere in the passive one."""
    fetched: int = 0
    """Taken from the repository, as they are when unpacked."""
    skipped: int = 0
    """In place already, or zeros."""
    size: int = 0
    """Size of the image for this machine; 0 while it is not known."""

    @property
    def done(self) -> int:
        """All that is in place."""
        return self.reused + self.fetched + self.skipped


@dataclass(frozen=True)
class TableRepair:
    """The last repair of the partition table. at: RFC 3339, by the machine's clock. faults: what was put right."""

    at: str
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Ended:
    """How an order ended here. It is the answer to every later goal for the same id."""

    order: str
    phase: Phase
    goal: Goal | None = None
    verdict: Verdict | None = None
    cause: CauseWord | None = None
    fault: Fault | None = None


@dataclass(frozen=True)
class Rejection:
    """A digest that was rolled back here; it counts while spec.retry is not higher than `retry`."""

    digest: str
    cause: CauseWord
    retry: int


class Stage(StrEnum):
    """How far the open order has come."""

    ARMED = "Armed"
    """The intent to arm: the slot may be armed already. Nothing was requested."""
    REQUESTED = "Requested"
    """The reboot may have been requested: only the next boot, or the request's proven failure, tells more."""
    UNDOING = "Undoing"
    """The slot is to be disarmed, and then the order ends as `undo` says."""


@dataclass(frozen=True)
class OpenOrder:
    """The order whose slot is armed or on trial, or whose reboot is under way, with all that is needed without the API
    server."""

    order: str
    digest: str
    version: str
    from_slot: SlotName
    to_slot: SlotName
    from_boot_id: str
    method: Method
    lost_attempts: int
    commit_timeout_seconds: int
    on_silence: OnSilence
    stage: Stage = Stage.ARMED
    verdict: Verdict | None = None
    cause: CauseWord | None = None
    """Why the machine goes back; with verdict COMMIT: the commit did not hold."""
    undo: Ended | None = None
    """With stage UNDOING: how the order ends."""
    deadman: Deadman = "Missing"
    """What must be there to end a trial that hangs, or it is not booted; Missing: the order permits to have nothing."""
    kind: OrderKind = "Update"
    """Update boots another slot on trial; Reboot and Reset boot the same one again, and both slots are it."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Fields of a newer agent, kept as they are."""


@dataclass(frozen=True)
class Journal:
    """The agent's memory. It is durable before anything it speaks of is done."""

    machine_id: str
    born: str = ""
    """Boot id in which the journal was begun; an older one may have been lost in that boot."""
    boots: tuple[str, ...] = ()
    """Boot ids in which the journal was read."""
    protocol: int = PROTOCOL
    open: OpenOrder | None = None
    ended: tuple[Ended, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Fields of a newer agent, kept as they are."""

    def covers(self, boot_id: str) -> bool:
        """Whether this journal was there since before that boot: what it does not tell did not happen."""
        return boot_id in self.boots and boot_id != self.born

    def find_ended(self, order: str) -> Ended | None:
        """How this order ended, if it did."""
        return next((entry for entry in reversed(self.ended) if entry.order == order), None)

    def close(self, end: Ended) -> Journal:
        """The journal with no order open, and this one ended."""
        others = [entry for entry in self.ended if entry.order != end.order]
        return replace(self, open=None, ended=(*others, end)[-MAX_ENDED:])

    def reject(self, rejection: Rejection) -> Journal:
        """The journal with one more rejection; an older one of the same digest gives way."""
        others = [entry for entry in self.rejected if entry.digest != rejection.digest]
        return replace(self, rejected=(*others, rejection)[-MAX_REJECTED:])
