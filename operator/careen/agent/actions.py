"""The steps that the agent can take, as data. The runner does exactly one and then asks again.

Each is atomic or may be repeated: a crash at any point of it leaves a state from which `next_step` goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from careen.disk.types import SlotName

from .record import Journal, Method


@dataclass(frozen=True)
class WriteStatus:
    """Write the agent's part of the Node's status: a merge patch of /status, of the very Node that was seen.

    uid, resource_version: of that Node. Without the version a request of an agent that has died since, or one that
    nobody waits for any more, could arrive late and put an older phase over a newer one: over Activating, for one,
    after which the lock of a machine on trial would be freed.
    """

    uid: str
    status: Mapping[str, Any]
    resource_version: str


@dataclass(frozen=True)
class RequestActivation:
    """Ask the API server for the activation: a JSON patch of /status whose tests fail if the order has changed.

    Accepted: `granted` becomes the order. A failed test (422): read the Node again. No answer: the same step later.
    """

    uid: str
    order: str
    patch: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class WriteJournal:
    """Replace the journal, durably, at once or not at all."""

    journal: Journal


@dataclass(frozen=True)
class StageImage:
    """Make the passive slot hold a release, read it back, and record its digest as verified.

    Half done, the slot has no recorded digest. It may be cut short at any time (see `still_wanted`).
    """

    order: str
    slot: SlotName
    repository: str
    path: str
    """The release's document, a target of the repository."""
    digest: str
    """`sha256:` and the hash of that document."""
    size: int
    """Bytes of the largest image."""
    version: str
    mirrors: tuple[str, ...] = ()
    """URLs of more places that serve the repository's files."""
    bytes_per_second: int | None = None
    """Most that may be fetched in a second; None is no limit."""
    allow_downgrade: bool = False
    """Whether the release may be older than what runs."""


@dataclass(frozen=True)
class InvalidateSlot:
    """Forget what the passive slot holds, then make it P0 T0 S0; both durable. Before its first byte is written.

    Not before `image`, which is to be staged there, is known to be trusted and to fit this machine: until then the
    slot keeps the release to go back to.
    """

    slot: SlotName
    image: StageImage


@dataclass(frozen=True)
class VerifySlot:
    """See whether a slot holds a release, as it is on the medium.

    It does: the digest is recorded and `checked` becomes the purpose. It does not: the record is dropped, and
    `refuted` becomes the digest. A release in the passive slot that may not be booted here fails as its staging would:
    whoever put it there, it was not asked then. repository and path: where the release's document is, should the
    machine have lost its own; empty if nobody knows.
    """

    slot: SlotName
    digest: str
    size: int
    version: str
    purpose: str
    repository: str = ""
    path: str = ""
    allow_downgrade: bool = False
    """Whether the release may be older than what runs."""


@dataclass(frozen=True)
class ArmSlot:
    """Give the passive slot one boot: top priority and S0, with T0 for kexec, T1 for the firmware."""

    slot: SlotName
    method: Method


@dataclass(frozen=True)
class Disarm:
    """Make the passive slot P0 T0 S0, unless it is marked good. Its content and its record stay."""

    slot: SlotName


@dataclass(frozen=True)
class MarkGood:
    """Mark the booted slot good: S1, T0, top priority."""

    slot: SlotName


@dataclass(frozen=True)
class AbandonTrial:
    """Give up the booted slot: P0 T0 S0, so that the next reset boots the other one."""

    slot: SlotName


@dataclass(frozen=True)
class PrepareReset:
    """Leave the marker that makes the next boot empty the writable file system; durable."""


@dataclass(frozen=True)
class DropReset:
    """Take that marker away; durable."""


@dataclass(frozen=True)
class RequestReboot:
    """Ask for a reboot: Kexec starts `slot` at once, Firmware lets the boot rule choose. `slot` may be the booted one.

    A failure that is certain becomes `request_failed`.
    """

    method: Method
    slot: SlotName


@dataclass(frozen=True)
class Wait:
    """Nothing to do before something changes, or before the instant `until` (uptime in seconds)."""

    until: float | None = None


@dataclass(frozen=True)
class RepairTable:
    """Bring both copies of the partition table in step, durably, and remember what was wrong."""


Step = (
    WriteStatus
    | RequestActivation
    | WriteJournal
    | InvalidateSlot
    | StageImage
    | VerifySlot
    | ArmSlot
    | Disarm
    | MarkGood
    | AbandonTrial
    | PrepareReset
    | DropReset
    | RequestReboot
    | RepairTable
    | Wait
)


def describe_step(step: Step, order: str) -> str:
    """A step in one line of the log, without long contents. order: id of what it is done for; empty for nothing."""
    match step:
        case WriteStatus():
            text = f"WriteStatus {step.status.get('step') or sorted(step.status)}"
        case WriteJournal(journal):
            opened = journal.open
            text = f"WriteJournal {f'{opened.stage} {opened.verdict or str()}'.strip() if opened else 'closed'}"
        case RequestActivation():
            text = "RequestActivation"
        case _:
            text = str(step)
    return f"{text} for {order}" if order else text
