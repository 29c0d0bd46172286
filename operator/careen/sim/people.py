"""People who change their minds, at any moment and about anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from careen.api.meta import RESUME_ANNOTATION
from careen.core.instants import format_instant

from .api import Item, set_path
from .machine import Machine

if TYPE_CHECKING:
    from .world import World

PEOPLE = "people"
Disturbance = Callable[["World"], None]


def edit(world: World, kind: str, name: str, path: tuple[str, ...], value: Any) -> None:
    """A person sets one field; None takes it away."""
    world.schedule.note(PEOPLE, f"{kind} {name}: {'.'.join(path)} = {value}")
    world.api.update(kind, name, lambda doc: set_path(doc, path, value), by=PEOPLE)


def pick_machine(world: World) -> Machine:
    """Any machine."""
    return world.dice.pick(sorted(world.machines.values(), key=lambda machine: machine.name))


def pick_policy(world: World) -> Item | None:
    """Any policy; None if there is none."""
    policies = sorted(world.api.objects["UpdatePolicy"].items())
    return world.dice.pick(policies)[1] if policies else None


# People and policies.


def edit_version(world: World) -> None:
    """Another release is asked for."""
    policy = pick_policy(world)
    if policy is not None:
        ask_for(world, policy, world.dice.pick(world.releases[1:]).release.version)


def ask_for(world: World, policy: Item, version: str) -> None:
    """A policy asks for a version by its name, or by the channel that it follows."""
    if "channel" in policy.spec["release"]:
        world.move_channel(version)
    else:
        edit(world, "UpdatePolicy", policy.name, ("spec", "release", "version"), version)


def edit_limits(world: World) -> None:
    """Other budgets."""
    policy = pick_policy(world)
    if policy is not None:
        limit = world.dice.pick((1, 2, 3, "30%", "60%"))
        edit(world, "UpdatePolicy", policy.name, ("spec", "strategy", "maxUnavailable"), limit)


def pause_policy(world: World) -> None:
    """A policy is paused, and resumed after a while."""
    policy = pick_policy(world)
    if policy is not None:
        edit(world, "UpdatePolicy", policy.name, ("spec", "paused"), True)
        world.schedule.after(
            world.dice.uniform(5, 120), edit, world, "UpdatePolicy", policy.name, ("spec", "paused"), None
        )


def recreate_policy(world: World) -> None:
    """A policy is deleted, and applied again."""
    policy = pick_policy(world)
    if policy is not None:
        world.schedule.note(PEOPLE, f"deletes policy {policy.name}")
        world.api.delete("UpdatePolicy", policy.name, PEOPLE)
        world.schedule.after(world.dice.uniform(0.5, 60.0), world.apply_policy, policy.name, policy.spec)


def add_rival(world: World) -> None:
    """A second policy selects the same machines for a while."""
    spec = world.setting.policy_spec(world.releases[-1].release.version, named=True)
    world.apply_policy("rival", {**spec, "selector": {}})
    world.schedule.after(world.dice.uniform(10, 100), world.api.delete, "UpdatePolicy", "rival", PEOPLE)


def deselect(world: World) -> None:
    """A machine loses the policy's label, and gets it back later."""
    name = pick_machine(world).name
    path = ("metadata", "labels", "pool")
    edit(world, "CoreNode", name, path, "b")
    world.schedule.after(world.dice.uniform(10, 100), edit, world, "CoreNode", name, path, "a")


def resume(world: World) -> None:
    """A person has seen the failures."""
    policy = pick_policy(world)
    rollout = policy.status.get("rollout") if policy is not None else None
    if policy is not None and rollout:
        note = {RESUME_ANNOTATION: f"{rollout['id']}/{rollout['failed']}"}
        edit(world, "UpdatePolicy", policy.name, ("metadata", "annotations"), note)


# People and machines.


def abort(world: World) -> None:
    """`careen abort`: the order that a machine has now."""
    node = world.api.get("Node", pick_machine(world).name)
    if node is not None and node.spec.get("assignment"):
        edit(world, "Node", node.name, ("spec", "abort"), node.spec["assignment"]["id"])


def abort_late(world: World) -> None:
    """`careen abort` just when the order is to be committed, on a machine whose agent dies at that moment."""
    world.late_aborts.add(pick_machine(world).name)


def abort_now(world: World, machine: Machine, order: str) -> None:
    """What abort_late waited for."""
    edit(world, "Node", machine.name, ("spec", "abort"), order)
    if machine.agent.alive:
        machine.note("agent is killed")
        machine.agent.kill()
        world.schedule.after(world.dice.uniform(2, 8), machine.start_agent, machine.epoch)


def ask(world: World, machine: Machine | None = None) -> None:
    """`careen reboot`, or `careen reset`."""
    action = world.dice.pick(("Reboot", "Reboot", "Reset"))
    name = (machine or pick_machine(world)).name
    world.asked += 1
    edit(world, "Node", name, ("spec", "request"), {"action": action, "id": f"ask-{world.asked}"})


def take_back(world: World) -> None:
    """A request is asked for, and taken back a moment later, or called off by its order's id."""
    name = pick_machine(world).name
    world.asked += 1
    request = {"action": world.dice.pick(("Reboot", "Reset")), "id": f"ask-{world.asked}"}
    edit(world, "Node", name, ("spec", "request"), request)
    delay = world.dice.uniform(0.5, 15.0)
    if world.dice.chance(0.5):
        world.schedule.after(delay, edit, world, "Node", name, ("spec", "request"), None)
    else:
        world.schedule.after(delay, _abort_request, world, name, request["id"])


