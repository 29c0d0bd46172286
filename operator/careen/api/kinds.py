"""What the API server knows of each kind beside its schema: names, columns, selectable fields."""

from dataclasses import dataclass

from pydantic.config import JsonDict

from .lock import RebootLockSpec, RebootLockStatus
from .meta import AGENT_LEASE_PREFIX, GROUP, Model
from .node import NodeSpec, NodeStatus
from .policy import UpdatePolicySpec, UpdatePolicyStatus
from .rules import quote, rule
from .unit import TEMPLATE_PATTERN, UNIT_TYPES, UnitSpec, UnitStatus

NAME_LIMIT = 253
"""Characters that an object's name may have."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`; a wide one is shown with `-o wide` only."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False
    description: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of the group, cluster-scoped and with a status subresource."""

    kind: str
    plural: str
    short_names: tuple[str, ...]
    description: str
    spec: type[Model]
    status: type[Model]
    columns: tuple[Column, ...]
    selectable: tuple[str, ...] = ()
    rules: tuple[JsonDict, ...] = ()
    spec_required: bool = True

    @property
    def singular(self) -> str:
        """The name for one of them, in lower case."""
        return self.kind.lower()

    @property
    def crd_name(self) -> str:
        """Name of the CustomResourceDefinition."""
        return f"{self.plural}.{GROUP}"


AGE = Column("Age", ".metadata.creationTimestamp", "date")


def _condition(kind: str, field: str) -> str:
    return f'.status.conditions[?(@.type=="{kind}")].{field}'


def _slot_columns(letter: str) -> tuple[Column, ...]:
    base = f".status.slots.{letter}"
    return (
        Column(f"{letter}-P", f"{base}.priority", "integer", True, f"GPT priority of slot USR-{letter}"),
        Column(f"{letter}-T", f"{base}.tries", "integer", True, f"Boot attempts left for slot USR-{letter}"),
        Column(f"{letter}-S", f"{base}.successful", "boolean", True, f"Whether slot USR-{letter} was proven good"),
    )


NODE = Kind(
    kind="Node",
    plural="nodes",
    short_names=("cnode",),
    description="The shadow of one machine. People wish, the operator orders, the machine's agent reports; each in "
    "fields of its own. The operator makes one for each machine, under the name of its core Node.",
    spec=NodeSpec,
    status=NodeStatus,
    spec_required=False,
    columns=(
        Column("Booted", ".status.booted", description="The slot that is running"),
        Column("A", ".status.slots.A.version", description="Version in slot USR-A"),
        Column("B", ".status.slots.B.version", description="Version in slot USR-B"),
        Column("Wanted", ".spec.assignment.release.version", description="Version that the operator ordered"),
        Column("Goal", ".spec.assignment.goal", description="How far the order lets the machine go"),
        Column("Phase", ".status.step.phase", description="Where the agent stands with it"),
        Column("Reason", ".status.orchestration.reason", description="Why the machine waits, or that it need not"),
        AGE,
        *_slot_columns("A"),
        *_slot_columns("B"),
        Column("Boot-ID", ".status.bootID", wide=True, description="Boot id of the running kernel"),
        Column("Policy", ".spec.assignment.policy.name", wide=True, description="The policy that gave the order"),
        Column("Request", ".status.request.id", wide=True, description="The last reboot or reset that has ended"),
        Column("Outcome", ".status.request.outcome", wide=True, description="What came of it"),
        Column("Message", ".status.orchestration.message", wide=True, description="The reason as a sentence"),
    ),
    selectable=(
        ".spec.assignment.policy.name",
        ".spec.assignment.goal",
        ".status.booted",
        ".status.step.phase",
        ".status.orchestration.reason",
    ),
    rules=(
        rule(
            f"self.metadata.name.size() <= {NAME_LIMIT - len(AGENT_LEASE_PREFIX)}",
            f"metadata.name must be at most {NAME_LIMIT - len(AGENT_LEASE_PREFIX)} characters: "
            f"its agent's Lease is named {AGENT_LEASE_PREFIX}NAME",
        ),
    ),
)

