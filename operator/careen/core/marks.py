"""The cordon marks that have no reason any more, and so are taken away."""

from collections.abc import Iterator

from .actions import Uncordon
from .snapshot import CoreNode
from .view import View


def sweep_marks(view: View) -> list[Uncordon]:
    """The cordons of ours, or only their marks, that are to be taken back now."""
    held = {holder.order for lock in view.snapshot.locks.values() for holder in lock.holders if holder.order}
    held -= set(_list_superseded(view))
    swept = (_sweep_mark(core, held) for core in view.snapshot.core_nodes.values())
    return [action for action in swept if action is not None]


def _sweep_mark(core: CoreNode, held: set[str]) -> Uncordon | None:
    """A person who made the node schedulable overrules us: only the mark goes.

    A mark whose order holds no lock was left behind by a leader that died between two writes.
    """
    if core.cordoned_for is None:
        return None
    if not core.unschedulable:
        return Uncordon(core.name, core.uid, core.resource_version, schedulable=False)
    if core.cordoned_for not in held:
        return Uncordon(core.name, core.uid, core.resource_version, schedulable=True)
    return None


def _list_superseded(view: View) -> Iterator[str]:
    """Orders that hold a lock, but whose machine has another order by now.

    A request may take a Stage order's place while that one's grant is on its way. Nothing can come of the old order,
    and nothing else takes its cordon back: the mark would keep the lock held, and the lock would keep the mark.
    """
    for name, pairs in view.fleet.held.items():
        machine = view.snapshot.machines[name]
        if machine.order is None or machine.orphaned or not machine.reported:
            continue  # The Node was made again: the agent may still be on its way with the old order.
        for _, holder in pairs:
            # A holder under another name was matched by its machine id alone; of two clones it may be the other's.
            if holder.id == name and holder.order is not None and holder.order != machine.order.id:
                yield holder.order
