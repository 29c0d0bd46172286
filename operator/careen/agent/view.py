"""What the agent sees when it decides: its Node, its journal, its disk and its boot, frozen at one instant. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ValidationError

from careen.api.meta import BootMethod
from careen.api.node import Assignment
from careen.disk.types import Attributes, SlotName

from .record import Deadman, Fault, Journal, Method, Moved, TableRepair

MAX_BACK_OFF_SECONDS = 300.0
GATE_POLL_SECONDS = 2.0
"""How often the local gates of a new boot are looked at."""
ANSWER_SECONDS = 10.0
"""How long the API server has at least to answer an agent before that counts as silence: one that came up late has not
asked yet."""
SICK_SECONDS = 60.0
"""How long the local gates of a trial that was well must fail without a break before it goes back for that."""
TRIAL_LOOK_SECONDS = 30.0
"""How often a trial is looked at in which nothing can be done now. The image's timer takes an agent for dead that has
not looked for 120."""


@dataclass(frozen=True)
class NodeView:
    """The machine's own Node as the API server last showed it."""

    uid: str
    resource_version: str
    assignment: Assignment | None = None
    retry: int = 0
    boot_method: BootMethod | None = None
    status: Mapping[str, Any] = field(default_factory=dict)
    """The status as a document; the answers to the agent's own writes are in it."""
    units: object = None
    """spec.units as a document; the keeper of units reads it."""
    unreadable: str | None = None
    """Why the assignment can't be read; then `assignment` is None."""

    @property
    def step(self) -> Mapping[str, Any]:
        """status.step as a document; empty if there is none."""
        return self.status.get("step") or {}


@dataclass(frozen=True)
class SlotView:
    """One slot: its attributes, and what is known about its content."""

    partition: int
    capacity: int
    """Size in bytes."""
    attributes: Attributes
    digest: str | None = None
    """Digest of the image that was verified here after the last write; durable; None if none was or it is unknown."""
    version: str | None = None
    """Version of the OS in the slot; None if unknown."""
    checked: str | None = None
    """Purpose of the last read-back in this process that found `digest`; None if there was none."""
    refuted: str | None = None
    """Digest that a read-back in this process did not find here."""


@dataclass(frozen=True)
class DiskView:
    """Both slots, and which one runs."""

    booted: SlotName
    a: SlotView
    b: SlotView
    faults: tuple[str, ...] = ()
    """What is wrong with a copy of the partition table, and a repair would put right; the other copy is valid."""
    repair: TableRepair | None = None
    """The last repair of the table."""

    def __getitem__(self, name: SlotName) -> SlotView:
        return self.a if name is SlotName.A else self.b

    @property
    def passive(self) -> SlotName:
        """The slot that does not run."""
        return self.booted.other


@dataclass(frozen=True)
class BootView:
    """Facts about the running boot."""

    boot_id: str
    machine_id: str
    method: Method = "Firmware"
    reset: Literal["Panic", "Watchdog"] | None = None
    """Why the boot before this one ended, where that can be read."""
    uptime: float = 0.0
    """Seconds of CLOCK_BOOTTIME since the boot: the clock of every instant in this view."""


@dataclass(frozen=True)
class BootDecision:
    """How the host would boot the next slot, and what would undo a trial that hangs."""

    method: Method
    reason: str
    """CamelCase word for why it is this method."""
    message: str
    """Sentence for people: what was found."""
    deadman: Deadman


@dataclass(frozen=True)
class HostFacts:
    """What does not change while the machine runs."""

    architecture: str | None = None
    os_image: str | None = None
    kernel: str | None = None
    agent_version: str | None = None
    kexec: bool = False
    """Whether the machine can boot by kexec at all, also if it would rather not."""
    boot_decision: BootDecision | None = None
    """What the host would do if nobody asked for a method; None if it has not looked yet."""
    kernel_started: str | None = None
    """When the kernel started (RFC 3339)."""
    agent_started: str | None = None
    """When the first agent of this boot started (RFC 3339)."""
    kexec_suspect: str | None = None
    """Digest whose last boot by kexec was lost without a word."""
    watchdog: bool = False
    """Whether there is a hardware watchdog that goes on over a kexec."""
    trial_timer: bool = False
    """Whether the release in the passive slot declares the timer that ends a trial."""


@dataclass(frozen=True)
class Trouble:
    """The last failure of an action, and when to try again."""

    order: str
    """The order it was done for; trouble of another order is forgotten."""
    action: str
    """Class name of the action."""
    fault: Fault
    failures: int
    """Failures in a row, this one included."""
    not_before: float
    """Instant (uptime) before which the action is not tried again."""
    retrying: bool = False
    """The next try has begun to get bytes, so the error is no longer shown."""


@dataclass(frozen=True)
class AgentView:
    """All that a decision is made of."""

    node: NodeView | None
    """None while the API server has not shown the Node to this process."""
    api_answered: bool
    """Whether the API server answered since the machine booted, to this process or one before it."""
    journal: Journal | None
    """None if there is none, or it can't be read."""
    disk: DiskView
    boot: BootView
    facts: HostFacts = field(default_factory=HostFacts)
    reset_prepared: bool = False
    """Whether the next boot would empty the writable file system."""
    unhealthy: str | None = None
    """Why the local gates do not pass; None if they do. The connection to the API server is not one of them."""
    well_at: float | None = None
    """Instant (uptime) at which this process last saw the local gates pass; None if it never did."""
    asked_since: float = 0.0
    """Instant (uptime) from which on this process has asked the API server."""
    granted: str | None = None
    """Order whose activation the API server accepted in this process."""
    request_failed: str | None = None
    """Why the last request for a reboot is known to have failed; None if it did not or nobody knows."""
    kexec_refused: tuple[str, str] | None = None
    """Order whose kernel could not be loaded for kexec in this process, and why."""
    trouble: Trouble | None = None
    api_not_before: float = 0.0
    """Instant (uptime) before which no write to the API server is tried, because one just failed."""
    moved: Moved = field(default_factory=Moved)
    """How far this process has come with the staging of the current order."""


def decode_node(document: Mapping[str, Any]) -> NodeView:
    """The Node's document as the agent sees it; an order that can't be read becomes `unreadable`, not an error."""
    metadata, spec = document["metadata"], document.get("spec") or {}
    assignment, unreadable = None, None
    if raw := spec.get("assignment"):
        try:
            assignment = Assignment.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            unreadable = f"spec.assignment.{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return NodeView(
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        assignment=assignment,
        retry=spec.get("retry") or 0,
        boot_method=(spec.get("boot") or {}).get("method"),
        status=document.get("status") or {},
        units=spec.get("units"),
        unreadable=unreadable,
    )


def next_trouble(
    previous: Trouble | None, order: str, action: str, fault: Fault, *, now: float, jitter: float = 0.0
) -> Trouble:
    """The trouble after one more failure: tried again after 1, 2, 4, … at most 300 s.

    now: uptime in seconds. jitter: -1 to 1; the pause is changed by up to a fifth.
    """
    repeated = previous is not None and previous.order == order and previous.action == action
    failures = previous.failures + 1 if previous and repeated else 1
    pause = min(2.0 ** min(failures - 1, 16), MAX_BACK_OFF_SECONDS)
    pause = min(pause * (1 + jitter / 5), MAX_BACK_OFF_SECONDS)
    return Trouble(order, action, fault, failures, now + pause)
