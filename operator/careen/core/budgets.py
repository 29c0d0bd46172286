"""How many machines may be unavailable at once: by policy, by topology domain, and for the control plane."""

from careen.api.reasons import Reason

from .fleet import Fleet, explain_unavailable
from .refusal import Refusal
from .selectors import matches
from .snapshot import Machine, Policy

CAPACITY = frozenset({Reason.BUDGET_SPENT, Reason.TOPOLOGY_BUDGET_SPENT, Reason.CONTROL_PLANE_BUDGET, Reason.LOCK_FULL})
"""Reasons that come and go with every hand-over: one state for all of them, so that they cost no status writes."""


def resolve_limit(limit: int | str, total: int) -> int:
    """A limit as a number of machines: a percentage is rounded down, but never below 1."""
    if isinstance(limit, int):
        return limit
    return max(1, total * int(limit.rstrip("%")) // 100)


class Budgets:
    """What is left of all budgets; grants of one plan take from it, so that they see one another."""

    def __init__(self, fleet: Fleet, freed: frozenset[str] = frozenset()) -> None:
        """`freed`: machines whose last place in a lock is given up by the very write that grants the next ones."""
        self._fleet = fleet
        snapshot = fleet.snapshot
        back = {
            name
            for name in freed
            if explain_unavailable(snapshot, snapshot.machines[name], snapshot.core_nodes.get(name), False) is None
        }
        # Nobody can tell how far a machine without its Node has come: it counts as down until it says so.
        self._down = (set(fleet.unavailable) - back) | fleet.ghosts
        self._members = {name: names | self._find_ghosts(name) for name, names in fleet.members.items()}
        self._control_plane = {name for name, core in snapshot.core_nodes.items() if core.control_plane}
        self._taken = {
            name
            for name in (self._control_plane & set(snapshot.machines)) - freed
            if fleet.held.get(name) or snapshot.machines[name].in_flight
        } | (self._control_plane & fleet.ghosts)
        self._down_by_policy = {name: len(names & self._down) for name, names in self._members.items()}
        self._domains: dict[tuple[str, str], dict[str, set[str]]] = {}
        self._spent: dict[tuple[str, str, str], Refusal] = {}
        """Refusals that hold for every machine of a policy or domain until the next grant."""

    def _policies_of(self, machine: Machine) -> list[Policy]:
        """Policies in whose budgets the machine counts."""
        policies = self._fleet.snapshot.policies
        return [policies[name] for name, members in self._members.items() if machine.name in members]

    def _find_ghosts(self, policy: str) -> set[str]:
        snapshot = self._fleet.snapshot
        selector = snapshot.policies[policy].selector
        return {name for name in self._fleet.ghosts if matches(selector, snapshot.core_nodes[name].labels, {})}

    def refuse(self, machine: Machine) -> Refusal | None:
        """Why the machine may not go down now; None when every budget has room.

        A machine that is already unavailable costs nothing extra (design.md section 4 rule 13).
        """
        refusal = self._refuse_control_plane(machine)
        if refusal is not None or machine.name in self._down:
            return refusal
        for policy in self._policies_of(machine):
            refusal = self._refuse_topology(policy, machine) or self._refuse_policy(policy)
            if refusal is not None:
                return refusal
        return None

    def take(self, machine: Machine) -> None:
        """Count the machine as unavailable from now on."""
        if machine.name in self._control_plane:
            self._taken.add(machine.name)
        if machine.name in self._down:
            return
        self._down.add(machine.name)
        self._spent.clear()
        for policy in self._policies_of(machine):
            self._down_by_policy[policy.name] += 1

    def _refuse_control_plane(self, machine: Machine) -> Refusal | None:
        if machine.name not in self._control_plane:
            return None
        # A broken control-plane machine may be cured while it is the only one that we hold down.
        others = self._taken if machine.name in self._down else self._down & self._control_plane
        others = others - {machine.name}
        if not others:
            return None
        return Refusal(
            Reason.CONTROL_PLANE_BUDGET, f"control-plane machine {min(others)} is unavailable; one at a time"
        )

    def _refuse_policy(self, policy: Policy) -> Refusal | None:
        limit = resolve_limit(policy.max_unavailable, len(self._fleet.selected[policy.name]))
        down = self._down_by_policy[policy.name]
        if down < limit:
            return None
        key = (policy.name, "", "")
        if key not in self._spent:
            names = sorted(self._members[policy.name] & self._down)
            self._spent[key] = Refusal(
                Reason.BUDGET_SPENT,
                f"{down} of at most {limit} machines of policy {policy.name} are unavailable: {name_some(names)}",
            )
        return self._spent[key]

    def _refuse_topology(self, policy: Policy, machine: Machine) -> Refusal | None:
        for key, limit in policy.topology:
            domains = self._domains_of(policy, key)
            value = self._domain(key, machine.name)
            if (policy.name, key, value) in self._spent:
                return self._spent[policy.name, key, value]
            names = domains.get(value, set())
            down = names & self._down
            allowed = resolve_limit(limit, len(names))
            if len(down) >= allowed:
                refusal = Refusal(
                    Reason.TOPOLOGY_BUDGET_SPENT,
                    f"{len(down)} of at most {allowed} machines with {key}={value or 'unset'} are unavailable: "
                    f"{name_some(sorted(down))}",
                )
                self._spent[policy.name, key, value] = refusal
                return refusal
        return None

    def _domains_of(self, policy: Policy, key: str) -> dict[str, set[str]]:
        domains = self._domains.get((policy.name, key))
        if domains is None:
            domains = {}
            for name in self._members[policy.name]:
                domains.setdefault(self._domain(key, name), set()).add(name)
            self._domains[policy.name, key] = domains
        return domains

    def _domain(self, key: str, name: str) -> str:
        core = self._fleet.snapshot.core_nodes.get(name)
        return core.labels.get(key, "") if core is not None else ""


def name_some(names: list[str], most: int = 3) -> str:
    """A list of names for a sentence, cut after the first few."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
