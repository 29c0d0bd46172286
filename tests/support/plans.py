"""Machines on a rung of the ladder, for tests of the plan."""

from __future__ import annotations

from typing import Any

from careen.core.snapshot import Terms


def staged(cluster: Any, *names: str, limit: int = 1, **policy: Any) -> None:
    """Machines that hold 2.0.0 in the passive slot, and a free lock."""
    cluster.add(*names)
    cluster.set_policy(**policy)
    for name in names:
        cluster.give(name)
    cluster.set_lock(limit=limit)


def drained(cluster: Any, name: str = "m0") -> None:
    """A machine that holds the lock, cordoned by us."""
    cluster.set_lock(name)
    cluster.change_core(name, unschedulable=True, cordoned_for=cluster.machines[name].order.id)


def on_trial(cluster: Any, *, goal: str = "Activate", phase: str = "Verifying", **changes: Any) -> None:
    """m0 on trial of 2.0.0, holding the lock."""
    cluster.add("m0")
    cluster.set_policy(**changes)
    cluster.give("m0", goal, phase, cause="Withdrawn" if goal == "Abort" else None, acknowledged=goal == "Activate")
    drained(cluster)


def cluster_terms() -> Terms:
    return Terms("default", 0, 600, 600, "Rollback", "Auto", 3600)
