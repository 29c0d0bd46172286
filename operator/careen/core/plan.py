"""The decision: what to do now, from a snapshot and an instant. The only entry point of the core."""

from collections import Counter
from dataclasses import dataclass, field, replace

from careen.api.reasons import Reason

from .actions import Action, CreateNode, Explanation, Plan, WriteNote, target
from .budgets import Budgets
from .fleet import survey
from .gates import (
    ACTIVATE_GATES,
    REQUEST_ACTIVATE_GATES,
    REQUEST_STAGE_GATES,
    STAGE_GATES,
    Candidate,
    first_refusal,
)
from .locks import LockDraft, draft_locks
from .marks import sweep_marks
from .notes import STUCK, list_holders, write_note
from .orders import advance, give_order
from .refusal import Refusal
from .requests import give_request, policy_behind, progress_behind
from .resolution import next_warning
from .rollouts import LOCK_WRITING, RECORDING, Progress, assess
from .roster import Roster
from .selectors import matches
from .snapshot import Holder, Machine, Policy, Snapshot
from .statuses import is_waiting, write_policy
from .view import Look, View, explain
from .waves import rank, wave_of


@dataclass(slots=True)
class Draft:
    """A plan in the making."""

    view: View
    looks: dict[str, Look]
    locks: dict[str, LockDraft]
    budgets: Budgets
    freeing: str | None = None
    """The only lock that may grant in this plan, because its freed places are counted as free; None: any."""
    actions: list[Action] = field(default_factory=list)
    wakes: list[float] = field(default_factory=list)
    granted: list[str] = field(default_factory=list)
    """Machines that this plan grants a lock to."""

    def explain(self, name: str, explanation: Explanation) -> None:
        """Replace what is said of a machine."""
        look = self.looks[name]
        self.looks[name] = Look(explanation, look.actions, look.wants, look.wake_at, look.settled_since)

    def explain_wait(self, machine: Machine, policy: Policy, refusal: Refusal) -> None:
        """Record why a machine waits."""
        explanation = explain(
            machine, policy.name or None, "Waiting", refusal.reason, refusal.message, until=refusal.until
        )
        self.explain(machine.name, explanation)
        if refusal.until is not None:
            self.wakes.append(refusal.until)


def make_plan(snapshot: Snapshot, now: float, roster: Roster | None = None) -> Plan:
    """Decide. Pure: the same snapshot and instant give the same plan, with whatever roster: one that is kept from plan
    to plan only need not look again at units that are as they were.
    """
    fleet = survey(snapshot)
    units = (roster or Roster()).look(fleet, now)
    progress = {name: assess(fleet, policy, now) for name, policy in snapshot.policies.items()}
    view = View(fleet, progress, now, units.movement)
    looks = {name: advance(view, machine) for name, machine in sorted(snapshot.machines.items())}
    locks = draft_locks(view)
    freeing, freed = _freed_machines(view, locks)
    draft = Draft(view, looks, locks, Budgets(fleet, freed), freeing)
    _grant(draft)
    draft.actions += [action for d in draft.locks.values() if (action := d.to_action(snapshot.term)) is not None]
    draft.actions += [action for look in looks.values() for action in look.actions]
    draft.actions += sweep_marks(view)
    draft.actions += units.actions
    _take_requests(draft)
    _stage(draft)
    draft.actions += _create_nodes(snapshot)
    explanations = tuple(look.explanation for look in draft.looks.values())
    draft.actions += _write_policies(view, explanations)
    draft.actions += _write_notes(draft)
    draft.wakes += [look.wake_at for look in draft.looks.values() if look.wake_at is not None]
    draft.wakes += [units.wake_at] if units.wake_at is not None else []
    lookups = snapshot.releases.values()
    draft.wakes += [at for lookup in lookups if (at := next_warning(lookup, now)) is not None]
    draft.wakes += [p.soaking_until for p in progress.values() if p.soaking_until is not None]
    return Plan(
        actions=_drop_busy(draft.actions, snapshot),
        explanations=explanations,
        wake_at=min((wake for wake in draft.wakes if wake > now), default=None),
        waiting=dict(Counter((e.policy or "", e.reason) for e in explanations if is_waiting(e))),
    )


