"""What must hold of reboots and resets: each is asked for, is done once, touches no slot, and is told as it was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from careen.agent.step import (
    AbandonTrial,
    ArmSlot,
    Disarm,
    InvalidateSlot,
    MarkGood,
    PrepareReset,
    StageImage,
    Step,
)

from .api import Item
from .schedule import BrokenError

if TYPE_CHECKING:
    from .machine import Machine

SLOT_WRITES = (AbandonTrial, ArmSlot, Disarm, InvalidateSlot, MarkGood, StageImage)


class RequestCheck:
    """Sees what agents do for requests, and what the operator says of them."""

    def __init__(self) -> None:
        self.resets: dict[str, int] = {}
        """Resets by order."""
        self.done = self.refused = 0

    def see_step(self, machine: Machine, step: Step, accepted: set[str]) -> None:
        """Before a step is taken: rule 16."""
        opened = machine.journal.open if machine.journal else None
        if opened is not None and opened.kind != "Update" and isinstance(step, SLOT_WRITES):
            raise BrokenError(f"rule 16: {machine.name} touches a slot for a {opened.kind}: {step}")
        if isinstance(step, PrepareReset) and (opened is None or opened.kind != "Reset"):
            raise BrokenError(f"rule 16: {machine.name} prepares a reset for {opened}")
        if isinstance(step, PrepareReset) and opened is not None and opened.order not in accepted:
            raise BrokenError(f"rule 3: {machine.name} prepares a reset without a word from the API server")

    def see_reset(self, machine: Machine) -> None:
        """The machine's writable file system was emptied."""
        opened = machine.journal.open if machine.journal else None
        if opened is None or opened.kind != "Reset":
            raise BrokenError(f"rule 16: {machine.name} was reset for {opened}")
        machine.note("is reset")
        self.resets[opened.order] = self.resets.get(opened.order, 0) + 1
        if self.resets[opened.order] > 1:
            raise BrokenError(f"rule 16: {machine.name} was reset twice for {opened.order}")

    def see_node(self, before: Item | None, after: Item, by: str) -> None:
        """A Node is written: people's field stays people's, and what came of a request is told once, and truly."""
        asked = (before.spec.get("request") if before is not None else None, after.spec.get("request"))
        if by == "operator" and asked[0] != asked[1]:
            raise BrokenError(f"invariant 8: the operator asks {after.name} for {asked[1]}")
        old: dict[str, Any] = (before.status.get("request") or {}) if before is not None else {}
        new: dict[str, Any] = after.status.get("request") or {}
        if new == old:
            return
        if new.get("id") == old.get("id"):
            raise BrokenError(f"rule 16: request {new.get('id')} of {after.name} ended twice: {old}, {new}")
        order = after.spec["assignment"]
        if order["id"] != new["order"]:
            raise BrokenError(f"rule 16: {new} of {after.name} is told after its order has gone: {order['id']}")
        if new["outcome"] != "Done":
            self.refused += 1
            return
        self.done += 1
        if after.status["bootID"] == order.get("fromBootID"):
            raise BrokenError(f"rule 16: {after.name} has not booted since {order}, and yet: {new}")
        if new["action"] == "Reset" and order["id"] not in self.resets:
            raise BrokenError(f"rule 16: {after.name} was not reset, and yet: {new}")


def is_to_be_cured(node: Item | None, holder: Mapping[str, Any], policies: Iterable[Item]) -> bool:
    """Whether people have asked, since the grant, for something else that may cure a machine that is not Ready."""
    if node is None:
        return False
    asked, order = node.spec.get("request") or {}, node.spec.get("assignment") or {}
    known = {(node.status.get("request") or {}).get("id"), (order.get("request") or {}).get("id")}
    if asked and asked["id"] not in known:
        return True
    started = [(policy.status.get("rollout") or {}).get("startedAt", "") for policy in policies]
    return any(instant > holder["since"] for instant in started)
