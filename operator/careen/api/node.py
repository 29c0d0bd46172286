"""Node: the shadow of one machine. People wish, the operator orders, the agent reports; each in fields of its own."""

from typing import Annotated, Literal

from pydantic import Field

from .held import MOST_UNITS, UNIT_LIST, Metadata, UnitOrder, UnitReport
from .meta import (
    BootMethod,
    BytesPerSecond,
    Condition,
    Digest,
    Identifier,
    Message,
    Mirrors,
    Model,
    ObjectName,
    OnSilence,
    ReleaseVersion,
    Seconds,
    Timestamp,
)
from .request import Request, RequestAction, RequestID, RequestOutcome
from .rules import rule, rules
from .table import Slots, TableStatus

Goal = Literal["Stage", "Activate", "Commit", "Abort"]
Phase = Literal["Idle", "Staging", "Staged", "Activating", "Verifying", "Committed", "RolledBack", "Failed"]
SlotLetter = Literal["A", "B"]
CauseWord = Literal[
    "People", "GateFailed", "Withdrawn", "Panic", "Watchdog", "LocalGate", "Interrupted", "TrialLost",
    "JournalLost", "Silence",
]  # fmt: skip
ErrorClass = Literal["Transfer", "Trust", "Integrity", "Size", "Disk", "Boot", "Refused", "Internal"]


class NodeBoot(Model):
    """How this machine is to be booted into a new slot, whatever the policy says; from its next order on."""

    method: BootMethod = "Auto"
    """Kexec boots the new kernel at once, Firmware goes through the firmware, Auto leaves it to policy and machine.
    An order that has been given keeps the method it was given with. Default Auto."""


class PolicyRef(Model):
    """The policy that an order comes from."""

    name: ObjectName
    """Name of the UpdatePolicy."""
    uid: Identifier
    """UID of the UpdatePolicy; a policy made again under the same name is another one."""


class OrderRelease(Model):
    """The release of an order, resolved when the order was given."""

    repository: Annotated[str, Field(min_length=1, max_length=2048)]
    """URL of the release repository."""
    mirrors: Mirrors | None = None
    """More places that serve the repository's files/; absent when there are none."""
    version: ReleaseVersion
    """Version of the OS."""
    digest: Digest
    """sha256 over the release's document, as `sha256:` and 64 hex digits."""
    size_bytes: Annotated[int, Field(ge=1)]
    """Size of the largest image in bytes."""
    path: Annotated[str, Field(min_length=1, max_length=1024)]
    """Path of the release's document, a target of the repository."""


NO_RELEASE = OrderRelease(repository="-", version="0", digest="sha256:" + "0" * 64, size_bytes=1, path="-")
"""Stands in an order that is a request, and so boots no release."""


class OrderTerms(Model):
    """What the policy asked for when the order was given; later edits of the policy do not reach the order."""

    lock: ObjectName
    """Name of the RebootLock that the order is activated under."""
    ready_seconds: Seconds
    """Seconds for which the machine must be Ready in the new OS before the order is committed."""
    verify_timeout_seconds: Seconds
    """Seconds after which a trial boot whose gates do not pass is aborted."""
    commit_timeout_seconds: Seconds
    """Seconds of a trial boot after which an agent that heard nothing from the API server obeys onSilence."""
    on_silence: OnSilence
    """What the agent does in a trial boot when the API server has never answered in commitTimeoutSeconds."""
    boot_method: BootMethod
    """How the new slot is booted."""
    drain_timeout_seconds: Seconds
    """Seconds after which a drain that does not end is given up and the lock is given back."""
    allow_no_deadman: bool = False
    """Whether the release may be booted where nothing would undo a trial that hangs. Default false."""
    allow_downgrade: bool = False
    """Whether the release may be older than what the machine runs. Default false."""
    bytes_per_second: BytesPerSecond | None = None
    """Most bytes per second that the machine may fetch; absent: no limit."""


