"""The frozen view of all objects at one instant that every decision is made from.

Instants are seconds since the epoch by the API server's clock; only the operator's own memory (silence, refusals, the
gap-free watch) is kept by other means, and it reaches the plan as plain facts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from careen.api.meta import CONTROL_PLANE_LABEL

from .conditions import Condition
from .holdings import NO_UNITS, MachineUnits, Unit
from .places import NO_RULES, Rules
from .pods import Pod, Refusal
from .releases import Lookup, Release, ReleaseKey, Resolved
from .wishes import Outcome, Request

_derive = object.__setattr__
TERMINAL = frozenset({"Committed", "RolledBack"})
ON_TRIAL = frozenset({"Activating", "Verifying"})
UNKNOWN = "unknown"
"""Policy, rollout and boot of an order that nobody remembers."""


@dataclass(frozen=True, slots=True)
class CoreNode:
    """A Kubernetes Node, as far as decisions need it."""

    name: str
    uid: str
    resource_version: str
    labels: Mapping[str, str]
    ready: bool
    unschedulable: bool
    boot_id: str
    machine_id: str
    cordoned_for: str | None = None
    created: float = inf
    """When it was registered; never, where that is not known."""

    @property
    def control_plane(self) -> bool:
        """Whether it runs the control plane, and so falls under the cap of one at a time."""
        return CONTROL_PLANE_LABEL in self.labels


@dataclass(frozen=True, slots=True)
class Terms:
    """What the policy asked for when an order was given."""

    lock: str
    ready_seconds: int
    verify_timeout_seconds: int
    commit_timeout_seconds: int
    on_silence: str
    boot_method: str
    drain_timeout_seconds: int
    allow_no_deadman: bool = False
    allow_downgrade: bool = False
    bytes_per_second: int | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """One assignment of a Node."""

    id: str
    attempt: int
    lost_attempts: int
    retry: int
    policy: str
    policy_uid: str
    rollout: str
    release: Release
    goal: str
    cause: str | None
    from_boot_id: str | None
    terms: Terms
    request: Request | None = None
    """What people asked for, in place of a release."""

    @property
    def subject(self) -> str:
        """What the order is about, for a sentence: a version, or the request."""
        return self.release.version if self.request is None else f"the {self.request.noun}"

    @property
    def deed(self) -> str:
        """What the machine does when it is activated, for a sentence."""
        if self.request is None:
            return f"boots {self.release.version}"
        return "is reset and reboots" if self.request.action == "Reset" else "reboots"


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot as the agent reports it."""

    successful: bool
    version: str | None
    digest: str | None
    priority: int = 0
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """Where the agent stands with an order."""

    id: str = ""
    observed_goal: str | None = None
    phase: str = "Idle"
    cause: str | None = None
    error_class: str | None = None
    error_message: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """The operator's last word about a machine (Node.status.orchestration)."""

    state: str
    reason: str
    message: str
    since: float
    settled_since: float | None = None
    settled_boot: str | None = None
    """Boot id that settled_since is of."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A careen Node."""

    name: str
    uid: str
    resource_version: str
    generation: int
    created: float
    labels: Mapping[str, str] = field(default_factory=dict)
    core_uid: str = ""
    core_machine_id: str = ""
    paused: bool = False
    boot_method: str | None = None
    retry: int = 0
    abort: str | None = None
    request: Request | None = None
    """What people ask for now, done or not."""
    outcome: Outcome | None = None
    """What came of the last request."""
    deadman: str | None = None
    """What would undo a trial that hangs, as the agent reports it: HardwareWatchdog, TrialTimer or Missing."""
    order: Order | None = None
    booted: str | None = None
    boot_id: str = ""
    protocol: int | None = None
    architecture: str | None = None
    last_boot: str | None = None
    """How the running system was booted, as the agent reports it: Kexec or Firmware."""
    agent_version: str | None = None
    slots: Mapping[str, Slot] = field(default_factory=dict)
    step: Step = Step()
    rejected: tuple[tuple[str, int], ...] = ()
    note: Note | None = None
    units: MachineUnits = NO_UNITS
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    owns_step: bool = field(init=False, repr=False, compare=False)
    """Whether the agent's step answers the current order."""
    phase: str = field(init=False, repr=False, compare=False)
    """Phase of the current order; Idle while the agent has not answered it."""
    acknowledged: bool = field(init=False, repr=False, compare=False)
    """Whether the agent has acted on the last goal of the current order."""
    orphaned: bool = field(init=False, repr=False, compare=False)
    """Whether the agent is on a trial for an order that this Node does not hold (the Node was made again)."""
    closed: bool = field(init=False, repr=False, compare=False)
    """Whether nothing more can come of the current order, so that its lock needs no further word of the agent."""
    in_flight: bool = field(init=False, repr=False, compare=False)
    """Whether goal Activate was written and the order has not ended; or an open step lost its order."""

    def __post_init__(self) -> None:
        """Derive, once a version of the object and not at each of the many questions of each plan."""
        order, step = self.order, self.step
        owns_step = order is not None and step.id == order.id
        _derive(self, "owns_step", owns_step)
        _derive(self, "phase", step.phase if owns_step else "Idle")
        acknowledged = owns_step and order is not None and step.observed_goal == order.goal
        _derive(self, "acknowledged", acknowledged)
        _derive(self, "orphaned", step.id != "" and not owns_step and step.phase in ON_TRIAL)
        _derive(self, "closed", self._is_closed())
        activated = order is not None and order.from_boot_id is not None
        _derive(self, "in_flight", (activated and not self.closed) or self.orphaned)

    @property
    def reported(self) -> bool:
        """Whether an agent has ever written this Node's status."""
        return bool(self.boot_id)

    def _is_closed(self) -> bool:
        """An Abort that finds no Activating in the very same version of the object is final: the agent's own write of
        Activating tests the goal (rule 3), so it can't be accepted any more.
        """
        order = self.order
        if order is None or self.phase in TERMINAL:
            return True
        if self.phase == "Idle" and self.acknowledged:
            return True  # The agent's journal knows that this order has ended before it was activated.
        if order.goal == "Abort" and (order.from_boot_id is None or self.phase not in ON_TRIAL):
            return True
        return self.phase == "Failed" and order.from_boot_id is not None and self.acknowledged

    @property
    def wanted(self) -> Request | None:
        """The request that is still to be done."""
        request = self.request
        return request if request is not None and not (self.outcome and self.outcome.request.id == request.id) else None

    def runs(self, release: Release) -> bool:
        """Whether the release is booted and marked good."""
        slot = self.slots.get(self.booted or "")
        if slot is None or not slot.successful:
            return False
        return slot.digest == release.digest if slot.digest else slot.version == release.version

    @property
    def version(self) -> str | None:
        """Version of the booted slot; None where it is not known."""
        slot = self.slots.get(self.booted or "")
        return slot.version if slot is not None else None

    def rejects(self, digest: str) -> bool:
        """Whether the digest was rolled back here and nobody has said to try again."""
        return any(known == digest and self.retry <= retry for known, retry in self.rejected)