def _freed_machines(view: View, locks: dict[str, LockDraft]) -> tuple[str | None, frozenset[str]]:
    """The one lock that is freeing places, and the machines that hold nothing any more once its write is done.

    Their places may be granted again in that very write. In another lock's write they may not: of two writes one can
    fail, and then more machines would be down than the budgets allow.
    """
    freeing = [name for name, draft in locks.items() if draft.freed]
    if len(freeing) != 1:
        return None, frozenset()
    # Lock and holder: under the same name a person may hold another lock for the machine, which is not freed.
    freed = {(freeing[0], holder) for holder in locks[freeing[0]].freed}
    machines = (name for name, pairs in view.fleet.held.items() if {(lock.name, h.id) for lock, h in pairs} <= freed)
    return freeing[0], frozenset(machines)


def _candidate(draft: Draft, machine: Machine, policy: Policy, *, fresh: bool = False) -> Candidate:
    """fresh: for an order that is still to be given, in place of the machine's present one."""
    lock_name = policy.terms.lock
    if machine.order is not None and machine.order.goal == "Stage" and not machine.closed and not fresh:
        # Edits of the policy do not reach an order: it is activated under the lock that its terms name.
        lock_name = machine.order.terms.lock
    lock = draft.locks.get(lock_name)
    return Candidate(
        fleet=draft.view.fleet,
        machine=machine,
        policy=policy,
        progress=progress_behind(draft.view, policy),
        now=draft.view.now,
        lock_name=lock_name,
        lock=lock.lock if lock is not None else None,
        budgets=draft.budgets,
        units=draft.view.units,
        granted=tuple(draft.granted),
    )


def _policy_for(view: View, machine: Machine, what: str) -> Policy | None:
    if what == "request" or _is_request(machine):
        return policy_behind(view, machine)
    owners = view.fleet.owners.get(machine.name, ())
    return view.snapshot.policies[owners[0]] if owners else None


def _is_request(machine: Machine) -> bool:
    return machine.order is not None and machine.order.request is not None and not machine.closed


def _order_key(view: View, policy: Policy, machine: Machine) -> tuple[bool, bool, int, str]:
    """Broken machines first (they cost nothing more), the operator's own machine last, else by wave and rank.

    What people ask for by name comes before what a rollout does by itself.
    """
    rollout = progress_behind(view, policy).rollout
    core = view.snapshot.core_nodes[machine.name]
    wave = wave_of(rollout, policy, machine, core) if rollout is not None else 0
    wave = -1 if machine.wanted is not None else wave
    return (
        machine.name not in view.fleet.unavailable,
        machine.name == view.snapshot.operator_node,
        wave,
        rank(core.uid, rollout.id if rollout is not None else ""),
    )


def _wanting(draft: Draft, what: str) -> list[tuple[Machine, Policy]]:
    view = draft.view
    pairs = []
    for name, look in draft.looks.items():
        machine = view.snapshot.machines[name]
        policy = _policy_for(view, machine, what) if look.wants == what else None
        if policy is not None:
            pairs.append((machine, policy))
    return sorted(pairs, key=lambda pair: _order_key(view, pair[1], pair[0]))


def _grant(draft: Draft) -> None:
    """Grant the lock to staged machines under all budgets.

    While a lock's write is on its way nothing is granted anywhere: its outcome belongs into the budgets (rule 1).
    """
    view = draft.view
    writing = any(kind == "RebootLock" for kind, _ in view.snapshot.busy)
    for machine, policy in _wanting(draft, "activate"):
        candidate = _candidate(draft, machine, policy)
        gates = REQUEST_ACTIVATE_GATES if _is_request(machine) else ACTIVATE_GATES
        refusal = first_refusal(gates, candidate)
        if refusal is not None:
            draft.explain_wait(machine, policy, refusal)
            continue
        lock = draft.locks[candidate.lock_name]
        elsewhere = draft.freeing not in (None, lock.lock.name)
        if writing or elsewhere or lock.before.term != view.snapshot.term:
            draft.explain_wait(machine, policy, Refusal(Reason.LOCK_FULL, LOCK_WRITING))
            continue
        core = view.snapshot.core_nodes[machine.name]
        assert machine.order is not None
        lock.grant(
            Holder(
                id=machine.name,
                since=view.now,
                order=machine.order.id,
                node_uid=machine.uid,
                core_node_uid=core.uid,
                machine_id=core.machine_id,
                by="operator",
                reason=f"{policy.name or 'no policy'}: {machine.order.subject}",
                unavailable_at_grant=not core.ready or machine.name in view.snapshot.silent,
            )
        )
        draft.budgets.take(machine)
        draft.granted.append(machine.name)
        name = policy.name or None
        explanation = explain(machine, name, "Draining", Reason.DRAINING, "the lock has been granted")
        draft.looks[machine.name] = Look(explanation)


