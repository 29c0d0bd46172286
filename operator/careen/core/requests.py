"""Reboots and resets that people ask for: how one becomes an order, and what came of it.

A request has no trial slot: the running slot is booted again. Its order takes the same way as an update's, under the
same lock, budgets, pauses and drain; a machine without a policy has the terms of DEFAULT_TERMS.
"""

import hashlib
from dataclasses import replace

from careen.api.meta import DEFAULT_LOCK
from careen.api.reasons import Cause, Reason

from .actions import SetOrder, Turn, WriteOutcome
from .releases import NO_RELEASE
from .rollouts import Progress
from .snapshot import CoreNode, Machine, Order, Policy, Terms
from .view import View
from .wishes import Outcome, Request

DEFAULT_TERMS = Terms(
    lock=DEFAULT_LOCK,
    ready_seconds=0,
    verify_timeout_seconds=600,
    commit_timeout_seconds=600,
    on_silence="Rollback",
    boot_method="Auto",
    drain_timeout_seconds=3600,
)
"""Terms of a request on a machine that no policy selects: those of a policy that says nothing."""
NO_POLICY = Policy("", "", "", 0, (), "", None, None, DEFAULT_TERMS)
"""Stands in for the policy of such a machine."""


def request_order_id(core_uid: str, request: str, attempt: int) -> str:
    """Identity of a request's order; a new leader gives the same order the same id."""
    return hashlib.sha256(f"{core_uid}/{request}/{attempt}".encode()).hexdigest()[:20]


def policy_behind(view: View, machine: Machine) -> Policy:
    """The policy whose pauses and terms a request falls under now.

    With an order, its frozen terms count; of two policies that select the machine either will do, for a gate refuses.
    """
    owners = view.fleet.owners.get(machine.name, ())
    policy = view.snapshot.policies[owners[0]] if owners else NO_POLICY
    order = machine.order
    return replace(policy, terms=order.terms) if order is not None and order.request is not None else policy


def progress_behind(view: View, policy: Policy) -> Progress:
    """The rollout of that policy; nothing of it counts for a request."""
    return view.progress.get(policy.name) or Progress(policy, None, stored=False)


def give_request(machine: Machine, core: CoreNode, policy: Policy, request: Request) -> SetOrder:
    """A new order with goal Stage, which for a request means: say that you are ready."""
    last = machine.order
    attempt = last.attempt + 1 if last is not None else 0
    terms = policy.terms
    if machine.boot_method not in (None, "Auto"):
        terms = replace(terms, boot_method=machine.boot_method or terms.boot_method)
    order = Order(
        id=request_order_id(core.uid, request.id, attempt),
        attempt=attempt,
        lost_attempts=0,
        retry=machine.retry,
        policy=policy.name,
        policy_uid=policy.uid,
        rollout="",
        release=NO_RELEASE,
        goal="Stage",
        cause=None,
        from_boot_id=None,
        terms=terms,
        request=request,
    )
    return SetOrder(machine.name, machine.uid, machine.resource_version, order)


def store_outcome(machine: Machine) -> WriteOutcome | None:
    """The write that stores what came of the last order, if that was a request and it is not stored yet."""
    outcome = find_outcome(machine)
    if outcome is None or (machine.outcome is not None and machine.outcome.order == outcome.order):
        return None
    done = outcome.outcome == "Done"
    reason = ("Reset" if outcome.request.action == "Reset" else "Rebooted") if done else f"Request{outcome.outcome}"
    turn = Turn("Node", machine.name, machine.uid, reason, outcome.message, warning=outcome.outcome == "Failed")
    return WriteOutcome(machine.name, machine.uid, machine.resource_version, outcome, turn)


def find_outcome(machine: Machine) -> Outcome | None:
    """What came of the request behind the last order; None while that is open, or is to be tried once more.

    Orders that the operator has withdrawn, and those that the power cut short before anything was begun, say nothing
    of the request: another attempt follows.
    """
    order, step = machine.order, machine.step
    if order is None or order.request is None or not machine.closed:
        return None
    noun, cause = order.request.noun, step.cause if machine.owns_step else None
    if machine.phase == "Committed":
        if step.error_class is not None:
            return _conclude(order, "Failed", cause, f"{step.error_class}: {step.error_message}")
        if cause in (Cause.GATE_FAILED, Cause.LOCAL_GATE):
            return _conclude(order, "Failed", cause, f"the {noun} was done, but the machine is not healthy: {cause}")
        return _conclude(order, "Done", cause, f"the {noun} was done")
    if machine.phase == "RolledBack" and cause != Cause.INTERRUPTED:
        return _conclude(order, "Failed", cause, f"nobody knows whether the {noun} was done: {cause}")
    if machine.phase == "Failed":
        return _conclude(order, "Failed", cause, f"{step.error_class}: {step.error_message}")
    if order.goal == "Abort" and order.cause == Cause.PEOPLE:
        return _conclude(order, "Aborted", Cause.PEOPLE, f"the {noun} was called off")
    return None


def _conclude(order: Order, outcome: str, cause: str | None, message: str) -> Outcome:
    assert order.request is not None
    return Outcome(order.request, outcome, cause, message, order.id)


def explain_request(request: Request) -> tuple[Reason, str]:
    """Reason and sentence for a machine whose request is about to begin."""
    return Reason.REQUESTED, f"a {request.noun} is asked for ({request.id})"
