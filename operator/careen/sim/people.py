"""What happens to a cluster: people who change their minds, and machines, networks and operators that fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from careen.api.meta import CORDONED_ANNOTATION, RESUME_ANNOTATION
from careen.core.instants import format_instant

from .api import Item, merge, set_path
from .disk import GARBAGE
from .machine import Machine

if TYPE_CHECKING:
    from .world import World

PEOPLE = "people"


def _edit(world: World, kind: str, name: str, path: tuple[str, ...], value: Any) -> None:
    world.schedule.note(PEOPLE, f"{kind} {name}: {'.'.join(path)} = {value}")
    world.api.update(kind, name, lambda doc: set_path(doc, path, value), by=PEOPLE)


def _any_machine(world: World) -> Machine:
    return world.dice.pick(sorted(world.machines.values(), key=lambda machine: machine.name))


def _any_policy(world: World) -> Item | None:
    policies = sorted(world.api.objects["UpdatePolicy"].items())
    return world.dice.pick(policies)[1] if policies else None


# People and policies.


def edit_version(world: World) -> None:
    """Another release is asked for."""
    policy = _any_policy(world)
    if policy is not None:
        version = world.dice.pick(world.releases[1:]).release.version
        _edit(world, "UpdatePolicy", policy.name, ("spec", "release", "version"), version)


def edit_limits(world: World) -> None:
    """Other budgets."""
    policy = _any_policy(world)
    if policy is not None:
        limit = world.dice.pick((1, 2, 3, "30%", "60%"))
        _edit(world, "UpdatePolicy", policy.name, ("spec", "strategy", "maxUnavailable"), limit)


def pause_policy(world: World) -> None:
    """A policy is paused, and resumed after a while."""
    policy = _any_policy(world)
    if policy is not None:
        _edit(world, "UpdatePolicy", policy.name, ("spec", "paused"), True)
        world.schedule.after(
            world.dice.uniform(5, 120), _edit, world, "UpdatePolicy", policy.name, ("spec", "paused"), None
        )


def recreate_policy(world: World) -> None:
    """A policy is deleted, and applied again."""
    policy = _any_policy(world)
    if policy is not None:
        world.schedule.note(PEOPLE, f"deletes policy {policy.name}")
        world.api.delete("UpdatePolicy", policy.name, PEOPLE)
        world.schedule.after(world.dice.uniform(0.5, 60.0), world.apply_policy, policy.name, policy.spec)


def add_rival(world: World) -> None:
    """A second policy selects the same machines for a while."""
    world.apply_policy("rival", {**world.setting.policy_spec(world.releases[-1].release.version), "selector": {}})
    world.schedule.after(world.dice.uniform(10, 100), world.api.delete, "UpdatePolicy", "rival", PEOPLE)


def deselect(world: World) -> None:
    """A machine loses the policy's label, and gets it back later."""
    name = _any_machine(world).name
    path = ("metadata", "labels", "pool")
    _edit(world, "CoreNode", name, path, "b")
    world.schedule.after(world.dice.uniform(10, 100), _edit, world, "CoreNode", name, path, "a")


def resume(world: World) -> None:
    """A person has seen the failures."""
    policy = _any_policy(world)
    rollout = policy.status.get("rollout") if policy is not None else None
    if policy is not None and rollout:
        note = {RESUME_ANNOTATION: f"{rollout['id']}/{rollout['failed']}"}
        _edit(world, "UpdatePolicy", policy.name, ("metadata", "annotations"), note)


# People and machines.


def abort(world: World) -> None:
    """`careen abort`: the order that a machine has now."""
    node = world.api.get("Node", _any_machine(world).name)
    if node is not None and node.spec.get("assignment"):
        _edit(world, "Node", node.name, ("spec", "abort"), node.spec["assignment"]["id"])


def abort_late(world: World) -> None:
    """`careen abort` just when the order is to be committed, on a machine whose agent dies at that moment."""
    world.late_aborts.add(_any_machine(world).name)


