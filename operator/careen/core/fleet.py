"""The fleet at one instant: who is selected by what, who holds which lock, who is unavailable. Made once a plan."""

from collections.abc import Mapping
from dataclasses import dataclass

from careen.api.meta import PROTOCOL

from .selectors import matches
from .snapshot import CoreNode, Holder, Lock, Machine, Policy, Snapshot


@dataclass(frozen=True, slots=True)
class Fleet:
    """Indexes over a snapshot."""

    snapshot: Snapshot
    cores: Mapping[str, CoreNode]
    """Core Nodes by machine, but for those that another machine took the name of."""
    selected: Mapping[str, tuple[str, ...]]
    """Machines by policy: those that its selector matches."""
    members: Mapping[str, frozenset[str]]
    """Machines by policy: selected ones, and those under its orders although no longer selected."""
    owners: Mapping[str, tuple[str, ...]]
    """Policies by machine: those whose selector matches."""
    held: Mapping[str, tuple[tuple[Lock, Holder], ...]]
    """Locks by machine."""
    ghosts: frozenset[str]
    """Machines that hold a lock of ours while their careen Node is not there (it is being made again)."""
    unavailable: Mapping[str, str]
    """Machines that are unavailable, and why in words: the one definition of design.md section 1."""

    def own_holder(self, machine: Machine) -> tuple[Lock, Holder] | None:
        """The lock that the operator holds for this machine, if any."""
        for pair in self.held.get(machine.name, ()):
            if pair[1].order:
                return pair
        return None

    def policy_of(self, machine: Machine) -> Policy | None:
        """The one policy that selects the machine; None without one, or with several (PolicyConflict)."""
        owners = self.owners.get(machine.name, ())
        return self.snapshot.policies[owners[0]] if len(owners) == 1 else None

    def core_of(self, machine: Machine) -> CoreNode | None:
        """The core Node of the machine, unless another machine took its name."""
        return self.cores.get(machine.name)


def is_gone(machine: Machine, core: CoreNode | None) -> bool:
    """Whether the machine is gone: its core Node is absent, or has another UID and another machine id."""
    if core is None:
        return True
    if not machine.core_uid or machine.core_uid == core.uid:
        return False
    return not same_machine(machine.core_uid, machine.core_machine_id, core.uid, core.machine_id)


def same_machine(uid: str, machine_id: str, other_uid: str, other_machine_id: str) -> bool:
    """Whether two registrations are of one machine: the same UID, or the same known machine id under a new one."""
    return uid == other_uid or bool(machine_id and machine_id == other_machine_id)


def survey(snapshot: Snapshot) -> Fleet:
    """Index a snapshot."""
    cores = {
        name: core
        for name, machine in snapshot.machines.items()
        if (core := snapshot.core_nodes.get(name)) is not None and not is_gone(machine, core)
    }
    selected, owners = _select(snapshot, cores)
    members = {name: set(names) for name, names in selected.items()}
    by_uid = {policy.uid: name for name, policy in snapshot.policies.items()}
    for machine in snapshot.machines.values():
        if machine.order is not None and not machine.closed and machine.order.policy_uid in by_uid:
            members[by_uid[machine.order.policy_uid]].add(machine.name)
    held = _match_holders(snapshot)
    unavailable = {}
    for name, machine in snapshot.machines.items():
        why = explain_unavailable(snapshot, machine, cores.get(name), name in held)
        if why is not None:
            unavailable[name] = why
    return Fleet(
        snapshot=snapshot,
        cores=cores,
        selected=selected,
        members={name: frozenset(names) for name, names in members.items()},
        owners=owners,
        held=held,
        ghosts=_find_ghosts(snapshot),
        unavailable=unavailable,
    )


def explain_unavailable(snapshot: Snapshot, machine: Machine, core: CoreNode | None, holds: bool) -> str | None:
    """Why a machine is unavailable, in words; None when it is available. core: None when the machine is gone."""
    if core is None:
        return "its core Node is absent"
    if machine.name in snapshot.silent:
        return "its agent is silent"
    if machine.in_flight:
        return "it is in flight"
    if holds:
        return "it holds a reboot lock"
    if not core.ready:
        return "its core Node is not Ready"
    if core.unschedulable:
        return "its core Node is unschedulable"
    return None


def speaks_protocol(machine: Machine) -> bool:
    """Whether the agent speaks a protocol that this operator knows."""
    return machine.protocol is not None and machine.protocol <= PROTOCOL


def _select(
    snapshot: Snapshot, cores: Mapping[str, CoreNode]
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    selected: dict[str, list[str]] = {name: [] for name in snapshot.policies}
    owners: dict[str, tuple[str, ...]] = {}
    policies = sorted(snapshot.policies.values(), key=lambda policy: policy.name)
    for name in sorted(snapshot.machines):
        machine = snapshot.machines[name]
        core = cores.get(name)
        if core is None:
            continue
        names = tuple(p.name for p in policies if matches(p.selector, core.labels, machine.labels))
        if names:
            owners[name] = names
            for policy in names:
                selected[policy].append(name)
    return {name: tuple(names) for name, names in selected.items()}, owners


def _find_ghosts(snapshot: Snapshot) -> frozenset[str]:
    found = set()
    for lock in snapshot.locks.values():
        for holder in lock.holders:
            core = snapshot.core_nodes.get(holder.id)
            if core is None or holder.order is None or holder.id in snapshot.machines:
                continue
            if same_machine(holder.core_node_uid or "", holder.machine_id or "", core.uid, core.machine_id):
                found.add(holder.id)
    return frozenset(found)


def _match_holders(snapshot: Snapshot) -> dict[str, tuple[tuple[Lock, Holder], ...]]:
    """Locks by machine; a holder is matched by name, by the careen Node's UID, or by the kubelet's machine id."""
    if not any(lock.holders for lock in snapshot.locks.values()):
        return {}
    by_uid = {machine.uid: name for name, machine in snapshot.machines.items()}
    by_machine_id = {core.machine_id: name for name, core in snapshot.core_nodes.items() if core.machine_id}
    held: dict[str, list[tuple[Lock, Holder]]] = {}
    for lock in snapshot.locks.values():
        for holder in lock.holders:
            name = holder.id if holder.id in snapshot.machines else by_uid.get(holder.node_uid or "")
            name = name or by_machine_id.get(holder.machine_id or "") or by_machine_id.get(holder.id)
            if name is not None and name in snapshot.machines:
                held.setdefault(name, []).append((lock, holder))
    return {name: tuple(pairs) for name, pairs in held.items()}
