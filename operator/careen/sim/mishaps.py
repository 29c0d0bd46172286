"""Machines, networks, operators and API servers that fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .disk import GARBAGE
from .machine import Machine
from .people import Disturbance, ask, pick_machine
from .repository import FAULTS

if TYPE_CHECKING:
    from .world import World


def cut_power(world: World) -> None:
    """The power of a machine is cut, for seconds or for minutes."""
    machine = pick_machine(world)
    if machine.up:
        machine.go_down(world.dice.wait(12.0))


def kill_agent(world: World) -> None:
    """An agent is killed, and started again."""
    machine = pick_machine(world)
    if machine.agent.alive:
        machine.note("agent is killed")
        machine.agent.kill()
        world.schedule.after(world.dice.wait(5.0), machine.start_agent, machine.epoch)


def cut_off(world: World) -> None:
    """A machine's agent does not reach the API server for a while."""
    machine = pick_machine(world)
    machine.note("is cut off")
    machine.connected = False
    machine.lose_contact()
    world.schedule.after(world.dice.wait(40.0), reconnect, machine)


def reconnect(machine: Machine) -> None:
    """And reaches it again."""
    machine.connected = True
    if machine.agent.alive:
        machine.agent.hear(machine.world.api.get("Node", machine.name))


def lose_journal(world: World) -> None:
    """The journal is lost with the ROOT partition while the machine is down."""
    machine = pick_machine(world)
    if not machine.up:
        return
    machine.go_down(world.dice.wait(10.0))
    machine.note("loses its journal")
    machine.journal = None
    machine.reset_prepared = False
    world.watch.forget_journal(machine)


def trap_request(world: World) -> None:
    """People ask for a reboot or a reset, in the middle of which the power is cut."""
    machine = pick_machine(world)
    world.request_traps.add(machine.name)
    ask(world, machine)


def cut_request(machine: Machine) -> None:
    """What trap_request waited for."""
    if not machine.up or machine.retired:
        return
    machine.go_down(machine.world.dice.wait(3.0))
    if machine.world.dice.chance(0.3):
        machine.note("loses its journal")
        machine.journal, machine.reset_prepared = None, False
        machine.world.watch.forget_journal(machine)


def rot_slot(world: World) -> None:
    """The content of a slot that could not boot anyway changes by itself."""
    machine = pick_machine(world)
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
    machine = pick_machine(world)
    if machine.up:
        machine.set_ready(ready=False)
        world.schedule.after(world.dice.wait(15.0), machine.report, machine.epoch, machine.fault != "never-ready")


def keep_pods(world: World) -> None:
    """The disruption budget allows nothing for a while."""
    world.workload.stubborn = True
    world.schedule.after(world.dice.uniform(10, 150), setattr, world.workload, "stubborn", False)


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


def break_repository(world: World) -> None:
    """The release repository can't be trusted, or does not answer, for a while."""
    world.break_repository(world.dice.pick(FAULTS))
    world.schedule.after(world.dice.uniform(5, 150), world.break_repository, None)


OPERATORS: tuple[Disturbance, ...] = (
    kill_operator, kill_operator, stop_operator, trap_operator, trap_operator, cut_watches, stop_api,
    break_repository,
)  # fmt: skip
MACHINES: tuple[Disturbance, ...] = (
    cut_power, cut_power, kill_agent, cut_off, lose_journal, trap_request, rot_slot, flap, keep_pods,
)  # fmt: skip