@dataclass(frozen=True, slots=True)
class Holder:
    """One holder of a lock."""

    id: str
    since: float
    order: str | None = None
    node_uid: str | None = None
    core_node_uid: str | None = None
    machine_id: str | None = None
    by: str | None = None
    reason: str | None = None
    unavailable_at_grant: bool = False
    """Whether it was not Ready, or silent, at the grant; a cordon of people is not meant."""


@dataclass(frozen=True, slots=True)
class Lock:
    """A RebootLock."""

    name: str
    uid: str
    resource_version: str
    generation: int
    max: int
    paused: bool = False
    term: int = 0
    holders: tuple[Holder, ...] = ()
    observed_generation: int = 0
    conditions: Mapping[str, Condition] = field(default_factory=dict)

    @property
    def available(self) -> int:
        """How many more may hold it; negative while max was lowered below the holders."""
        return self.max - len(self.holders)


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement on a label."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wave:
    """A wave of the policy's strategy."""

    name: str
    count: int | None = None
    percent: int | None = None
    node_names: tuple[str, ...] = ()
    soak_seconds: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """One machine on which a rollout failed."""

    node: str
    node_uid: str
    order: str
    cause: str


@dataclass(frozen=True, slots=True)
class Rollout:
    """The stored state of a rollout."""

    id: str
    number: int
    release: Release
    started_at: float
    wave: int
    wave_names: tuple[str, ...]
    wave_bounds: tuple[str, ...]
    wave_done_at: float | None = None
    failures: tuple[Failure, ...] = ()
    failed: int = 0
    forgiven: int = 0
    halted_at: float | None = None
    policy_uid: str = ""
    """UID of the policy; a policy made again counts from 1 again, so the id alone does not tell its rollouts apart."""

    def gave(self, order: Order) -> bool:
        """Whether the order is one of this rollout's."""
        return order.rollout == self.id and order.policy_uid == self.policy_uid