def abort_now(world: World, machine: Machine, order: str) -> None:
    """What abort_late waited for."""
    _edit(world, "Node", machine.name, ("spec", "abort"), order)
    if machine.agent.alive:
        machine.note("agent is killed")
        machine.agent.kill()
        world.schedule.after(world.dice.uniform(2, 8), machine.start_agent, machine.epoch)


def retry(world: World) -> None:
    """`careen retry`."""
    node = world.api.get("Node", _any_machine(world).name)
    if node is not None:
        _edit(world, "Node", node.name, ("spec", "retry"), node.spec.get("retry", 0) + 1)


def pause_machine(world: World) -> None:
    """A machine is paused for a while."""
    name = _any_machine(world).name
    _edit(world, "Node", name, ("spec", "paused"), True)
    world.schedule.after(world.dice.uniform(5, 120), _edit, world, "Node", name, ("spec", "paused"), None)


def cordon(world: World) -> None:
    """A person cordons a node, and takes the cordon off later."""
    name = _any_machine(world).name
    core = world.api.get("CoreNode", name)
    if core is None or core.spec.get("unschedulable"):
        return
    _edit(world, "CoreNode", name, ("spec", "unschedulable"), True)
    world.schedule.after(world.dice.uniform(10, 150), _uncordon_own, world, name)


def _uncordon_own(world: World, name: str) -> None:
    if world.watch.cordoned_by.get(name) == PEOPLE:
        _edit(world, "CoreNode", name, ("spec", "unschedulable"), None)


def uncordon(world: World) -> None:
    """A person makes a node schedulable, whoever cordoned it."""
    name = _any_machine(world).name
    core = world.api.get("CoreNode", name)
    if core is not None and core.spec.get("unschedulable"):
        _edit(world, "CoreNode", name, ("spec", "unschedulable"), None)


def delete_node(world: World) -> None:
    """A careen Node is deleted; the operator makes it again."""
    name = _any_machine(world).name
    world.schedule.note(PEOPLE, f"deletes Node {name}")
    world.api.delete("Node", name, PEOPLE)


def register_anew(world: World) -> None:
    """A core Node is deleted, and the same machine registers again under a new UID."""
    machine = _any_machine(world)
    _delete_core(world, machine)
    world.schedule.after(world.dice.wait(8.0), _register, machine)


def _register(machine: Machine) -> None:
    if not machine.retired and machine.up:
        machine.register()


def _delete_core(world: World, machine: Machine) -> None:
    world.schedule.note(PEOPLE, f"deletes core Node {machine.name}")
    world.api.delete("CoreNode", machine.name, PEOPLE)
    world.workload.clear_node(machine.name)


def replace_machine(world: World) -> None:
    """A machine is replaced by another one of the same name."""
    machine = _any_machine(world)
    machine.retire()
    fresh = Machine(world, machine.name, machine.zone, control_plane=machine.control_plane)
    world.machines[machine.name] = fresh
    _delete_core(world, machine)
    world.schedule.after(world.dice.wait(3.0), world.install, fresh)


def remove_machine(world: World) -> None:
    """A machine leaves for good."""
    if len(world.machines) > 2:
        machine = _any_machine(world)
        machine.retire()
        del world.machines[machine.name]
        _delete_core(world, machine)


def join_machine(world: World) -> None:
    """A new machine joins."""
    if len(world.machines) < 7:
        world.hardware += 1
        machine = Machine(world, f"late-{world.hardware}", world.dice.pick("xyz"), control_plane=False)
        world.machines[machine.name] = machine
        world.install(machine)


# People and locks.


def unlock(world: World) -> None:
    """`careen lock unlock`: one holder is freed by hand, whoever it is."""
    for item in sorted(world.api.objects["RebootLock"].items()):
        holders = item[1].status.get("holders") or []
        if holders:
            gone = world.dice.pick(holders)["id"]
            kept = [holder for holder in holders if holder["id"] != gone]
            _edit(world, "RebootLock", item[0], ("status", "holders"), kept)
            return


