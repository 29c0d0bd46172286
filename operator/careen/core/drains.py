"""Emptying a machine that holds the lock: cordon, pods and units away, then the order to boot."""

from dataclasses import replace

from careen.api.reasons import Cause, Reason

from .aborts import abort
from .actions import Cordon, Evict, SetOrder, Turn
from .pods import Pod
from .snapshot import UNKNOWN, CoreNode, Holder, Machine, Order
from .view import Look, View, explain


def drain(view: View, machine: Machine, core: CoreNode, order: Order, holder: Holder) -> Look:
    """The lock is held: cordon, wait until pods and units are away, then order Activate."""
    look = Look(explain(machine, order.policy, "Draining", Reason.DRAINING, "the core Node is being cordoned"))
    if core.cordoned_for is not None and core.cordoned_for != order.id:
        return look  # The sweep takes the stranger's mark off first.
    if core.cordoned_for is None and not core.unschedulable:
        return replace(look, actions=(Cordon(core.name, core.uid, core.resource_version, order.id),))
    if not core.unschedulable:
        return look  # A person uncordoned it: the sweep drops our mark, and the next plan cordons again.
    # A trial that runs already is only taken over: nothing goes down any more.
    units = view.units.moving.get(machine.name, ()) if machine.phase != "Verifying" else ()
    if view.snapshot.pods.get(machine.name) or units:
        return _move_away(view, machine, order, holder, units)
    if machine.phase not in ("Staged", "Verifying"):
        return look
    before = machine.boot_id if machine.phase == "Staged" else UNKNOWN
    source = order.rollout if order.request is None else order.request.id
    turn = Turn("Node", machine.name, machine.uid, "Activating", f"{order.deed} ({source})")
    activate = replace(order, goal="Activate", from_boot_id=before)
    return replace(look, actions=(SetOrder(machine.name, machine.uid, machine.resource_version, activate, turn),))


def drain_started(machine: Machine, holder: Holder) -> float | None:
    """When the drain under this very hold began; a note from before the grant is of an earlier drain."""
    note = machine.note
    return note.since if note is not None and note.state == "Draining" and note.since >= holder.since else None


def _move_away(view: View, machine: Machine, order: Order, holder: Holder, units: tuple[str, ...]) -> Look:
    """Wait until pods and units are gone, or until the drain has taken too long."""
    pods = view.snapshot.pods.get(machine.name, ())
    started = drain_started(machine, holder)
    refused = [(pod, refusal) for pod in pods if (refusal := view.snapshot.refusals.get(pod.uid)) is not None]
    if refused:
        pod, refusal = refused[0]
        reason, message = Reason.DISRUPTION_BUDGET, f"pod {pod.namespace}/{pod.name} stays: {refusal.message}"
    else:
        reason, message = Reason.DRAINING, _tell_leaving(pods, units)
    deadline = None if started is None else started + order.terms.drain_timeout_seconds
    if deadline is not None and view.now >= deadline:
        timeout = f"the drain did not end in {order.terms.drain_timeout_seconds} s; {message}"
        return abort(machine, order, Cause.WITHDRAWN, Reason.DRAIN_TIMEOUT, timeout)
    evictions = tuple(
        Evict(pod.namespace, pod.name, pod.uid, pod.node)
        for pod in pods
        if not pod.deleting
        and (pod.uid not in view.snapshot.refusals or view.snapshot.refusals[pod.uid].not_before <= view.now)
    )
    wakes = [refusal.not_before for _, refusal in refused if refusal.not_before > view.now]
    wakes += [deadline] if deadline is not None else []
    look = Look(explain(machine, order.policy, "Draining", reason, message, until=deadline), evictions)
    return replace(look, wake_at=min(wakes, default=None))


def _tell_leaving(pods: tuple[Pod, ...], units: tuple[str, ...]) -> str:
    told = []
    if pods:
        names = ", ".join(f"{pod.namespace}/{pod.name}" for pod in pods[:3])
        told.append(f"{len(pods)} pods have to leave: {names}")
    if units:
        told.append(f"{len(units)} units have to leave: {', '.join(units[:3])}")
    return "; ".join(told)