def _abort_request(world: World, name: str, request: str) -> None:
    node = world.api.get("Node", name)
    order = (node.spec.get("assignment") or {}) if node is not None else {}
    if (order.get("request") or {}).get("id") == request:
        edit(world, "Node", name, ("spec", "abort"), order["id"])


def permit_no_deadman(world: World) -> None:
    """A policy permits to boot what nothing would undo, or no longer."""
    policy = pick_policy(world)
    if policy is not None:
        permitted = not policy.spec["boot"].get("allowNoDeadman", False)
        edit(world, "UpdatePolicy", policy.name, ("spec", "boot", "allowNoDeadman"), permitted)


def retry(world: World) -> None:
    """`careen retry`."""
    node = world.api.get("Node", pick_machine(world).name)
    if node is not None:
        edit(world, "Node", node.name, ("spec", "retry"), node.spec.get("retry", 0) + 1)


def pause_machine(world: World) -> None:
    """A machine is paused for a while."""
    name = pick_machine(world).name
    edit(world, "Node", name, ("spec", "paused"), True)
    world.schedule.after(world.dice.uniform(5, 120), edit, world, "Node", name, ("spec", "paused"), None)


def cordon(world: World) -> None:
    """A person cordons a node, and takes the cordon off later."""
    name = pick_machine(world).name
    core = world.api.get("CoreNode", name)
    if core is None or core.spec.get("unschedulable"):
        return
    edit(world, "CoreNode", name, ("spec", "unschedulable"), True)
    world.schedule.after(world.dice.uniform(10, 150), _uncordon_own, world, name)


def _uncordon_own(world: World, name: str) -> None:
    if world.watch.cordoned_by.get(name) == PEOPLE:
        edit(world, "CoreNode", name, ("spec", "unschedulable"), None)


def uncordon(world: World) -> None:
    """A person makes a node schedulable, whoever cordoned it."""
    name = pick_machine(world).name
    core = world.api.get("CoreNode", name)
    if core is not None and core.spec.get("unschedulable"):
        edit(world, "CoreNode", name, ("spec", "unschedulable"), None)


def delete_node(world: World) -> None:
    """A careen Node is deleted; the operator makes it again."""
    name = pick_machine(world).name
    world.schedule.note(PEOPLE, f"deletes Node {name}")
    world.api.delete("Node", name, PEOPLE)


def register_anew(world: World) -> None:
    """A core Node is deleted, and the same machine registers again under a new UID."""
    machine = pick_machine(world)
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
    machine = pick_machine(world)
    machine.retire()
    fresh = Machine(world, machine.name, machine.zone, control_plane=machine.control_plane)
    world.machines[machine.name] = fresh
    _delete_core(world, machine)
    world.schedule.after(world.dice.wait(3.0), world.install, fresh)


def remove_machine(world: World) -> None:
    """A machine leaves for good."""
    if len(world.machines) > 2:
        machine = pick_machine(world)
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
            edit(world, "RebootLock", item[0], ("status", "holders"), kept)
            return


def lock_by_hand(world: World) -> None:
    """A person holds the lock for a while."""
    item = world.api.get("RebootLock", world.setting.lock)
    if item is None or len(item.status.get("holders") or []) >= item.spec["max"]:
        return
    mine = {"id": "zoe", "since": format_instant(world.schedule.now), "by": "zoe"}
    holders = [h for h in item.status.get("holders") or [] if h["id"] != "zoe"]
    edit(world, "RebootLock", item.name, ("status", "holders"), [*holders, mine])
    world.schedule.after(world.dice.uniform(10, 100), free_by_hand, world)


def free_by_hand(world: World) -> None:
    """And gives it back."""
    item = world.api.get("RebootLock", world.setting.lock)
    holders = (item.status.get("holders") or []) if item is not None else []
    if item is not None and any(h["id"] == "zoe" for h in holders):
        edit(world, "RebootLock", item.name, ("status", "holders"), [h for h in holders if h["id"] != "zoe"])


def recreate_lock(world: World) -> None:
    """A lock is deleted, and made again without its holders."""
    item = world.api.get("RebootLock", world.setting.lock)
    if item is not None:
        world.schedule.note(PEOPLE, f"deletes lock {item.name}")
        world.api.delete("RebootLock", item.name, PEOPLE)
        world.schedule.after(world.dice.wait(5.0), world.make_lock)


def change_max(world: World) -> None:
    """The lock's max changes, for a while even to 0."""
    edit(world, "RebootLock", world.setting.lock, ("spec", "max"), world.dice.below(4))


def pause_lock(world: World) -> None:
    """The lock is paused for a while."""
    edit(world, "RebootLock", world.setting.lock, ("spec", "paused"), True)
    world.schedule.after(
        world.dice.uniform(5, 60), edit, world, "RebootLock", world.setting.lock, ("spec", "paused"), None
    )


def flip_switch(world: World) -> None:
    """The cluster-wide switch is on for a while."""
    world.set_switch(True)
    world.schedule.after(world.dice.uniform(5, 60), world.set_switch, False)


WISHES: tuple[Disturbance, ...] = (
    edit_version, edit_version, edit_limits, pause_policy, recreate_policy, add_rival, deselect, resume, abort,
    abort_late, ask, ask, take_back, permit_no_deadman, retry, pause_machine, cordon, uncordon, delete_node,
    register_anew, replace_machine, remove_machine, join_machine, unlock, lock_by_hand, recreate_lock, change_max,
    pause_lock, flip_switch,
)  # fmt: skip