def lock_by_hand(world: World) -> None:
    """A person holds the lock for a while."""
    item = world.api.get("RebootLock", world.setting.lock)
    if item is None or len(item.status.get("holders") or []) >= item.spec["max"]:
        return
    mine = {"id": "zoe", "since": format_instant(world.schedule.now), "by": "zoe"}
    holders = [h for h in item.status.get("holders") or [] if h["id"] != "zoe"]
    _edit(world, "RebootLock", item.name, ("status", "holders"), [*holders, mine])
    world.schedule.after(world.dice.uniform(10, 100), free_by_hand, world)


def free_by_hand(world: World) -> None:
    """And gives it back."""
    item = world.api.get("RebootLock", world.setting.lock)
    holders = (item.status.get("holders") or []) if item is not None else []
    if item is not None and any(h["id"] == "zoe" for h in holders):
        _edit(world, "RebootLock", item.name, ("status", "holders"), [h for h in holders if h["id"] != "zoe"])


def recreate_lock(world: World) -> None:
    """A lock is deleted, and made again without its holders."""
    item = world.api.get("RebootLock", world.setting.lock)
    if item is not None:
        world.schedule.note(PEOPLE, f"deletes lock {item.name}")
        world.api.delete("RebootLock", item.name, PEOPLE)
        world.schedule.after(world.dice.wait(5.0), world.make_lock)


def change_max(world: World) -> None:
    """The lock's max changes, for a while even to 0."""
    _edit(world, "RebootLock", world.setting.lock, ("spec", "max"), world.dice.below(4))


def pause_lock(world: World) -> None:
    """The lock is paused for a while."""
    _edit(world, "RebootLock", world.setting.lock, ("spec", "paused"), True)
    world.schedule.after(
        world.dice.uniform(5, 60), _edit, world, "RebootLock", world.setting.lock, ("spec", "paused"), None
    )


def flip_switch(world: World) -> None:
    """The cluster-wide switch is on for a while."""
    world.set_switch(True)
    world.schedule.after(world.dice.uniform(5, 60), world.set_switch, False)


# Machines.


def cut_power(world: World) -> None:
    """The power of a machine is cut, for seconds or for minutes."""
    machine = _any_machine(world)
    if machine.up:
        machine.go_down(world.dice.wait(12.0))


def kill_agent(world: World) -> None:
    """An agent is killed, and started again."""
    machine = _any_machine(world)
    if machine.agent.alive:
        machine.note("agent is killed")
        machine.agent.kill()
        world.schedule.after(world.dice.wait(5.0), machine.start_agent, machine.epoch)


def cut_off(world: World) -> None:
    """A machine's agent does not reach the API server for a while."""
    machine = _any_machine(world)
    machine.note("is cut off")
    machine.connected = False
    machine.lose_contact()
    world.schedule.after(world.dice.wait(40.0), _reconnect, machine)


def _reconnect(machine: Machine) -> None:
    machine.connected = True
    if machine.agent.alive:
        machine.agent.hear(machine.world.api.get("Node", machine.name))


def lose_journal(world: World) -> None:
    """The journal is lost with the ROOT partition while the machine is down."""
    machine = _any_machine(world)
    machine.go_down(world.dice.wait(10.0))
    machine.note("loses its journal")
    machine.journal = None
    world.watch.forget_journal(machine)


def rot_slot(world: World) -> None:
    """The content of a slot that could not boot anyway changes by itself."""
    machine = _any_machine(world)
    slot = machine.disk[machine.booted.other]
    node = world.api.get("Node", machine.name)
    order = node.spec.get("assignment") if node is not None else None
    # Between the last read-back and the boot nothing but dm-verity could see it.
    told = order is not None and order["goal"] != "Stage"
    if slot.attributes.priority == 0 and slot.content is not None and not told:
        machine.note(f"slot {machine.booted.other} rots")
        slot.content = GARBAGE


def flap(world: World) -> None:
    """A core Node is not Ready for a while, for a reason of its own."""
    machine = _any_machine(world)
    if machine.up:
        machine.set_ready(ready=False)
        world.schedule.after(world.dice.wait(15.0), machine.report, machine.epoch, machine.fault != "never-ready")


def keep_pods(world: World) -> None:
    """The disruption budget allows nothing for a while."""
    world.workload.stubborn = True
    world.schedule.after(world.dice.uniform(10, 150), setattr, world.workload, "stubborn", False)