def _take_requests(draft: Draft) -> None:
    """Give the orders that people ask for; what a machine was only staging gives way."""
    view = draft.view
    for machine, policy in _wanting(draft, "request"):
        request = machine.wanted
        assert request is not None
        refusal = first_refusal(REQUEST_STAGE_GATES, _candidate(draft, machine, policy, fresh=True))
        if refusal is not None:
            draft.explain_wait(machine, policy, refusal)
            continue
        draft.actions.append(give_request(machine, view.snapshot.core_nodes[machine.name], policy, request))


def _stage(draft: Draft) -> None:
    """Give Stage orders to machines that do not run the release, within maxStaging."""
    view = draft.view
    staging = Counter(
        machine.order.policy
        for machine in view.snapshot.machines.values()
        if machine.order is not None
        and machine.order.request is None
        and machine.order.from_boot_id is None
        and not machine.closed
        and machine.phase not in ("Staged", "Failed")
    )
    for machine, policy in _wanting(draft, "stage"):
        progress = view.progress[policy.name]
        alone = len(view.fleet.owners[machine.name]) == 1
        if alone and progress.rollout is not None and machine.runs(progress.rollout.release):
            _explain_done(draft, machine, policy, progress)
            continue
        candidate = _candidate(draft, machine, policy)
        refusal = first_refusal(STAGE_GATES, candidate)
        if refusal is None and (progress.rollout is None or not progress.stored):
            refusal = Refusal(Reason.ROLLING_OUT, RECORDING)
        if refusal is None and staging[policy.name] >= policy.max_staging:
            refusal = Refusal(Reason.STAGING_BUDGET, f"{policy.max_staging} machines of {policy.name} are staging")
        if refusal is not None:
            draft.explain_wait(machine, policy, refusal)
            if refusal.reason == Reason.RELEASE_REJECTED:
                draft.explain(machine.name, replace(draft.looks[machine.name].explanation, state="Failed"))
            continue
        assert progress.rollout is not None
        given = give_order(machine, view.snapshot.core_nodes[machine.name], policy, progress.rollout)
        if isinstance(given, str):
            draft.explain_wait(machine, policy, Refusal(Reason.GIVING_BACK, given))
            continue
        staging[policy.name] += 1
        draft.actions.append(given)
        message = f"writes {progress.rollout.release.version} to the passive slot"
        draft.explain(machine.name, explain(machine, policy.name, "Staging", Reason.STAGING, message))


def _explain_done(draft: Draft, machine: Machine, policy: Policy, progress: Progress) -> None:
    assert progress.rollout is not None
    message = f"runs {progress.rollout.release.version}"
    draft.explain(machine.name, explain(machine, policy.name, "UpToDate", Reason.UP_TO_DATE, message))


def _create_nodes(snapshot: Snapshot) -> list[Action]:
    return [
        CreateNode(core.name, core.uid, core.machine_id)
        for core in snapshot.core_nodes.values()
        if core.name not in snapshot.machines and matches(snapshot.node_selector, core.labels, {})
    ]


def _write_policies(view: View, explanations: tuple[Explanation, ...]) -> list[Action]:
    by_policy: dict[str, list[Explanation]] = {name: [] for name in view.snapshot.policies}
    for explanation in explanations:
        for name in view.fleet.owners.get(explanation.machine, ()):
            by_policy[name].append(explanation)
    writes = (write_policy(view, view.progress[name], by_policy[name]) for name in sorted(by_policy))
    return [write for write in writes if write is not None]


def _write_notes(draft: Draft) -> list[WriteNote]:
    notes = []
    holding = list_holders(draft.locks)
    for name, look in draft.looks.items():
        timed = look.explanation.state in ("Draining", "Verifying") or look.explanation.reason in STUCK
        if name in holding and not timed:
            continue
        if name in holding and name not in draft.view.fleet.held:
            continue  # Granted by this very plan: nothing is true until that write is.
        busy = draft.view.snapshot.pods.get(name) or draft.view.units.moving.get(name)
        if look.explanation.state == "Draining" and not busy:
            continue  # Nothing to move: the note would only stand in the way of the next order.
        note = write_note(draft.view, draft.view.snapshot.machines[name], look, look.explanation)
        if note is not None:
            notes.append(note)
    return notes


def _drop_busy(actions: list[Action], snapshot: Snapshot) -> tuple[Action, ...]:
    """At most one action an object, and none on an object with a write on its way."""
    taken = set(snapshot.busy)
    kept = []
    for action in actions:
        where = target(action)
        if where not in taken:
            taken.add(where)
            kept.append(action)
    return tuple(kept)
