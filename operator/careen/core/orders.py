"""One machine's way through an order: what the operator does next at each rung of the ladder.

Every step is decided from what is stored, one write at a time, so that a new leader goes on from any point. The
order of the writes is the protocol (design.md section 4): lock, cordon, drain, Activate; Abort, uncordon, release.
"""

from dataclasses import replace

from careen.api.reasons import LOST, Cause, Reason

from .aborts import abort
from .actions import DeleteNode, RekeyNode, SetOrder, Uncordon
from .drains import drain
from .gates import HELD_GATES, REQUEST_GATES, Candidate, first_refusal
from .releases import Release
from .requests import explain_request, policy_behind, progress_behind, request_order_id, store_outcome
from .snapshot import ON_TRIAL, TERMINAL, UNKNOWN, CoreNode, Machine, Order, Policy, Rollout, Terms
from .view import Look, View, explain
from .waves import order_id

UNKNOWN_RELEASE = Release("unknown:", "unknown", "sha256:" + "0" * 64, 1, "unknown")
"""Stands in an Abort for an order whose release nobody remembers; the agent undoes from its own journal."""
MOST_ATTEMPTS = 1024
"""How far a lost order's attempt is searched for when its Node was made again."""


def advance(view: View, machine: Machine) -> Look:
    """What this machine needs next."""
    core = view.snapshot.core_nodes.get(machine.name)
    if core is None or view.fleet.core_of(machine) is None:
        gone = explain(machine, None, "Gone", Reason.NODE_NOT_READY, "the core Node is gone")
        return Look(gone, (DeleteNode(machine.name, machine.uid),))
    if (machine.core_uid, machine.core_machine_id) != (core.uid, core.machine_id):
        rekey = RekeyNode(machine.name, machine.uid, machine.resource_version, core.uid, core.machine_id)
        look = _follow_order(view, machine, core)
        if look.wants is not None:
            name = look.explanation.policy
            told = explain(machine, name, "Waiting", Reason.AGENT_MISSING, "its core Node was registered anew")
            return Look(told, (rekey,))
        return replace(look, actions=(rekey,))
    return _follow_order(view, machine, core)


def _follow_order(view: View, machine: Machine, core: CoreNode) -> Look:
    if machine.orphaned:
        return _reissue(view, machine, core)
    if machine.order is None or machine.closed:
        return _settle(view, machine, core)
    if machine.order.from_boot_id is None:
        prepare = _prepare if machine.order.request is None else _prepare_request
        return prepare(view, machine, core, machine.order)
    return _watch_trial(view, machine, core, machine.order)


def _settle(view: View, machine: Machine, core: CoreNode) -> Look:
    """The order has ended: let go what it held, store what came of a request, then look for new work."""
    look = _let_go(view, machine, core)
    write = store_outcome(machine)
    # No other order may take this one's place before that is stored: nothing else remembers it.
    return look if write is None else replace(look, actions=(*look.actions, write), wants=None)


def _let_go(view: View, machine: Machine, core: CoreNode) -> Look:
    """Uncordon, and let the lock go when the evidence is there."""
    own = view.fleet.own_holder(machine)
    policy = view.fleet.policy_of(machine)
    if own is not None:
        reason, message = Reason.RETURNING, f"waits for the evidence to release RebootLock {own[0].name}"
        if machine.phase in TERMINAL and not own[1].unavailable_at_grant:
            blocker = find_blocker(view, machine, core)
            if blocker is not None:
                reason, message = Reason.NODE_NOT_READY, f"{blocker}; it keeps RebootLock {own[0].name} until it is"
        look = Look(explain(machine, policy.name if policy else None, "Returning", reason, message))
        if core.cordoned_for is not None and core.cordoned_for == own[1].order and core.unschedulable:
            uncordon = Uncordon(core.name, core.uid, core.resource_version, schedulable=True)
            return replace(look, actions=(uncordon,))
        return look
    if machine.wanted is not None:
        told = explain_request(machine.wanted)
        return Look(explain(machine, policy.name if policy else None, "Waiting", *told), wants="request")
    if not view.fleet.owners.get(machine.name):
        return Look(explain(machine, None, "Unmanaged", Reason.NO_POLICY, "no policy selects it"))
    return Look(explain(machine, policy.name if policy else None, "Waiting", Reason.POLICY_CONFLICT), wants="stage")