FROZEN = ("attempt", "lostAttempts", "retry", "policy", "rollout", "release", "request", "terms")
"""Fields of an order that never change under one id: edits of the policy reach the next order only."""


def _keep(name: str) -> str:
    """That a field stays as it is. `self.?x == oldSelf.?x` says the same; the API server finds it too costly."""
    if name not in ("policy", "rollout", "release", "request"):
        return f"self.{name} == oldSelf.{name}"
    return f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})"


class Assignment(
    Model,
    json_schema_extra=rules(
        rule(
            "has(self.cause) == (self.goal == 'Abort')",
            "cause must be set with goal Abort, and with no other goal",
            field=".cause",
        ),
        rule(
            "self.goal == 'Abort' || has(self.fromBootID) == (self.goal != 'Stage')",
            "fromBootID must be set with goal Activate and Commit, and absent with goal Stage: "
            "it is the boot in which goal Activate was written",
            field=".fromBootID",
        ),
        rule(
            "self.id != oldSelf.id || !has(oldSelf.fromBootID)"
            " || (has(self.fromBootID) && self.fromBootID == oldSelf.fromBootID)",
            "fromBootID must stay as it is under one id",
            field=".fromBootID",
        ),
        rule(
            "self.id != oldSelf.id || self.goal == oldSelf.goal || self.goal == 'Abort'"
            " || (oldSelf.goal == 'Stage' && self.goal == 'Activate')"
            " || (oldSelf.goal == 'Activate' && self.goal == 'Commit')",
            "goal must go from Stage to Activate to Commit, or to Abort, under one id",
            field=".goal",
        ),
        rule(
            "self.id != oldSelf.id || (" + " && ".join(map(_keep, FROZEN)) + ")",
            f"{', '.join(FROZEN)} must stay as they are under one id; another order needs another id",
            field=".id",
        ),
        rule(
            "has(self.release) != has(self.request)",
            "an order must have exactly one of release and request",
        ),
        rule(
            "!has(self.release) || (has(self.policy) && has(self.rollout))",
            "policy and rollout must be set with release",
            field=".release",
        ),
    ),
):
    """One order of the operator to one machine."""

    id: Identifier
    """Identity of the order: a hash over machine, rollout and attempt. An id is activated once."""
    attempt: Annotated[int, Field(ge=0)] = 0
    """How many orders this Node had before; it counts on across rollouts, so that no id comes back."""
    lost_attempts: Annotated[int, Field(ge=0)] = 0
    """How many of them ended in a trial boot that was lost without a word; the second such loss is a failure."""
    retry: Annotated[int, Field(ge=0)] = 0
    """spec.retry when the order was given; a higher one lets a machine that failed be tried again."""
    policy: PolicyRef | None = None
    """The policy that gave the order, or whose terms it has; absent for a request on a machine without a policy."""
    rollout: Identifier | None = None
    """The rollout that the order belongs to; absent for a request."""
    release: Annotated[OrderRelease, Field(default_factory=lambda: NO_RELEASE)]
    """What to write to the passive slot and boot; absent for a request."""
    request: Request | None = None
    """What people asked for, in place of a release: the running slot is booted again, and no other is touched."""
    goal: Goal
    """How far the machine may go: Stage, Activate, Commit; or Abort."""
    cause: CauseWord | None = None
    """Why the order is aborted; set with goal Abort only."""
    from_boot_id: Annotated[str, Field(max_length=64)] | None = None
    """Boot id that the machine had when goal Activate was written; absent before."""
    terms: OrderTerms
    """What the policy asked for, frozen with the order."""


class CoreNodeRef(Model):
    """The Kubernetes Node that this Node is the shadow of."""

    uid: Annotated[str, Field(max_length=64)]
    """UID of the core Node."""
    machine_id: Annotated[str, Field(max_length=64)] = ""
    """nodeInfo.machineID of the core Node: the same id under a new UID is the same machine, registered anew."""


