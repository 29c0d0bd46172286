"""Machines of which a reboot or a reset is asked, for tests of the plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from careen.core.releases import NO_RELEASE
from careen.core.requests import DEFAULT_TERMS, request_order_id
from careen.core.snapshot import Order, Step
from careen.core.wishes import Outcome, Request

REBOOT = Request("Reboot", "r1")


def asked(cluster: Any, *names: str, request: Request = REBOOT, policy: bool = True, limit: int = 1) -> None:
    """Machines that run what their policy asks for, and of which a reboot is asked."""
    cluster.add(*names, version="2.0.0")
    for name in names:
        cluster.change(name, request=request)
    if policy:
        cluster.set_policy()
    cluster.set_lock(limit=limit)


def under_order(
    cluster: Any, goal: str = "Stage", phase: str = "Staged", *, name: str = "m0", request: Request = REBOOT,
    acknowledged: bool = True, cause: str | None = None, error: str | None = None, **changes: Any,
) -> Order:  # fmt: skip
    """The request's order, and how far the agent is with it."""
    core = cluster.cores[name].uid
    owner = next(iter(cluster.policies.values()), None)
    order = Order(
        request_order_id(core, request.id, 0), 0, 0, 0, owner.name if owner else "", owner.uid if owner else "", "",
        NO_RELEASE, goal, None, None if goal == "Stage" else "boot-before", DEFAULT_TERMS, request,
    )  # fmt: skip
    order = replace(order, **changes)
    step = Step(order.id, goal if acknowledged else "Stage", phase, cause, "Boot" if error else None, error or "")
    cluster.change(name, order=order, step=step)
    return order


def holding(cluster: Any, name: str = "m0") -> None:
    cluster.set_lock(name)
    cluster.change_core(name, unschedulable=True, cordoned_for=cluster.machines[name].order.id)


def ended(cluster: Any, outcome: str = "Done", request: Request = REBOOT) -> None:
    """The outcome of the present order, as the operator has stored it."""
    order = cluster.machines["m0"].order
    cluster.change("m0", outcome=Outcome(request, outcome, None, "", order.id))