def _prepare(view: View, machine: Machine, core: CoreNode, order: Order) -> Look:
    """Goal Stage: not binding yet. It may be withdrawn at any time, with or without the lock."""
    policy = view.policy_of_order(order)
    own = view.fleet.own_holder(machine)
    held = own is not None and own[1].order == order.id
    if machine.abort == order.id:
        return abort(machine, order, Cause.PEOPLE, Reason.PAUSED, "aborted by people")
    if policy is None or not view.selects(policy, machine):
        return abort(machine, order, Cause.WITHDRAWN, Reason.NO_POLICY, "its policy no longer selects it")
    progress = view.progress[policy.name]
    if progress.rollout is not None and progress.rollout.id != order.rollout:
        return abort(machine, order, Cause.WITHDRAWN, Reason.ROLLING_OUT, "another release has been asked for")
    at_rest = machine.phase in ("Staged", "Verifying")
    if progress.rollout is not None and not at_rest and _address(progress.rollout.release, policy) != order.release:
        # The same digest from another place: an order is fixed, so only another one reaches the new place.
        return abort(machine, order, Cause.WITHDRAWN, Reason.ROLLING_OUT, "the release is to come from another place")
    if held and not at_rest and machine.owns_step:
        # The slot was staged at the grant and is not any more. Drained and waiting it would block everybody.
        message = machine.step.error_message or f"{order.release.version} is no longer staged"
        return abort(machine, order, Cause.WITHDRAWN, Reason.STAGING_FAILED, message)
    if held and own is not None:
        lock = view.snapshot.locks.get(order.terms.lock)
        refusal = first_refusal(
            HELD_GATES,
            Candidate(view.fleet, machine, policy, progress, view.now, order.terms.lock, lock, units=view.units),
        )
        if refusal is not None:
            return abort(machine, order, Cause.WITHDRAWN, refusal.reason, refusal.message)
        return drain(view, machine, core, order, own[1])
    if machine.wanted is not None and machine.phase != "Verifying":
        # Not binding yet: what is staged stays on the disk, and is found there by the next order.
        return Look(explain(machine, policy.name, "Waiting", *explain_request(machine.wanted)), wants="request")
    if order.terms.allow_no_deadman != policy.terms.allow_no_deadman:
        message = "boot.allowNoDeadman of its policy has changed"
        return abort(machine, order, Cause.WITHDRAWN, Reason.NO_DEADMAN, message)
    if machine.phase == "Staged":
        message = f"{order.release.version} is staged"
        return Look(explain(machine, policy.name, "Waiting", Reason.STAGING, message), wants="activate")
    if machine.phase == "Verifying":
        # Journal and Node were both lost during a trial: a grant lets this order take the trial over.
        message = f"{order.release.version} runs already and is not marked good; nobody knows of its trial"
        return Look(explain(machine, policy.name, "Waiting", Reason.VERIFYING, message), wants="activate")
    if machine.phase == "Failed":
        message = f"{machine.step.error_class}: {machine.step.error_message}"
        return Look(explain(machine, policy.name, "Staging", Reason.STAGING_FAILED, message))
    message = f"writes {order.release.version} to the passive slot"
    return Look(explain(machine, policy.name, "Staging", Reason.STAGING, message))


def _prepare_request(view: View, machine: Machine, core: CoreNode, order: Order) -> Look:
    """A request's order with goal Stage: people may take it back, and it waits for the lock."""
    assert order.request is not None
    own = view.fleet.own_holder(machine)
    if machine.abort == order.id:
        return abort(machine, order, Cause.PEOPLE, Reason.REQUESTED, "aborted by people")
    if machine.request != order.request:
        return abort(machine, order, Cause.WITHDRAWN, Reason.REQUESTED, "it is no longer asked for")
    if own is not None and own[1].order == order.id:
        if machine.owns_step and machine.phase != "Staged":
            message = machine.step.error_message or "the agent is no longer ready for it"
            return abort(machine, order, Cause.WITHDRAWN, Reason.REQUESTED, message)
        policy, lock = policy_behind(view, machine), view.snapshot.locks.get(order.terms.lock)
        progress = progress_behind(view, policy)
        lock_name = order.terms.lock
        candidate = Candidate(view.fleet, machine, policy, progress, view.now, lock_name, lock, units=view.units)
        refusal = first_refusal(REQUEST_GATES, candidate)
        if refusal is not None:
            return abort(machine, order, Cause.WITHDRAWN, refusal.reason, refusal.message)
        return drain(view, machine, core, order, own[1])
    reason, message = explain_request(order.request)
    if machine.phase == "Staged":
        return Look(explain(machine, order.policy or None, "Waiting", reason, message), wants="activate")
    return Look(explain(machine, order.policy or None, "Waiting", reason, f"{message}; the agent has not taken it up"))