class NodeSpec(Model):
    """Wishes of people, and the operator's order."""

    core_node: CoreNodeRef | None = None
    """The Kubernetes Node that this Node is the shadow of; written by the operator alone."""

    paused: bool = False
    """Start nothing new on this machine. What is in flight finishes. Default false."""
    boot: NodeBoot | None = None
    """Overrides the policy's boot method for this machine, from its next order on."""
    retry: Annotated[
        int,
        Field(
            ge=0,
            le=2_147_483_647,
            json_schema_extra=rules(
                rule("self >= oldSelf", "retry must not be lowered or removed: that would bring rejections back")
            ),
        ),
    ] = 0
    """Raise it to forgive all rejections recorded so far on this machine; set by `careen retry`. Default 0."""
    abort: Annotated[str, Field(max_length=253)] | None = None
    """Id of an order to abort, wherever it stands; set by `careen abort`. Another id has no effect."""
    request: Request | None = None
    """A reboot or a reset, done once under the lock, budgets and drain of an update; set by `careen reboot` and
    `careen reset`. Taken away before the machine has begun, it is called off."""
    metadata: Metadata | None = None
    """What units choose machines by; the labels of the core Node count for keys that are absent here."""
    unit_capacity: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Most weight of units that the machine takes, global ones included. Absent: no limit."""
    assignment: Assignment | None = None
    """The operator's order; written by the operator alone."""
    units: Annotated[list[UnitOrder], Field(max_length=MOST_UNITS, json_schema_extra=UNIT_LIST)] | None = None
    """Units that the machine must hold; written by the operator alone. What is not listed keeps running."""


class Progress(Model):
    """How far the staging is, in bytes of the image."""

    bytes_total: Annotated[int, Field(ge=0)]
    """Size of the image."""
    bytes_reused: Annotated[int, Field(ge=0)] = 0
    """Bytes copied so far from the booted slot, or from elsewhere in the passive one."""
    bytes_fetched: Annotated[int, Field(ge=0)]
    """Bytes that came from the repository so far, as they are when unpacked."""
    bytes_skipped: Annotated[int, Field(ge=0)] = 0
    """Bytes that were in place already, or are zeros. When all is staged, the three make up the total."""


class BootDecision(Model):
    """How the machine would boot the next slot, and what would undo a trial that hangs."""

    method: Literal["Kexec", "Firmware"]
    """Kexec starts the new kernel at once, Firmware goes through the firmware."""
    reason: Annotated[str, Field(max_length=64)]
    """CamelCase word for why it is this method."""
    message: Message = ""
    """Sentence for people: what was found on the machine. Default empty."""
    deadman: Literal["HardwareWatchdog", "TrialTimer", "Missing"]
    """What undoes a trial that does nothing any more: a hardware watchdog that survives the boot, a timer that the
    staged release declares, or nothing."""


class StepError(Model):
    """Why the step does not go on."""

    class_: Annotated[ErrorClass, Field(alias="class")]
    """Transfer, Trust (keys, signatures, expiry), Integrity, Size, Disk, Boot, Refused or Internal."""
    message: Message
    """Sentence for people: what was tried, what was found, what is allowed."""


class Step(Model):
    """Where the agent stands with an order."""

    id: Annotated[str, Field(max_length=253)] = ""
    """Order that this step answers; empty when the agent has none."""
    observed_goal: Goal | None = None
    """Last goal of the order that the agent has acted on."""
    phase: Phase
    """Idle, Staging, Staged, Activating, Verifying, or ended: Committed, RolledBack, Failed."""
    verdict: Literal["COMMIT", "ROLLBACK"] | None = None
    """The one verdict on the trial, written to the journal before the disk."""
    cause: CauseWord | None = None
    """Why the machine went back, or the order ended."""
    progress: Progress | None = None
    """Progress of the staging."""
    error: StepError | None = None
    """Last error of the step; cleared when the step goes on."""


class Rejected(Model):
    """A release that was rolled back on this machine."""

    digest: Digest
    """The digest that is not tried here again."""
    cause: CauseWord
    """Why it was rolled back."""
    retry: Annotated[int, Field(ge=0)]
    """Value of spec.retry when it was rejected; the entry counts while spec.retry is not higher."""


