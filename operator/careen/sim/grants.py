"""Invariant 1 at the moment of each grant: no lock, budget, domain or control-plane cap is exceeded because of us.

Two views count. What the plan could see (raw documents of its own store) must allow the grant, with machines that are
down for other reasons counted against it; and what is truly down because of us must never exceed a limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from careen.api.meta import CONTROL_PLANE_LABEL
from careen.core.actions import WriteLock

from .api import Item
from .schedule import BrokenError

if TYPE_CHECKING:
    from .operator import Basis
    from .world import World


@dataclass(frozen=True, slots=True)
class GrantCheck:
    """One accepted write of a lock that grants."""

    world: World
    basis: Basis
    excused: set[str]
    """Machines whose place people took away by hand."""
    already: set[str]
    """Machines that were unavailable when they were last granted; kept from one grant to the next."""

    def check(self, action: WriteLock, lock: Item) -> None:
        """`lock`: as it is after the write."""
        holders, basis = holders_of(lock), self.basis
        if len(holders) > lock.spec["max"]:
            raise BrokenError(f"invariant 1: {len(holders)} holders of {lock.name}, max {lock.spec['max']}")
        if len({h["id"] for h in holders}) != len(holders):
            raise BrokenError(f"two holders of one name in {lock.name}: {holders}")
        down = self._find_down()
        fresh = {name for name in action.granted if name not in down}
        self.already.difference_update(fresh)
        self.already.update(down & set(action.granted))
        self._check_control_plane(down, set(action.granted))
        for policy in basis.objects["UpdatePolicy"].values():
            members = self._find_members(policy)
            for what, names, limit in self._list_budgets(policy, members):
                now_down = names & (down | basis.granted)
                if fresh & names and len(now_down) > limit:
                    raise BrokenError(
                        f"invariant 1: {sorted(now_down)} of {what} unavailable, at most {limit}; "
                        f"granted {action.granted}"
                    )
                ours = (names & self._down_by_us()) - self.excused
                if fresh & names and len(ours - self.already) > limit:
                    raise BrokenError(f"invariant 1: {sorted(ours)} of {what} are down by us, at most {limit}")

    def _check_control_plane(self, down: set[str], granted: set[str]) -> None:
        basis = self.basis
        cores = basis.objects["CoreNode"]
        planes = {name for name, item in cores.items() if CONTROL_PLANE_LABEL in item.doc["metadata"]["labels"]}
        ours = (planes & self._down_by_us()) - self.excused
        if granted & planes and len(ours) > 1:
            raise BrokenError(f"invariant 1: control-plane machines {sorted(ours)} are down by us")
        if (granted - down) & planes and len(planes & (down | basis.granted)) > 1:
            raise BrokenError(f"invariant 1: control-plane machines {sorted(planes & (down | granted))} are down")

    def _list_budgets(self, policy: Item, members: set[str]) -> list[tuple[str, set[str], int]]:
        basis = self.basis
        strategy = policy.spec.get("strategy") or {}
        selected = {name for name in members if self._selects(policy, name)}
        budgets = [(policy.name, members, _limit(strategy.get("maxUnavailable", 1), len(selected)))]
        for topology in strategy.get("topology") or ():
            zones: dict[str, set[str]] = {}
            for name in members:
                core = basis.objects["CoreNode"].get(name)
                if core is not None:
                    zones.setdefault(core.doc["metadata"]["labels"].get(topology["key"], ""), set()).add(name)
            budgets += [
                (f"zone {z}", names, _limit(topology["maxUnavailable"], len(names))) for z, names in zones.items()
            ]
        return budgets

    def _selects(self, policy: Item, name: str) -> bool:
        core = self.basis.objects["CoreNode"].get(name)
        wanted = (policy.spec.get("selector") or {}).get("matchLabels") or {}
        return core is not None and all(core.doc["metadata"]["labels"].get(k) == v for k, v in wanted.items())

    def _find_members(self, policy: Item) -> set[str]:
        basis = self.basis
        nodes = basis.objects["Node"]
        held = {h["id"] for item in basis.objects["RebootLock"].values() for h in holders_of(item) if h.get("order")}
        members = {
            name
            for name in {*nodes, *held}
            if self._selects(policy, name) and not (name in nodes and _is_other(nodes[name], basis))
        }
        for name, node in nodes.items():
            order = node.spec.get("assignment")
            if order and (order.get("policy") or {}).get("uid") == policy.uid and is_in_flight(node):
                members.add(name)
        return members

    def _find_down(self) -> set[str]:
        """The one definition of unavailable, as the plan could see it."""
        basis = self.basis
        held = {
            h["id"]
            for item in basis.objects["RebootLock"].values()
            for h in holders_of(item)
            if (item.name, h["id"]) not in basis.freed
        }
        down = set(basis.silent)
        for name, node in basis.objects["Node"].items():
            core = basis.objects["CoreNode"].get(name)
            if core is None or not is_ready(core) or core.spec.get("unschedulable"):
                down.add(name)
            if is_in_flight(node) or name in held:
                down.add(name)
        return down

    def _down_by_us(self) -> set[str]:
        """What is truly down because of us: holders, and machines whose agents have begun."""
        held = {
            h["id"]
            for item in self.world.api.objects["RebootLock"].values()
            for h in holders_of(item)
            if h.get("order")
        }
        return held | {m.name for m in self.world.machines.values() if m.journal is not None and m.journal.open}


def is_in_flight(node: Item) -> bool:
    """Whether goal Activate was written and the order has not ended, by design.md's words."""
    order: dict[str, Any] = node.spec.get("assignment") or {}
    step: dict[str, Any] = node.status.get("step") or {}
    on_trial = step.get("phase") in ("Activating", "Verifying")
    if not order or step.get("id") != order["id"]:
        if on_trial and step.get("id"):
            return True
        return "fromBootID" in order and order["goal"] != "Abort"
    if "fromBootID" not in order or step["phase"] in ("Committed", "RolledBack"):
        return False
    if order["goal"] == "Abort":
        return on_trial
    return not (step["phase"] == "Failed" and step.get("observedGoal") == order["goal"])


def _is_other(node: Item, basis: Basis) -> bool:
    """Whether the core Node of this name is another machine's."""
    core, known = basis.objects["CoreNode"].get(node.name), node.spec.get("coreNode") or {}
    if core is None or core.uid == known.get("uid"):
        return False
    return bool(core.status["nodeInfo"]["machineID"] != known.get("machineID"))


def holders_of(lock: Item) -> list[dict[str, Any]]:
    return lock.status.get("holders") or []


def is_ready(core: Item) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in core.status.get("conditions") or ())


def _limit(limit: int | str, total: int) -> int:
    return limit if isinstance(limit, int) else max(1, total * int(limit[:-1]) // 100)