def _watch_trial(view: View, machine: Machine, core: CoreNode, order: Order) -> Look:
    """Activate was ordered: commit when all gates have passed for long enough, abort when they do not in time."""
    if machine.abort == order.id and order.goal != "Abort":
        return abort(machine, order, Cause.PEOPLE, Reason.PAUSED, "aborted by people")
    if order.goal == "Abort":
        message = f"goes back: {order.cause}"
        return Look(explain(machine, order.policy, "Activating", Reason.GIVING_BACK, message))
    silent = machine.name in view.snapshot.silent
    if silent and machine.phase not in ON_TRIAL and order.goal == "Activate":
        # No Activating was accepted, and after this write none can be: the lock need not wait for a dead machine.
        message = "the agent fell silent before it took the order to boot"
        return abort(machine, order, Cause.WITHDRAWN, Reason.AGENT_SILENT, message)
    if silent and machine.phase != "Verifying":
        message = f"has not come back since it was told to boot {order.release.version}; its agent is silent"
        if order.request is not None:
            message = f"has not come back from {order.subject}; its agent is silent"
        return Look(explain(machine, order.policy, "Activating", Reason.AGENT_SILENT, message))
    if machine.phase != "Verifying":
        return Look(explain(machine, order.policy, "Activating", Reason.ACTIVATING, order.deed))
    if order.goal == "Commit":
        message = f"marks {order.subject} {'good' if order.request is None else 'done'}"
        return Look(explain(machine, order.policy, "Verifying", Reason.VERIFYING, message))
    return _judge_trial(view, machine, core, order)


def _judge_trial(view: View, machine: Machine, core: CoreNode, order: Order) -> Look:
    blocker = find_blocker(view, machine, core)
    commit = SetOrder(machine.name, machine.uid, machine.resource_version, replace(order, goal="Commit"))
    if blocker is None:
        stored = settled_since(view, machine)
        settled = stored if stored is not None else view.now
        ready_at = settled + order.terms.ready_seconds
        runs = f"{order.release.version} runs" if order.request is None else f"{order.subject} is over"
        message = f"{runs}; Ready since the boot"
        look = Look(explain(machine, order.policy, "Verifying", Reason.VERIFYING, message, until=ready_at))
        # Without readySeconds nothing runs from an instant, so none has to be stored before the word Commit.
        if order.terms.ready_seconds == 0 or (stored is not None and view.now >= ready_at):
            return replace(look, actions=(commit,))
        return replace(look, settled_since=settled, wake_at=ready_at)
    since = view.snapshot.verifying_since.get(order.id)
    deadline = None if since is None else since + order.terms.verify_timeout_seconds
    if deadline is not None and view.now >= deadline:
        late = f"not healthy within {order.terms.verify_timeout_seconds} s of the boot: {blocker}"
        return abort(machine, order, Cause.GATE_FAILED, Reason.VERIFYING, late)
    return Look(
        explain(machine, order.policy, "Verifying", Reason.VERIFYING, blocker, until=deadline), wake_at=deadline
    )


def settled_since(view: View, machine: Machine) -> float | None:
    """Since when all gates have passed in this boot, as stored under this very hold.

    An older instant is of an earlier trial. One of another boot is of before the machine went down again, unseen.
    """
    note, own = machine.note, view.fleet.own_holder(machine)
    if note is None or own is None or note.state != "Verifying" or note.settled_since is None:
        return None
    fresh = note.settled_since >= own[1].since and note.settled_boot == machine.boot_id
    return note.settled_since if fresh else None


def find_blocker(view: View, machine: Machine, core: CoreNode) -> str | None:
    """What keeps a trial from being committed, in words: the gates after the boot."""
    if machine.name in view.snapshot.silent:
        return "the agent is silent"
    if core.boot_id != machine.boot_id:
        return "the kubelet has not reported this boot yet"
    if not core.ready:
        return "the core Node is not Ready"
    return None


