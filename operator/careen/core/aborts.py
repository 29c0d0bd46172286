"""Taking an order back."""

from dataclasses import replace

from careen.api.reasons import Cause, Reason

from .actions import SetOrder, Turn
from .snapshot import Machine, Order
from .view import Look, explain


def abort(machine: Machine, order: Order, cause: Cause, reason: Reason, message: str) -> Look:
    """The order with goal Abort, and why."""
    turn = None
    if order.from_boot_id is not None:
        reason_word = "GoingBack" if order.request is None else "CallingOff"
        turn = Turn("Node", machine.name, machine.uid, reason_word, f"{order.subject}: {message}", warning=True)
    taken = replace(order, goal="Abort", cause=str(cause))
    action = SetOrder(machine.name, machine.uid, machine.resource_version, taken, turn)
    return Look(explain(machine, order.policy, "Waiting", reason, message), (action,))