class RequestStatus(Model):
    """What came of the last request."""

    id: RequestID
    """Id of the request; spec.request with this id is not done again."""
    action: RequestAction
    """Reboot or Reset."""
    outcome: RequestOutcome
    """Done, Failed (cause and message say why) or Aborted (people called it off in time)."""
    cause: CauseWord | None = None
    """Why it failed or was aborted, where there is a word for it."""
    message: Message = ""
    """Sentence for people. Default empty."""
    order: Identifier
    """The order that carried it out."""
    finished_at: Timestamp
    """When the operator learned the outcome."""


class Orchestration(Model):
    """Why this machine waits, in the operator's words."""

    state: Annotated[str, Field(max_length=32)]
    """Waiting, Staging, Draining, Activating, Verifying, Returning, UpToDate, Failed or Unmanaged."""
    reason: Annotated[str, Field(max_length=64)]
    """CamelCase word for why."""
    message: Message
    """Sentence for people: which budget, pod, wave or person blocks, and when it ends where that is known."""
    since: Timestamp
    """When this state began; drain times run from it."""
    settled_since: Timestamp | None = None
    """Since when all gates after the boot have passed without a break; readySeconds run from it."""
    settled_boot_id: Annotated[str, Field(max_length=64)] | None = None
    """The boot that settledSince is of; after another one it counts no more."""


class NodeStatus(Model):
    """What the machine is, and what it does; orchestration and conditions are the operator's, all else the agent's."""

    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """metadata.generation that the operator has seen."""
    slots: Slots | None = None
    """Both slots as the disk has them."""
    gpt: TableStatus | None = None
    """Faults of the partition table, and its last repair; absent when there was none of either."""
    booted: SlotLetter | None = None
    """The slot that is running."""
    boot_id: Annotated[str, Field(max_length=64)] | None = None
    """Boot id of the running kernel; another one after each boot."""
    boot_method: Literal["Kexec", "Firmware"] | None = None
    """How the running system was booted."""
    kernel_started: Timestamp | None = None
    """When the running kernel started, by the machine's clock."""
    agent_started: Timestamp | None = None
    """When the first agent of this boot started, by the machine's clock."""
    boot_decision: BootDecision | None = None
    """How the machine would boot the next slot, decided before any drain: by the terms of its order until that has
    ended, then by spec.boot.method and by what the machine can do. Absent until the agent has decided."""
    architecture: Annotated[str, Field(max_length=32)] | None = None
    """Machine architecture in the kernel's words, such as x86_64."""
    machine_id: Annotated[str, Field(max_length=64)] | None = None
    """Contents of /etc/machine-id."""
    protocol: Annotated[int, Field(ge=0)] | None = None
    """Number of the operator-agent protocol that the agent speaks."""
    os_image: Annotated[str, Field(max_length=256)] | None = None
    """Pretty name of the running OS."""
    kernel: Annotated[str, Field(max_length=128)] | None = None
    """Release of the running kernel."""
    agent_version: Annotated[str, Field(max_length=64)] | None = None
    """Version of the agent."""
    step: Step | None = None
    """Where the agent stands with its order."""
    rejected: (
        Annotated[list[Rejected], Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"})] | None
    ) = None
    """Releases that were rolled back on this machine, newest last."""
    units: Annotated[list[UnitReport], Field(max_length=MOST_UNITS, json_schema_extra=UNIT_LIST)] | None = None
    """Units that the machine holds or was told to hold, as its systemd has them, by name."""
    request: RequestStatus | None = None
    """What came of the last request; written by the operator alone."""
    orchestration: Orchestration | None = None
    """Why this machine waits; written by the operator alone."""
    conditions: (
        Annotated[
            list[Condition],
            Field(
                max_length=16,
                json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
            ),
        ]
        | None
    ) = None
    """Ready (runs the release of its policy), Reconciling, Stalled; written by the operator alone."""