# Operators and the API server.


def kill_operator(world: World) -> None:
    """SIGKILL for a replica, mostly the leader."""
    replica = world.dice.pick(world.replicas)
    leader = next((r for r in world.replicas if r.leading and r.term == world.term), None)
    (leader if leader is not None and world.dice.chance(0.7) else replica).die()


def stop_operator(world: World) -> None:
    """SIGSTOP for the leader, long enough to be deposed or just not."""
    for replica in world.replicas:
        if replica.leading and replica.running:
            replica.stall(world.dice.uniform(5, 60))
            return


def trap_operator(world: World) -> None:
    """SIGSTOP for the leader in the middle of a plan, between deciding on a lock's write and sending it."""
    for replica in world.replicas:
        if replica.leading and replica.running:
            replica.trap = world.dice.uniform(20, 60)
            return


def cut_watches(world: World) -> None:
    """The leader's watches are cut, and history is gone when they return."""
    for replica in world.replicas:
        if replica.leading:
            replica.miss(world.dice.wait(8.0))


def stop_api(world: World) -> None:
    """The API server does not answer for a while."""
    world.stop_api(world.dice.wait(8.0))


Disturbance = Callable[["World"], None]
OPERATORS: tuple[Disturbance, ...] = (
    kill_operator, kill_operator, stop_operator, trap_operator, trap_operator, cut_watches, stop_api,
)  # fmt: skip
MACHINES: tuple[Disturbance, ...] = (cut_power, cut_power, kill_agent, cut_off, lose_journal, rot_slot, flap, keep_pods)
WISHES: tuple[Disturbance, ...] = (
    edit_version, edit_version, edit_limits, pause_policy, recreate_policy, add_rival, deselect, resume, abort, abort_late,
    retry, pause_machine, cordon, uncordon, delete_node, register_anew, replace_machine, remove_machine, join_machine,
    unlock, lock_by_hand, recreate_lock, change_max, pause_lock, flip_switch,
)  # fmt: skip


def settle(world: World) -> None:
    """All disturbances end: people put right what they changed, and what is left has to come to rest by itself."""
    world.schedule.note(PEOPLE, "put everything right")
    world.crash_share = 0.0
    world.mended = True
    world.workload.stubborn = False
    world.set_switch(False)
    free_by_hand(world)
    world.make_lock()
    _edit(world, "RebootLock", world.setting.lock, ("spec", "paused"), None)
    _edit(world, "RebootLock", world.setting.lock, ("spec", "max"), world.setting.lock_max)
    world.api.delete("UpdatePolicy", "rival", PEOPLE)
    for machine in world.machines.values():
        _settle_machine(world, machine)
    if "main" not in world.api.objects["UpdatePolicy"]:
        world.apply_policy("main", world.setting.policy_spec(world.releases[1].release.version))
    _edit(world, "UpdatePolicy", "main", ("spec", "paused"), None)
    if world.setting.ends_well:
        resume(world)
        _edit(world, "UpdatePolicy", "main", ("spec", "release", "version"), world.last_good.release.version)


def _settle_machine(world: World, machine: Machine) -> None:
    if world.api.get("CoreNode", machine.name) is None and machine.up:
        machine.register()
    _edit(world, "CoreNode", machine.name, ("metadata", "labels", "pool"), "a")
    core = world.api.get("CoreNode", machine.name)
    marked = core is not None and CORDONED_ANNOTATION in (core.doc["metadata"].get("annotations") or {})
    if not marked or world.watch.cordoned_by.get(machine.name) == PEOPLE:
        _edit(world, "CoreNode", machine.name, ("spec", "unschedulable"), None)
    _edit(world, "Node", machine.name, ("spec", "paused"), None)
    if world.setting.ends_well:
        world.api.update("Node", machine.name, lambda doc: merge(doc, _forgive(doc)), by=PEOPLE)
    if not machine.connected:
        _reconnect(machine)
    if machine.up and machine.fault not in ("hang", "no-agent"):
        machine.start_agent(machine.epoch)


def _forgive(doc: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"retry": doc["spec"].get("retry", 0) + 1}}
