"""The fleet in figures: read from the snapshot and the explanations of the plan, so that they say what conditions say.

Pure, and made only when somebody asks (a scrape), on frozen objects.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from careen.core.actions import Explanation, Plan
from careen.core.holdings import Counts, Unit
from careen.core.snapshot import Lock, Machine, Policy, Slot, Snapshot
from careen.observe.fleet import Figures

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Sight:
    """What the leader saw when it planned last."""

    snapshot: Snapshot
    plan: Plan


def read_figures(sight: Sight, *, last_seen: Mapping[str, float] | None = None) -> Figures:
    """All figures of the fleet. last_seen: when each agent was last seen; with it, the series of each machine too."""
    snapshot, plan = sight.snapshot, sight.plan
    figures = _read_fleet(snapshot, plan)
    figures.update(_read_policies(snapshot.policies.values()))
    figures.update(_read_locks(snapshot.locks.values()))
    figures.update(_read_units(snapshot.units.values()))
    figures["careen_drain_blocked_pods"] = dict(_count_blocked_pods(snapshot, plan.explanations))
    if last_seen is not None:
        figures.update(_read_nodes(snapshot, plan.explanations))
        figures["careen_agent_last_seen_timestamp_seconds"] = {
            (name,): at for name, at in last_seen.items() if name in snapshot.machines
        }
    return figures


def find_problem(machine: Machine) -> str | None:
    """What is wrong with a machine's slots while no order of ours is changing them; None when nothing is."""
    if not machine.reported or machine.in_flight:
        return None
    booted = machine.slots.get(machine.booted or "")
    if booted is None:
        return "BootedSlotUnknown"
    if not booted.successful or not _is_bootable(booted):
        return "BootedSlotNotGood"
    for letter, other in machine.slots.items():
        # Of equal priorities the loader takes the first in the table.
        ahead = other.priority > booted.priority or (other.priority == booted.priority and letter < str(machine.booted))
        if letter != machine.booted and _is_bootable(other) and ahead:
            return "OtherSlotNext"
    return None


def _is_bootable(slot: Slot) -> bool:
    return slot.priority > 0 and (slot.successful or slot.tries > 0)


def _read_fleet(snapshot: Snapshot, plan: Plan) -> Figures:
    states: Counter[tuple[str, ...]] = Counter()
    versions: Counter[tuple[str, ...]] = Counter()
    problems: Counter[tuple[str, ...]] = Counter()
    agents: Counter[tuple[str, ...]] = Counter({("talking",): 0, ("silent",): 0, ("missing",): 0})
    for explanation in plan.explanations:
        machine = snapshot.machines[explanation.machine]
        policy = explanation.policy or ""
        states[policy, explanation.state, explanation.reason] += 1
        versions[policy, machine.version or UNKNOWN] += 1
        agents[_judge_agent(snapshot, machine),] += 1
        problem = find_problem(machine)
        if problem is not None:
            problems[problem,] += 1
    return {
        "careen_nodes": dict(states),
        "careen_blocked_nodes": {pair: float(count) for pair, count in plan.waiting.items()},
        "careen_version_nodes": dict(versions),
        "careen_agents": dict(agents),
        "careen_unsound_nodes": dict(problems),
        "careen_cluster_paused": {(): float(snapshot.paused)},
    }


def _judge_agent(snapshot: Snapshot, machine: Machine) -> str:
    if not machine.reported:
        return "missing"
    return "silent" if machine.name in snapshot.silent else "talking"


