"""The operator's word on each machine: when it is worth a write, and what it says.

Notes cost a write to every machine's Node, so one is written when its reason changes, not when its wording does; all
capacity reasons count as one, since they come and go with every hand-over.
"""

from careen.api.reasons import Reason

from .actions import Explanation, Turn, WriteNote
from .budgets import CAPACITY
from .drains import drain_started
from .locks import LockDraft
from .rollouts import LOCK_WRITING, LOOKING_UP, RECORDING
from .snapshot import Machine, Note
from .view import Look, View

UNWRITTEN = frozenset({"Activating", "Returning", "Gone"})
"""States that last seconds and are told by the agent's own phase."""
WORDY = frozenset({Reason.DISRUPTION_BUDGET, Reason.STAGING_FAILED})
"""Reasons whose message names something that people must find: another message is worth a write."""
STUCK = frozenset({Reason.AGENT_SILENT, Reason.NODE_NOT_READY, Reason.STAGING_FAILED})
"""Reasons that keep a machine where it is until somebody sees to it, in whatever state."""
FLEETING = frozenset({LOOKING_UP, RECORDING, LOCK_WRITING})
"""What a whole fleet waits for while one write or one lookup is under way: over before a note could be read."""
TOLD = frozenset({Reason.DISRUPTION_BUDGET, Reason.DRAIN_TIMEOUT})
"""Reasons that people must act on: an Event says so too, as it does where a machine is stuck on its way."""
PATIENCE = 10.0
"""Seconds that a trial may take to become healthy before a note says what it waits for."""


def write_note(view: View, machine: Machine, look: Look, explanation: Explanation) -> WriteNote | None:
    """The note that the explanation is worth, if any."""
    note = machine.note
    if (
        (explanation.state in UNWRITTEN and explanation.reason not in STUCK)
        or explanation.message in FLEETING
        or (explanation.reason == Reason.NO_POLICY and note is None)
    ):
        return None
    if explanation.state == "Verifying" and look.settled_since is None and not _is_slow(view, machine, note):
        return None
    if explanation.state == "Verifying" and machine.order is not None and machine.order.goal == "Commit":
        return None
    if note is not None and note.settled_since == look.settled_since and _says(note, view, machine, explanation):
        return None
    since = view.now
    if note is not None and note.state == explanation.state and not _is_old_drain(view, machine, explanation):
        since = note.since
    boot = machine.boot_id if look.settled_since is not None else None
    written = Note(explanation.state, explanation.reason, explanation.message, since, look.settled_since, boot)
    turn = None
    told = explanation.reason in TOLD or (explanation.reason in STUCK and explanation.state != "Waiting")
    if told and (note is None or note.reason != explanation.reason):
        turn = Turn("Node", machine.name, machine.uid, explanation.reason, explanation.message, warning=True)
    version = machine.resource_version if look.settled_since is not None else None
    return WriteNote(machine.name, machine.uid, machine.generation, written, turn, version)


def _says(note: Note, view: View, machine: Machine, explanation: Explanation) -> bool:
    if note.state != explanation.state or _is_old_drain(view, machine, explanation):
        return False
    if note.reason in CAPACITY and explanation.reason in CAPACITY:
        return True
    if note.reason != explanation.reason:
        return False
    return explanation.reason not in WORDY or note.message == explanation.message


def _is_old_drain(view: View, machine: Machine, explanation: Explanation) -> bool:
    """Whether the note's drain ran under an earlier hold: its instant must not shorten this one."""
    own = view.fleet.own_holder(machine)
    if explanation.state != "Draining" or own is None or machine.note is None:
        return False
    return machine.note.state == "Draining" and drain_started(machine, own[1]) is None


def _is_slow(view: View, machine: Machine, note: Note | None) -> bool:
    if note is not None and note.settled_since is not None:
        return True  # A gate failed after it had passed: the stored instant must go.
    since = view.snapshot.verifying_since.get(machine.step.id)
    return since is not None and view.now >= since + PATIENCE


def list_holders(drafts: dict[str, LockDraft]) -> frozenset[str]:
    """Who holds a lock in this plan's drafts; their notes must not get in the way of their next orders."""
    return frozenset(holder.id for draft in drafts.values() for holder in draft.lock.holders)
