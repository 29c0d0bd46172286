"""What the parts of one plan share: the surveyed fleet, the rollouts as they stand, and the instant."""

from collections.abc import Mapping
from dataclasses import dataclass

from careen.api.meta import MAX_MESSAGE
from careen.api.reasons import Reason

from .actions import Action, Explanation
from .fleet import Fleet
from .movement import STILL, Movement
from .rollouts import Progress
from .snapshot import Machine, Order, Policy, Snapshot


@dataclass(frozen=True, slots=True)
class View:
    """One plan's reading of the world."""

    fleet: Fleet
    progress: Mapping[str, Progress]
    """Rollouts by policy."""
    now: float
    units: Movement = STILL
    """What units have to do with it."""

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot behind the fleet."""
        return self.fleet.snapshot

    def policy_of_order(self, order: Order) -> Policy | None:
        """The policy that gave the order, if it still exists."""
        policy = self.snapshot.policies.get(order.policy)
        return policy if policy is not None and policy.uid == order.policy_uid else None

    def selects(self, policy: Policy, machine: Machine) -> bool:
        """Whether the policy's selector matches the machine."""
        return policy.name in self.fleet.owners.get(machine.name, ())


@dataclass(slots=True)
class Look:
    """What one machine needs next; as a draft it is not frozen, for two are made for every machine in every plan."""

    explanation: Explanation
    actions: tuple[Action, ...] = ()
    wants: str | None = None
    """`stage` or `activate` when the machine is a candidate; the plan decides under the budgets."""
    wake_at: float | None = None
    settled_since: float | None = None
    """Since when all gates after the boot pass; stored in the note."""


def explain(
    machine: Machine, policy: str | None, state: str, reason: Reason, message: str = "", *, until: float | None = None
) -> Explanation:
    """An explanation of one machine; what the stored note can't hold is cut here, so that the two compare as equal."""
    return Explanation(machine.name, policy, state, str(reason), message[:MAX_MESSAGE], until)
