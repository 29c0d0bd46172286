"""What becomes of the locks' holders: who is freed on evidence, who is adopted again, who is granted.

All of it for one lock lands in one compare-and-swap at the resourceVersion that this snapshot shows (rule 1).
"""

from dataclasses import dataclass, field, replace

from careen.api.meta import DEFAULT_LOCK

from .actions import Turn, WriteLock
from .fleet import is_gone, same_machine
from .semaphore import acquire, order_holders
from .snapshot import TERMINAL, CoreNode, Holder, Lock, Machine
from .view import View


@dataclass(slots=True)
class LockDraft:
    """A lock with this plan's changes in it."""

    lock: Lock
    before: Lock
    granted: list[str] = field(default_factory=list)
    freed: list[str] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)

    def grant(self, holder: Holder) -> None:
        """Add a holder that all gates have let pass."""
        outcome = acquire(self.lock, holder)
        assert isinstance(outcome, Lock), "the gate check_free refuses a full lock"
        self.lock = outcome
        self.granted.append(holder.id)

    def to_action(self, term: int) -> WriteLock | None:
        """The one write that makes it so; None when nothing changes.

        People who set max or paused see in status.available and in Ready what it means, also while nobody asks.
        """
        lock = self.before
        if self.lock.holders == lock.holders and lock.term == term and lock.observed_generation == lock.generation:
            return None
        return WriteLock(
            name=lock.name,
            uid=lock.uid,
            resource_version=lock.resource_version,
            generation=lock.generation,
            max=lock.max,
            paused=lock.paused,
            term=term,
            holders=self.lock.holders,
            granted=tuple(self.granted),
            freed=tuple(self.freed),
            turns=tuple(self.turns),
        )


def draft_locks(view: View) -> dict[str, LockDraft]:
    """All locks after freeing, re-keying and adopting, before any grant.

    A lock that carries a higher term than ours was written by our successor: nothing is drafted for it.
    """
    machine_of = {(lock.name, holder.id): name for name, pairs in view.fleet.held.items() for lock, holder in pairs}
    drafts = {}
    for lock in view.snapshot.locks.values():
        if lock.term > view.snapshot.term:
            continue
        draft = LockDraft(lock, lock)
        kept = []
        for holder in lock.holders:
            name = machine_of.get((lock.name, holder.id))
            after = _keep_holder(view, holder, view.snapshot.machines[name] if name else None, draft)
            if after is None:
                draft.freed.append(holder.id)
            else:
                kept.append(after)
        draft.lock = replace(lock, holders=tuple(kept))
        drafts[lock.name] = draft
    _adopt(view, drafts)
    return drafts


def _keep_holder(view: View, holder: Holder, machine: Machine | None, draft: LockDraft) -> Holder | None:
    """The holder as it is to stay, or None when it is to be freed."""
    name = machine.name if machine else holder.id
    core = view.snapshot.core_nodes.get(name)
    if machine is not None and is_gone(machine, core):
        return holder  # The careen Node is deleted first, then the lock is released.
    if holder.core_node_uid and (
        core is None or not same_machine(holder.core_node_uid, holder.machine_id or "", core.uid, core.machine_id)
    ):
        return None
    if machine is None or core is None or holder.order is None:
        return holder
    if holder.node_uid != machine.uid and not machine.reported:
        return holder  # The Node was made again, and its agent has not said yet where it stands.
    if _is_free(view, machine, core, holder):
        turn = _tell_end(machine, holder)
        if turn is not None:
            draft.turns.append(turn)
        return None
    return replace(holder, node_uid=machine.uid, core_node_uid=core.uid, machine_id=core.machine_id)


def _is_free(view: View, machine: Machine, core: CoreNode, holder: Holder) -> bool:
    """Whether the evidence of rule 9 is there."""
    if core.cordoned_for == holder.order or ("CoreNode", core.name) in view.snapshot.busy:
        # A cordon of ours that is on its way would be found without its lock, beside the next holder's.
        return False
    step, order = machine.step, machine.order
    if machine.orphaned and step.id == holder.order:
        return False
    if order is not None and order.id == holder.order:
        if not machine.closed:
            return False
        if order.from_boot_id is None:
            return True
    if step.id == holder.order and step.phase in TERMINAL:
        return _is_as_before(view, machine, core, holder) or _is_superseded(view, machine, holder)
    return machine.reported


def _is_as_before(view: View, machine: Machine, core: CoreNode, holder: Holder) -> bool:
    """Whether the machine is no worse than at the grant, in the boot that it runs now.

    Without the boot id a Ready from before the reboot, not yet taken back by anybody, would count as evidence.
    """
    if holder.unavailable_at_grant:
        return True
    return core.ready and core.boot_id == machine.boot_id and machine.name not in view.snapshot.silent


def _is_superseded(view: View, machine: Machine, holder: Holder) -> bool:
    """Whether another release or a request, asked for after the grant, is to cure a machine that did not become Ready.

    Its agent must talk. It stays counted as unavailable. If it kept the lock, neither it nor the first wave could ever
    take the cure.
    """
    if machine.name in view.snapshot.silent:
        return False
    done = machine.order.request if machine.order is not None else None
    if machine.wanted is not None and (done is None or done.id != machine.wanted.id):
        return True
    policy = view.fleet.policy_of(machine)
    progress = view.progress[policy.name] if policy is not None else None
    rollout = progress.rollout if progress is not None and progress.stored else None
    if rollout is None:
        return False
    return rollout.started_at > holder.since and not machine.runs(rollout.release)


def _tell_end(machine: Machine, holder: Holder) -> Turn | None:
    if machine.step.id != holder.order or machine.step.phase not in TERMINAL:
        return None
    if machine.order is not None and machine.order.id == holder.order and machine.order.request is not None:
        return None  # Told when the outcome is stored.
    slot = machine.slots.get(machine.booted or "")
    version = slot.version if slot is not None else "unknown"
    if machine.step.phase == "Committed":
        return Turn("Node", machine.name, machine.uid, "Updated", f"runs {version}, marked good")
    message = f"is back on {version}: {machine.step.cause}"
    return Turn("Node", machine.name, machine.uid, "RolledBack", message, warning=True)


def _guess_lock(view: View, machine: Machine) -> str:
    """The lock of an order that the Node has forgotten: the one that its policy asks for now."""
    policy = view.fleet.policy_of(machine)
    return policy.terms.lock if policy is not None else DEFAULT_LOCK


def _adopt(view: View, drafts: dict[str, LockDraft]) -> None:
    """Complete holder sets that lost entries (a restore, a lock made again): machines in flight hold again."""
    for name in sorted(view.snapshot.machines):
        machine = view.snapshot.machines[name]
        core = view.fleet.core_of(machine)
        if not machine.in_flight or core is None or view.fleet.own_holder(machine) is not None:
            continue
        order = machine.order if not machine.orphaned else None
        draft = drafts.get(order.terms.lock if order is not None else _guess_lock(view, machine))
        # A lock that is gone is not replaced by a stranger's: the machine is counted down as long as it is in flight.
        if draft is None or any(holder.id == name for holder in draft.lock.holders):
            continue
        holder = Holder(
            id=name,
            since=view.now,
            order=order.id if order is not None else machine.step.id,
            node_uid=machine.uid,
            core_node_uid=core.uid,
            machine_id=core.machine_id,
            by="operator",
            reason="adopted again: it was in flight and the lock had lost it",
        )
        draft.lock = replace(draft.lock, holders=order_holders((*draft.lock.holders, holder)))