@dataclass(frozen=True, slots=True)
class Policy:
    """An UpdatePolicy."""

    name: str
    uid: str
    resource_version: str
    generation: int
    selector: tuple[Requirement, ...]
    repository: str
    version: str | None
    digest: str | None
    terms: Terms
    channel: str | None = None
    mirrors: tuple[str, ...] = ()
    paused: bool = False
    max_unavailable: int | str = 1
    topology: tuple[tuple[str, int | str], ...] = ()
    max_staging: int = 10
    waves: tuple[Wave, ...] = ()
    drain_retry_seconds: int = 300
    max_failed: int = 0
    resume: tuple[str, int] | None = None
    resolved: Resolved | None = None
    rollout: Rollout | None = None
    observed_generation: int = 0
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def release_key(self) -> ReleaseKey:
        """What the release is looked up by."""
        if self.channel is not None:
            return ReleaseKey(self.repository, "channel", self.channel)
        if self.digest is not None:
            return ReleaseKey(self.repository, "digest", self.digest)
        return ReleaseKey(self.repository, "version", self.version or "")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a plan may look at."""

    machines: Mapping[str, Machine] = field(default_factory=dict)
    core_nodes: Mapping[str, CoreNode] = field(default_factory=dict)
    pods: Mapping[str, tuple[Pod, ...]] = field(default_factory=dict)
    """Pods to move, by the name of their node."""
    policies: Mapping[str, Policy] = field(default_factory=dict)
    locks: Mapping[str, Lock] = field(default_factory=dict)
    units: Mapping[str, Unit] = field(default_factory=dict)
    releases: Mapping[ReleaseKey, Lookup] = field(default_factory=dict)
    """What release keys resolve to; nothing for those whose first lookup has not ended."""
    silent: frozenset[str] = frozenset()
    """Machines whose agent is silent, or never spoke."""
    silent_since: Mapping[str, float] = field(default_factory=dict)
    """Since when they have been seen to be so, without a gap; those that are not named: nobody knows."""
    unit_rules: Rules = NO_RULES
    refusals: Mapping[str, Refusal] = field(default_factory=dict)
    """Refused evictions by the pod's UID."""
    verifying_since: Mapping[str, float] = field(default_factory=dict)
    """When this leader first saw an order on trial, without a gap since."""
    busy: frozenset[tuple[str, str]] = frozenset()
    """(kind, name) of objects with a write in flight; no action may touch them."""
    paused: bool = False
    """The cluster-wide switch."""
    term: int = 0
    """Term of the leader that plans."""
    operator_node: str | None = None
    """The machine that the operator itself runs on; it is taken last."""
    node_selector: tuple[Requirement, ...] = ()
    """Core Nodes that are given a careen Node."""