def give_order(machine: Machine, core: CoreNode, policy: Policy, rollout: Rollout) -> SetOrder | str:
    """A new order with goal Stage, or a sentence why the last one has to be heard out first."""
    attempt, lost = _next_attempt(machine, core, rollout), 0
    last = machine.order
    if last is not None and rollout.gave(last):
        heard = machine.acknowledged or machine.phase in TERMINAL
        if last.goal == "Abort" and last.cause == Cause.PEOPLE and not heard:
            return "the agent has not acknowledged the abort yet"
        lost = last.lost_attempts + (machine.phase == "RolledBack" and machine.step.cause in LOST)
    terms = policy.terms
    if machine.boot_method not in (None, "Auto"):
        terms = replace(terms, boot_method=machine.boot_method or terms.boot_method)
    order = Order(
        id=order_id(core.uid, rollout, attempt),
        attempt=attempt,
        lost_attempts=lost,
        retry=machine.retry,
        policy=policy.name,
        policy_uid=policy.uid,
        rollout=rollout.id,
        release=_address(rollout.release, policy),
        goal="Stage",
        cause=None,
        from_boot_id=None,
        terms=terms,
    )
    return SetOrder(machine.name, machine.uid, machine.resource_version, order)


def _address(release: Release, policy: Policy) -> Release:
    """The release as orders carry it: where it is now, without what only the gates read."""
    return replace(release, mirrors=policy.mirrors, min_version=None, capabilities=(), architectures=())


def _next_attempt(machine: Machine, core: CoreNode, rollout: Rollout) -> int:
    """The next attempt counts on for the life of the Node, also across rollouts, so that no id comes back.

    A Node that was made again knows no last order, or a nameless one; what its agent tells of the one before stands
    in for it.
    """
    last = machine.order
    counted = last.attempt + 1 if last is not None else 0
    if last is not None and last.rollout != UNKNOWN:
        return counted
    known = _find_attempt(machine.step.id, core, rollout) if machine.step.id else None
    return counted if known is None else max(counted, known + 1)


def _find_attempt(order: str, core: CoreNode, rollout: Rollout) -> int | None:
    """Which attempt of this rollout the order was."""
    return next((n for n in range(MOST_ATTEMPTS) if order_id(core.uid, rollout, n) == order), None)


def _reissue(view: View, machine: Machine, core: CoreNode) -> Look:
    """The Node was made again while its machine was on a trial: the same order again, or Abort (rule 10)."""
    step = machine.step
    policy = view.fleet.policy_of(machine)
    rollout = view.progress[policy.name].rollout if policy is not None else None
    message = "the Node was made again during a trial; its order is issued again"
    if policy is not None and rollout is not None and view.progress[policy.name].stored:
        attempt = _find_attempt(step.id, core, rollout)
        if attempt is not None:
            given = give_order(replace(machine, order=None), core, policy, rollout)
            assert isinstance(given, SetOrder)
            # Activating was reported in the boot before the trial; in the trial that boot id is no longer known.
            before = machine.boot_id if step.phase == "Activating" else UNKNOWN
            order = replace(given.order, id=step.id, attempt=attempt, goal="Activate", from_boot_id=before)
            look = Look(explain(machine, policy.name, "Activating", Reason.ACTIVATING, message))
            return replace(look, actions=(replace(given, order=order),))
    order = _nameless_order(view, machine, core)
    look = Look(explain(machine, policy.name if policy else None, "Activating", Reason.GIVING_BACK, message))
    return replace(look, actions=(SetOrder(machine.name, machine.uid, machine.resource_version, order),))


def _count_attempts(machine: Machine, core: CoreNode) -> int:
    """The highest attempt known. The next order counts on from it: an id that came back would be answered at once."""
    known = [machine.order.attempt] if machine.order is not None else []
    if machine.request is not None:
        ids = (request_order_id(core.uid, machine.request.id, attempt) for attempt in range(MOST_ATTEMPTS))
        known += [attempt for attempt, found in enumerate(ids) if found == machine.step.id]
    return max(known, default=0)


def _nameless_order(view: View, machine: Machine, core: CoreNode) -> Order:
    own = view.fleet.own_holder(machine)
    lock = own[0].name if own is not None else next(iter(sorted(view.snapshot.locks)), "default")
    terms = Terms(lock, 0, 600, 600, "Rollback", "Auto", 3600)
    assert machine.step.phase in ON_TRIAL
    return Order(
        id=machine.step.id,
        attempt=_count_attempts(machine, core),
        lost_attempts=0,
        retry=machine.retry,
        policy=UNKNOWN,
        policy_uid=UNKNOWN,
        rollout=UNKNOWN,
        release=UNKNOWN_RELEASE,
        goal="Abort",
        cause=str(Cause.WITHDRAWN),
        from_boot_id=UNKNOWN,
        terms=terms,
    )
