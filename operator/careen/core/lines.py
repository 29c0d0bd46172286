"""One machine as one line for people: what is stored about it, in the words of the operator where it has said any.

The operator writes no note for what lasts seconds (core.notes), so those states are told from order and lock here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from careen.api.reasons import Reason

from .snapshot import TERMINAL, Holder, Lock, Machine, Note

ENDED_WITH_ORDER = frozenset({"Draining", "Activating", "Verifying", "Returning"})
"""States of a note that tell nothing any more when the order has ended."""


@dataclass(frozen=True, slots=True)
class Line:
    """What is known about one machine."""

    machine: str
    booted: str
    """A or B; empty before the first report."""
    slots: str
    """Priority/tries/successful of both slots, the booted one marked by a star."""
    version: str
    """Version that runs; empty when unknown."""
    order: str
    """Id of the order; empty without one."""
    wanted: str
    """Version of the order."""
    goal: str
    phase: str
    state: str
    reason: str
    message: str


def read_line(machine: Machine, document: Mapping[str, Any], locks: Iterable[Lock]) -> Line:
    """The line of a machine; `document` is its careen Node as the API server sent it."""
    order = machine.order
    running = machine.slots.get(machine.booted or "")
    state, reason, message = _say(machine, _own_holder(machine, locks))
    return Line(
        machine=machine.name,
        booted=machine.booted or "",
        slots=show_slots(document.get("status") or {}),
        version=(running.version or "") if running is not None else "",
        order=order.id if order is not None else "",
        wanted=order.subject.removeprefix("the ") if order is not None else "",
        goal=order.goal if order is not None else "",
        phase=machine.phase if order is not None else machine.step.phase,
        state=state,
        reason=reason,
        message=message,
    )


def show_slots(status: Mapping[str, Any]) -> str:
    """Both slots as P/T/S: `A* 1/0/1  B 2/1/0` is booted from A, and tries B next."""
    slots = status.get("slots") or {}
    shown = []
    for letter, slot in sorted(slots.items()):
        mark = "*" if letter == status.get("booted") else " "
        numbers = (slot.get("priority", 0), slot.get("tries", 0), int(slot.get("successful", False)))
        shown.append(f"{letter}{mark} {'/'.join(map(str, numbers))}")
    return "  ".join(shown)


def _say_end(machine: Machine) -> tuple[str, str, str]:
    """The order has ended, and the operator's last word is from before that."""
    slot = machine.slots.get(machine.booted or "")
    version = slot.version if slot is not None else "an unknown version"
    if machine.phase == "Committed":
        return "UpToDate", Reason.UP_TO_DATE, f"runs {version}"
    return "Failed", Reason.ROLLED_BACK, f"is back on {version}: {machine.step.cause}"


def _own_holder(machine: Machine, locks: Iterable[Lock]) -> Holder | None:
    held = (holder for lock in locks for holder in lock.holders if holder.id == machine.name and holder.order)
    return next(held, None)


def _is_of_hold(note: Note | None, state: str, holder: Holder | None) -> bool:
    """Whether the operator said this state under this very hold: of these states it notes only what is stuck."""
    return note is not None and holder is not None and note.state == state and note.since >= holder.since


def _say(machine: Machine, holder: Holder | None) -> tuple[str, str, str]:
    order, note = machine.order, machine.note
    said = (note.state, note.reason, note.message) if note is not None else None
    if machine.in_flight:
        if note is not None and said is not None and note.state == "Verifying" and machine.phase == "Verifying":
            return said
        if said is not None and machine.phase != "Verifying" and _is_of_hold(note, "Activating", holder):
            return said
        subject = order.subject if order is not None else "a release"
        if order is None or order.goal == "Abort":
            return "Activating", Reason.GIVING_BACK, f"goes back: {order.cause if order is not None else 'no order'}"
        if machine.phase == "Verifying":
            on_trial = order.request is None
            return "Verifying", Reason.VERIFYING, f"{subject} {'runs on trial' if on_trial else 'is being checked'}"
        return "Activating", Reason.ACTIVATING, order.deed
    if holder is not None and order is not None and machine.closed:
        if said is not None and _is_of_hold(note, "Returning", holder):
            return said
        return "Returning", Reason.RETURNING, "waits for the evidence to release its reboot lock"
    if holder is not None and (note is None or note.state != "Draining"):
        return "Draining", Reason.DRAINING, "the lock has been granted"
    if machine.phase in TERMINAL and (note is None or note.state in ENDED_WITH_ORDER):
        return _say_end(machine)
    if said is not None:
        return said
    if order is not None and not machine.closed:
        if order.request is not None:
            return "Waiting", Reason.REQUESTED, f"a {order.request.noun} is asked for ({order.request.id})"
        return "Staging", Reason.STAGING, f"writes {order.release.version} to the passive slot"
    return "Unmanaged", Reason.NO_POLICY if machine.reported else Reason.AGENT_MISSING, ""