def _read_policies(policies: Iterable[Policy]) -> Figures:
    figures: Figures = {}

    def put(family: str, value: float, *labels: str) -> None:
        figures.setdefault(f"careen_policy_{family}", {})[labels] = value

    for policy in policies:
        name, rollout = policy.name, policy.rollout
        for state, count in policy.counts.items():
            put("nodes", count, name, state)
        for condition in policy.conditions.values():
            put("condition", condition.status == "True", name, condition.type, condition.reason)
        put("paused", policy.paused, name)
        put("halted", rollout is not None and rollout.halted_at is not None, name)
        complete = policy.conditions.get("Complete")
        if complete is not None and complete.status == "True":
            put("complete_timestamp_seconds", complete.since, name)
        if rollout is not None:
            wave = rollout.wave_names[rollout.wave] if rollout.wave < len(rollout.wave_names) else str(rollout.wave)
            put("rollout_info", 1, name, rollout.id, rollout.release.version, wave)
            put("rollout_start_timestamp_seconds", rollout.started_at, name)
            put("rollout_failures", rollout.failed, name)
    return figures


def _read_locks(locks: Iterable[Lock]) -> Figures:
    figures: Figures = {}
    for lock in locks:
        figures.setdefault("careen_lock_slots", {})[lock.name,] = lock.max
        figures.setdefault("careen_lock_holders", {})[lock.name,] = len(lock.holders)
        figures.setdefault("careen_lock_paused", {})[lock.name,] = lock.paused
        since = figures.setdefault("careen_lock_holder_since_timestamp_seconds", {})
        for holder in lock.holders:
            since[lock.name, holder.id, holder.by or UNKNOWN] = holder.since
    return figures


def _read_units(units: Iterable[Unit]) -> Figures:
    """By what is stored of them, so that figures say what conditions say."""
    reasons: Counter[tuple[str, ...]] = Counter()
    places: Counter[tuple[str, ...]] = Counter()
    for unit in units:
        placed = unit.conditions.get("Placed")
        reasons[placed.reason if placed is not None else "Unknown",] += 1
        if unit.state is not None and unit.state.counts is not None:
            for state in Counts.__slots__:
                places[state,] += getattr(unit.state.counts, state)
    return {"careen_units": dict(reasons), "careen_unit_places": dict(places)}


def _count_blocked_pods(snapshot: Snapshot, explanations: Iterable[Explanation]) -> Counter[tuple[str, ...]]:
    counts: Counter[tuple[str, ...]] = Counter()
    for name in (e.machine for e in explanations if e.state == "Draining"):
        for pod in snapshot.pods.get(name, ()):
            refusal = snapshot.refusals.get(pod.uid)
            if refusal is not None:
                namespace, budget = refusal.budget or (pod.namespace, UNKNOWN)
                counts[name, namespace, budget] += 1
    return counts


def _read_nodes(snapshot: Snapshot, explanations: Iterable[Explanation]) -> Figures:
    info: dict[tuple[str, ...], float] = {}
    states: dict[tuple[str, ...], float] = {}
    tries: dict[tuple[str, ...], float] = {}
    rejected: dict[tuple[str, ...], float] = {}
    unsound: dict[tuple[str, ...], float] = {}
    units: Counter[tuple[str, ...]] = Counter()
    for explanation in explanations:
        name, machine = explanation.machine, snapshot.machines[explanation.machine]
        inside = [slot.version if (slot := machine.slots.get(letter)) else None for letter in ("A", "B")]
        info[
            name,
            machine.version or UNKNOWN,
            *(v or "" for v in inside),
            machine.booted or "",
            machine.agent_version or "",
        ] = 1
        states[name, explanation.policy or "", explanation.state, explanation.reason] = 1
        tries.update({(name, letter): slot.tries for letter, slot in machine.slots.items()})
        rejected[name,] = sum(machine.retry <= retry for _, retry in machine.rejected)
        units.update((name, holding.desired) for holding in machine.units.holdings.values())
        problem = find_problem(machine)
        if problem is not None:
            unsound[name, problem] = 1
    return {
        "careen_node_info": info,
        "careen_node_state": states,
        "careen_node_boot_tries_left": tries,
        "careen_node_rejected_releases": rejected,
        "careen_node_unsound": unsound,
        "careen_node_units": dict(units),
    }
