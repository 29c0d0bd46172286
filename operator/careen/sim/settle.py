"""The end of all disturbances: what is left has to come to rest by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from careen.api.meta import CORDONED_ANNOTATION

from .api import merge
from .machine import Machine
from .mishaps import reconnect
from .people import PEOPLE, ask_for, edit, free_by_hand, resume

if TYPE_CHECKING:
    from .world import World


def settle(world: World) -> None:
    """All disturbances end: people put right what they changed, and what is left has to come to rest by itself."""
    world.schedule.note(PEOPLE, "put everything right")
    world.crash_share = 0.0
    world.mended = True
    world.workload.stubborn = False
    world.set_switch(False)
    world.break_repository(None)
    free_by_hand(world)
    world.make_lock()
    edit(world, "RebootLock", world.setting.lock, ("spec", "paused"), None)
    edit(world, "RebootLock", world.setting.lock, ("spec", "max"), world.setting.lock_max)
    world.api.delete("UpdatePolicy", "rival", PEOPLE)
    for machine in world.machines.values():
        _settle_machine(world, machine)
    if "main" not in world.api.objects["UpdatePolicy"]:
        world.apply_policy("main", world.setting.policy_spec(world.releases[1].release.version))
    edit(world, "UpdatePolicy", "main", ("spec", "paused"), None)
    if world.setting.ends_well:
        resume(world)
        edit(world, "UpdatePolicy", "main", ("spec", "boot", "allowNoDeadman"), True)
        policy = world.api.get("UpdatePolicy", "main")
        assert policy is not None
        ask_for(world, policy, world.last_good.release.version)


def _settle_machine(world: World, machine: Machine) -> None:
    if world.api.get("CoreNode", machine.name) is None and machine.up:
        machine.register()
    edit(world, "CoreNode", machine.name, ("metadata", "labels", "pool"), "a")
    core = world.api.get("CoreNode", machine.name)
    marked = core is not None and CORDONED_ANNOTATION in (core.doc["metadata"].get("annotations") or {})
    if not marked or world.watch.cordoned_by.get(machine.name) == PEOPLE:
        edit(world, "CoreNode", machine.name, ("spec", "unschedulable"), None)
    edit(world, "Node", machine.name, ("spec", "paused"), None)
    if world.setting.ends_well:
        world.api.update("Node", machine.name, lambda doc: merge(doc, _forgive(doc)), by=PEOPLE)
    if not machine.connected:
        reconnect(machine)
    if machine.up and machine.fault not in ("hang", "no-agent"):
        machine.start_agent(machine.epoch)


def _forgive(doc: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"retry": doc["spec"].get("retry", 0) + 1}}
