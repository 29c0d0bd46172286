"""What must be true when nothing happens any more: each machine has ended, nothing is held, and all is explained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from careen.api.meta import CORDONED_ANNOTATION
from careen.core.plan import make_plan

from .api import Item
from .grants import is_in_flight
from .operator import Replica
from .schedule import BrokenError

if TYPE_CHECKING:
    from .world import World


def judge_ending(world: World) -> None:
    """Raise BrokenError for the first thing that is not as it must be."""
    _judge_locks(world)
    _judge_core_nodes(world)
    for name in world.machines:
        _judge_machine(world, name)
    for name in world.api.objects["Node"]:
        if name not in world.machines:
            raise BrokenError(f"ending: the Node of {name} is there, the machine is gone")
    _judge_stability(world)
    for policy in world.api.objects["UpdatePolicy"].values():
        _judge_policy(world, policy)


def _judge_locks(world: World) -> None:
    for lock in world.api.objects["RebootLock"].values():
        held = [h for h in lock.status.get("holders") or [] if h.get("order") and not _ails(world, h["id"])]
        if held:
            raise BrokenError(f"ending, invariant 7: {lock.name} is held for ever by {held}")


def _judge_core_nodes(world: World) -> None:
    for core in world.api.objects["CoreNode"].values():
        if CORDONED_ANNOTATION in (core.doc["metadata"].get("annotations") or {}) or core.spec.get("unschedulable"):
            raise BrokenError(f"ending, invariant 6: a cordon stays on {core.name}")


def _judge_machine(world: World, name: str) -> None:
    machine, node = world.machines[name], world.api.get("Node", name)
    if node is None:
        raise BrokenError(f"ending: machine {name} has no Node")
    if not machine.up or not machine.agent.alive:
        raise BrokenError(f"ending: machine {name} does not run (up: {machine.up})")
    if machine.journal is None or machine.journal.open is not None:
        raise BrokenError(f"ending: the journal of {name} is {machine.journal}")
    booted = machine.disk[machine.booted]
    good = booted.attributes.good or _is_limbo(world, name, node)
    if not good or booted.content != booted.record:
        raise BrokenError(f"ending: {name} runs from {machine.booted}: {machine.disk}")
    if is_in_flight(node):
        raise BrokenError(f"ending: {name} is in flight for ever: {node.spec['assignment']}, {node.status.get('step')}")
    told = node.status["slots"][machine.booted.value]
    if node.status["bootID"] != machine.boot_id or told["digest"] != booted.content:
        raise BrokenError(f"ending: the status of {name} is not true: {node.status}")
    step, order = node.status.get("step") or {}, node.spec.get("assignment")
    if order and (step.get("id") != order["id"] or step.get("observedGoal") != order["goal"]):
        raise BrokenError(f"ending: {name} did not answer {order}: {step}")
    asked, answer = node.spec.get("request"), node.status.get("request") or {}
    if asked and answer.get("id") != asked["id"] and not any(_ails(world, other) for other in world.machines):
        raise BrokenError(f"ending, rule 16: {asked} of {name} is not done: {node.status.get('orchestration')}")
    if "orchestration" not in node.status:
        raise BrokenError(f"ending, invariant 10: nobody says why {name} is where it is")


def _ails(world: World, name: str) -> bool:
    """Whether the machine kept a system in which it never becomes Ready, as onSilence=Commit has it.

    It is worse than at its grant, so it keeps its lock and its place in the budgets until another release cures it.
    """
    machine = world.machines.get(name)
    return machine is not None and machine.fault == "never-ready" and machine.disk[machine.booted].attributes.good


def _is_limbo(world: World, name: str, node: Item) -> bool:
    """Whether the machine lost its journal and its Node in the middle of a trial, and says so: people have to look."""
    told = (node.status.get("step") or {}).get("error") or {}
    return (
        name in world.machines
        and world.machines[name].machine_id in world.watch.lost_journals
        and told.get("class") == "Disk"
    )


def _judge_stability(world: World) -> None:
    leader = next((replica for replica in world.replicas if replica.leading and replica.term == world.term), None)
    if leader is None:
        raise BrokenError("ending: nobody leads")
    fresh = Replica(world, "judge", leader.host, leading=True, term=leader.term)
    fresh.lookups = leader.lookups
    fresh.objects = {kind: dict(items) for kind, items in world.api.objects.items()}
    plan = make_plan(fresh.snapshot(), world.schedule.now)
    if plan.actions:
        raise BrokenError(f"ending: the plan is not empty: {plan.actions}")


def _is_called_off(world: World, wanted: str) -> bool:
    """Whether the very release that people asked for in the end was aborted by them in flight, or its bytes rotted, or
    a trial of it was given up for silence at the last moment: that is told only after people have forgiven all others.
    """
    steps = [node.status.get("step") or {} for node in world.api.objects["Node"].values()]
    if any((step.get("error") or {}).get("class") == "Integrity" for step in steps):
        return True
    digest = next(known.release.digest for known in world.releases if known.release.version == wanted)
    found = [(m, entry) for m in world.machines.values() if m.journal is not None for entry in m.journal.rejected]
    against = [(machine, entry) for machine, entry in found if entry.digest == digest]
    unforgiven = (entry for machine, entry in against if entry.retry >= _retry_of(world, machine.name))
    return any(entry.cause == "People" for _, entry in against) or any(e.cause == "Silence" for e in unforgiven)


def _retry_of(world: World, name: str) -> int:
    node = world.api.get("Node", name)
    return int(node.spec.get("retry", 0)) if node is not None else 0


def _judge_policy(world: World, policy: Item) -> None:
    told = {c["type"]: c for c in policy.status.get("conditions") or ()}
    complete = told["Complete"]["status"] == "True"
    wanted = world.repository.wanted(policy.spec)
    runs = {name: machine.disk[machine.booted].version for name, machine in world.machines.items()}
    if complete != all(version == wanted for version in runs.values()):
        raise BrokenError(f"ending: Complete is {complete}, and the machines run {runs}, wanted {wanted}")
    if complete:
        return
    if any(_is_limbo(world, node.name, node) for node in world.api.objects["Node"].values()):
        return
    if world.setting.ends_well and not _is_called_off(world, wanted):
        raise BrokenError(f"ending: a good release did not get everywhere: {runs}, {told}")
    fault = next(known.fault for known in world.releases if known.release.version == wanted)
    reason = told["Complete"]["reason"]
    waits = told["Waiting"]["reason"] if told["Waiting"]["status"] == "True" else ""
    if reason not in ("RolloutHalted", "MachinesFailed") and not waits:
        raise BrokenError(f"ending, invariant 10: not complete, and nothing says why: {told}")
    if world.setting.calm and fault in (None, "second"):
        raise BrokenError(f"ending: calm, the release is good, and yet: {runs}, {told}")
