"""What a plan may ask for. An action is data; the executor has one small idempotent function for each."""

from dataclasses import dataclass, field

from .holdings import Holding, UnitState
from .releases import Resolved
from .snapshot import Holder, Note, Order, Rollout
from .wishes import Outcome


@dataclass(frozen=True, slots=True)
class Turn:
    """A turning point that people should see as a Kubernetes Event, posted when the action has succeeded."""

    kind: str
    """Node, UpdatePolicy or Unit."""
    name: str
    uid: str
    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class CreateNode:
    """Make the careen Node of a core Node."""

    name: str
    core_uid: str
    machine_id: str


@dataclass(frozen=True, slots=True)
class DeleteNode:
    """Delete the careen Node of a machine that is gone; precondition: uid."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class RekeyNode:
    """The machine was registered anew under another core UID: note it; precondition: uid and resourceVersion."""

    name: str
    uid: str
    resource_version: str
    core_uid: str
    machine_id: str


@dataclass(frozen=True, slots=True)
class SetOrder:
    """Replace the whole assignment of a Node; precondition: uid and resourceVersion."""

    name: str
    uid: str
    resource_version: str
    order: Order
    turn: Turn | None = None


@dataclass(frozen=True, slots=True)
class WriteLock:
    """Replace term and holders of a RebootLock: frees, adopts and grants in one compare-and-swap at resourceVersion."""

    name: str
    uid: str
    resource_version: str
    generation: int
    max: int
    paused: bool
    term: int
    holders: tuple[Holder, ...]
    granted: tuple[str, ...] = ()
    freed: tuple[str, ...] = ()
    turns: tuple[Turn, ...] = ()


@dataclass(frozen=True, slots=True)
class Cordon:
    """Make a core Node unschedulable and mark it as ours, in one patch; precondition: uid and resourceVersion."""

    name: str
    uid: str
    resource_version: str
    order: str


@dataclass(frozen=True, slots=True)
class Uncordon:
    """Take our mark off, and make the core Node schedulable if `schedulable`; precondition: uid and resourceVersion."""

    name: str
    uid: str
    resource_version: str
    schedulable: bool
    """False where a person has made it schedulable already: only the mark is dropped."""


@dataclass(frozen=True, slots=True)
class Evict:
    """Evict one pod; precondition: the pod's uid."""

    namespace: str
    name: str
    uid: str
    node: str


@dataclass(frozen=True, slots=True)
class WriteNote:
    """Say why a machine waits (Node.status.orchestration and conditions); precondition: uid."""

    name: str
    uid: str
    generation: int
    note: Note
    turn: Turn | None = None
    resource_version: str | None = None
    """With a note that readySeconds run from: a precondition too, or a deposed leader's late word on an earlier boot
    would count for this one."""


@dataclass(frozen=True, slots=True)
class WriteOutcome:
    """Store what came of a request (Node.status.request); precondition: uid and resourceVersion.

    The order that tells it stays until then: no other place remembers it.
    """

    name: str
    uid: str
    resource_version: str
    outcome: Outcome
    turn: Turn | None = None


@dataclass(frozen=True, slots=True)
class PolicyState:
    """All that the operator says about a policy."""

    generation: int
    resolved: Resolved | None
    rollout: Rollout | None
    counts: tuple[tuple[str, int], ...]
    conditions: tuple[tuple[str, str, str, str], ...]
    """(type, status, reason, message) in a fixed order."""


@dataclass(frozen=True, slots=True)
class WritePolicy:
    """Replace a policy's status; precondition: uid and resourceVersion."""

    name: str
    uid: str
    resource_version: str
    state: PolicyState
    urgent: bool = False
    """Orders wait for this write (a new rollout): it is not held back by the rate limit."""
    turns: tuple[Turn, ...] = ()


@dataclass(frozen=True, slots=True)
class WriteUnit:
    """Replace a unit's status, the decision where it runs among it; precondition: uid and resourceVersion."""

    name: str
    uid: str
    resource_version: str
    state: UnitState
    pace: float = 0.0
    """Least seconds since the last write of this unit's status; 0 where machines wait for it."""
    turns: tuple[Turn, ...] = ()


@dataclass(frozen=True, slots=True)
class SetUnits:
    """Replace what a machine is to hold of units (Node.spec.units); precondition: uid and resourceVersion."""

    name: str
    uid: str
    resource_version: str
    holdings: tuple[Holding, ...]


Action = (
    CreateNode
    | DeleteNode
    | RekeyNode
    | SetOrder
    | WriteLock
    | Cordon
    | Uncordon
    | Evict
    | WriteNote
    | WriteOutcome
    | WritePolicy
    | WriteUnit
    | SetUnits
)


def target(action: Action) -> tuple[str, str]:
    """(kind, name) of the object that an action writes; two actions on one object are never in flight together."""
    match action:
        case WriteLock():
            return "RebootLock", action.name
        case Cordon() | Uncordon():
            return "CoreNode", action.name
        case Evict():
            return "Pod", action.uid
        case WritePolicy():
            return "UpdatePolicy", action.name
        case WriteUnit():
            return "Unit", action.name
        case _:
            return "Node", action.name


def list_turns(action: Action) -> tuple[Turn, ...]:
    """What people should see when the action has succeeded."""
    match action:
        case SetOrder() | WriteNote() | WriteOutcome():
            return (action.turn,) if action.turn is not None else ()
        case WriteLock() | WritePolicy() | WriteUnit():
            return action.turns
        case _:
            return ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a machine is where it is, in the words that all outputs share."""

    machine: str
    policy: str | None
    state: str
    reason: str
    message: str
    until: float | None = None
    """When the reason can change by time alone; None when it depends on something else."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions in the order of their importance, and an explanation for each machine."""

    actions: tuple[Action, ...] = ()
    explanations: tuple[Explanation, ...] = ()
    wake_at: float | None = None
    """Earliest instant at which the passing of time alone may change the plan."""
    waiting: dict[tuple[str, str], int] = field(default_factory=dict)
    """Machines that wait, by policy and reason."""