UPDATE_POLICY = Kind(
    kind="UpdatePolicy",
    plural="updatepolicies",
    short_names=("upol",),
    description="Says which machines run which release of the OS, and how fast they may get there.",
    spec=UpdatePolicySpec,
    status=UpdatePolicyStatus,
    columns=(
        Column("Version", ".status.rollout.version", description="Version that is being rolled out"),
        Column("Wave", ".status.rollout.wave", "integer", description="Index of the open wave, from 0"),
        Column("Updated", ".status.summary", description="Machines that run the version, of those selected"),
        Column("Unavailable", ".status.counts.unavailable", "integer", description="Machines that are unavailable"),
        Column("Complete", _condition("Complete", "status"), description="Whether all machines run the version"),
        Column("Reason", _condition("Complete", "reason"), description="Why it is complete, or not"),
        Column("Waiting", _condition("Waiting", "reason"), description="What the rollout waits for"),
        Column("Paused", ".spec.paused", "boolean", description="Whether people paused it"),
        AGE,
        Column("Selected", ".status.counts.selected", "integer", True, "Machines that the selector matches"),
        Column("In-Flight", ".status.counts.inFlight", "integer", True, "Machines told to activate and not yet ended"),
        Column("Failed", ".status.counts.failed", "integer", True, "Machines that reject the release"),
        Column("Channel", ".status.release.channel", wide=True, description="The channel that is followed"),
        Column("Resolved", ".status.release.version", wide=True, description="What the channel was last found to be"),
        Column("Rollout", ".status.rollout.id", wide=True, description="Id of the rollout"),
        Column("Lock", ".spec.strategy.lock", wide=True, description="The RebootLock that machines take"),
        Column("Message", _condition("Waiting", "message"), wide=True, description="What it waits for, as a sentence"),
    ),
    selectable=(".spec.strategy.lock", ".spec.release.channel", ".spec.release.version", ".spec.paused"),
)

REBOOT_LOCK = Kind(
    kind="RebootLock",
    plural="rebootlocks",
    short_names=("rlock",),
    description="The cluster-wide semaphore of reboots: only its holders may be activated, at most `max` at once.",
    spec=RebootLockSpec,
    status=RebootLockStatus,
    columns=(
        Column("Max", ".spec.max", "integer", description="How many may hold the lock at once"),
        Column("Available", ".status.available", "integer", description="How many more may take it"),
        Column("Holder", ".status.holders[0].id", description="The first of the holders; -o yaml shows all"),
        Column("Paused", ".spec.paused", "boolean", description="Whether nothing new is granted"),
        Column("Term", ".status.term", "integer", description="Term of the operator that wrote last"),
        AGE,
        Column("Since", ".status.holders[0].since", "date", True, "How long the first holder has held it"),
        Column("Order", ".status.holders[0].order", wide=True, description="The order that it is held for"),
    ),
)

UNIT = Kind(
    kind="Unit",
    plural="units",
    short_names=("cunit",),
    description="A systemd unit that the cluster runs on a machine of its choice, or on every machine that fits.",
    spec=UnitSpec,
    status=UnitStatus,
    columns=(
        Column("Desired", ".spec.desiredState", description="What people want: inactive, loaded or launched"),
        Column("State", ".status.currentState", description="What its machine has confirmed"),
        Column("Machine", ".status.placements[0].node", description="The machine that it was put on"),
        Column("Active", ".status.counts.active", "integer", description="Machines where it is active"),
        Column("Reason", _condition("Placed", "reason"), description="Why it is placed, or not"),
        AGE,
        Column("Name", ".spec.name", wide=True, description="Name for systemd, if it is not the object's"),
        Column("Hash", ".status.hash", wide=True, description="SHA-1 of its canonical text"),
        Column("Global", ".spec.placement.global", "boolean", True, "Whether it runs on every machine that fits"),
        Column("Placed", ".status.counts.placed", "integer", True, "Machines that are to hold it"),
        Column("Failed", ".status.counts.failed", "integer", True, "Machines where it has failed"),
        Column("Ready", _condition("Ready", "status"), wide=True, description="Whether it is as wanted on all of them"),
        Column("Message", _condition("Placed", "message"), wide=True, description="The reason as a sentence"),
    ),
    selectable=(".spec.name", ".spec.desiredState"),
    rules=(
        rule(
            # No pattern: its cost on a name that no schema bounds is more than the API server allows.
            " || ".join(["has(self.spec.name)", *(f"self.metadata.name.endsWith('.{each}')" for each in UNIT_TYPES)]),
            "metadata.name must be a unit's name with its type, such as web.service, or spec.name must give it",
        ),
        rule(
            "self.spec.desiredState == 'inactive' || "
            f"!(has(self.spec.name) && self.spec.name.matches({quote(TEMPLATE_PATTERN)}))",
            "desiredState of a template must be inactive: only its instances, such as web@1.service, can run",
        ),
    ),
)

KINDS = (NODE, UPDATE_POLICY, REBOOT_LOCK, UNIT)
