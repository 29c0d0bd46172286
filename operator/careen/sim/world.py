"""One run: a cluster from a seed, its disturbances, and the judgement at its end."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field

from careen.core.releases import Fault

from .api import Api, Item
from .dice import Dice
from .ending import judge_ending
from .machine import Machine
from .mishaps import MACHINES, OPERATORS, cut_request
from .operator import Replica
from .people import PEOPLE, WISHES, Disturbance, abort_now, ask
from .releases import CHANNEL, SimRelease
from .repository import Repository
from .schedule import BrokenError, Schedule
from .setting import Setting, draw_releases, draw_setting
from .settle import settle
from .watch import Watch
from .workload import Workload

MOST_EVENTS = 60_000
MOST_SECONDS = 40_000.0
CRASH_SHARE = 0.004
"""Share of all steps, requests and answers that something goes wrong with."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run."""

    seed: int
    broken: str | None
    """The broken invariant in words; None if all held."""
    events: int
    profile: str
    grants: int = 0
    commits: int = 0
    rollbacks: int = 0
    reboots: int = 0
    """Reboots and resets that people asked for, and got."""
    resets: int = 0
    trace: tuple[str, ...] = field(default=(), repr=False)


class World:
    """All that there is in one run."""

    def __init__(self, seed: int, *, tracing: bool = False) -> None:
        self.dice = Dice(seed)
        self.schedule = Schedule(tracing=tracing)
        self.setting: Setting = draw_setting(self.dice)
        self.releases = draw_releases(self.dice, self.setting.profile)
        self._by_digest = {known.release.digest: known for known in self.releases}
        self.repository = Repository(self.releases, self.releases[1].release.version)
        self.api = Api(self.schedule)
        self.watch = Watch(self)
        self.crash_share = 0.0 if self.setting.profile == "calm" else CRASH_SHARE
        self.switch = self.mended = False
        self.term = self.hardware = self.asked = 0
        self.late_aborts: set[str] = set()
        """Machines that people abort when their verdict is in the journal."""
        self.request_traps: set[str] = set()
        """Machines whose power is cut in the middle of their next reboot or reset."""
        self.machines: dict[str, Machine] = {}
        for number in range(self.setting.machines):
            name = f"m{number}"
            zone = "xyz"[number % 3]
            self.machines[name] = Machine(self, name, zone, control_plane=number < self.setting.control_plane)
        for machine in self.machines.values():
            machine.start(machine.booted)
            machine.register()
            machine.start_agent(machine.epoch)
        self.workload = Workload(self, self.setting.pods)
        self.replicas = [Replica(self, name, self.pick_host()) for name in ("op-1", "op-2")]
        self.api.listeners.append(self._tell)

    @property
    def last_good(self) -> SimRelease:
        """The release that people ask for in the end."""
        return self.releases[-1]

    def run(self) -> None:
        """From the first apply to the last event. BrokenError if an invariant breaks."""
        self.make_lock()
        self.apply_policy("main", self.setting.policy_spec(self.releases[1].release.version))
        self.elect()
        if self.setting.calm and self.dice.chance(0.5):
            self.schedule.after(150.0, self.apply_version, self.releases[2].release.version)
        for _ in range(self.dice.pick((0, 1, 1, 2))):
            self.schedule.after(self.dice.uniform(0.0, self.setting.span), ask, self)
        for _ in range(self.setting.disturbances):
            self.schedule.after(self.dice.uniform(0.0, self.setting.span), self._disturb)
        self.schedule.after(self.setting.span + 200.0, settle, self)
        self.schedule.run(most_events=MOST_EVENTS, most_seconds=MOST_SECONDS)
        judge_ending(self)

    def _disturb(self) -> None:
        if self.api.down:
            return
        profile = self.setting.profile
        kinds: tuple[Disturbance, ...] = {"operators": OPERATORS, "machines": MACHINES, "people": WISHES}.get(
            profile, (*WISHES, *MACHINES, *OPERATORS)
        )
        self.dice.pick(kinds)(self)

    def apply_version(self, version: str) -> None:
        """The policy asks for another version, by its name or by the channel that it follows."""
        if self.setting.channel:
            self.move_channel(version)
        self.apply_policy("main", self.setting.policy_spec(version))

    def move_channel(self, version: str) -> None:
        """The channel names another version from now on; who looks finds out."""
        self.schedule.note(PEOPLE, f"channel {CHANNEL} is {version}")
        self.repository.version = version
        self.tell_repository()

    def break_repository(self, fault: Fault | None) -> None:
        """Something is wrong with the repository, or nothing any more."""
        self.schedule.note(PEOPLE, f"the repository: {fault.message if fault is not None else 'is well'}")
        self.repository.fault = fault
        self.tell_repository()

    def tell_repository(self) -> None:
        """Replicas look again, each in its time."""
        for replica in self.replicas:
            replica.look_again()

    # What the parts ask for.

    def find_release(self, digest: str) -> SimRelease | None:
        """The release with this digest."""
        return self._by_digest.get(digest)

    def is_silent(self, name: str) -> bool:
        """Whether the agent's Lease has not changed for too long."""
        machine = self.machines.get(name)
        return machine is None or machine.silent

    def pick_host(self) -> str | None:
        """A machine for an operator."""
        return self.dice.pick(sorted(self.machines)) if self.machines and self.dice.chance(0.5) else None

    def host_fell(self, machine: Machine) -> None:
        """A machine went down, and with it what ran there."""
        for replica in self.replicas:
            if replica.host == machine.name and replica.alive:
                replica.die()

    def install(self, machine: Machine) -> None:
        """Switch a new machine on and register it."""
        if machine.up or machine.retired:
            return
        machine.epoch += 1
        machine.start(machine.booted)
        machine.note(f"joins as {machine.machine_id}")
        machine.report(machine.epoch)
        machine.start_agent(machine.epoch)

    def make_lock(self) -> None:
        """Make the lock, if it is not there."""
        self.api.create("RebootLock", self.setting.lock, PEOPLE, spec={"max": self.setting.lock_max}, status={})

    def apply_policy(self, name: str, spec: dict[str, object]) -> None:
        """kubectl apply."""
        self.schedule.note(PEOPLE, f"apply policy {name}: {spec['release']}")
        if self.api.get("UpdatePolicy", name) is None:
            self.api.create("UpdatePolicy", name, PEOPLE, spec=spec, status={})
        else:
            self.api.update("UpdatePolicy", name, lambda doc: {**doc, "spec": spec}, by=PEOPLE)

    def set_switch(self, on: bool, /) -> None:
        """The cluster-wide switch."""
        self.switch = on
        self.wake_operators()

    def stop_api(self, seconds: float) -> None:
        """The API server is down for a while; a leader that could not renew its Lease is one no more."""
        self.schedule.note("api", f"does not answer for {seconds:.0f} s")
        self.api.down = True
        for replica in self.replicas:
            replica.verifying.clear()
        self.schedule.after(seconds, self._start_api, seconds)

    def _start_api(self, seconds: float) -> None:
        self.api.down = False
        self.schedule.note("api", "answers again")
        if seconds > 10.0:
            self.term += 1
            for replica in self.replicas:
                replica.resign()
            self.elect()
        for machine in self.machines.values():
            if machine.agent.alive:
                machine.agent.hear(self.api.get("Node", machine.name))

    def hear_verdict(self, machine: Machine, order: str) -> None:
        """A verdict is in the journal, and not on the disk yet."""
        if machine.name in self.late_aborts:
            self.late_aborts.discard(machine.name)
            self.schedule.after(0.005, abort_now, self, machine, order)

    def hear_request(self, machine: Machine) -> None:
        """A reboot or a reset has begun."""
        if machine.name in self.request_traps:
            self.request_traps.discard(machine.name)
            self.schedule.after(self.dice.uniform(0.0, 0.4), cut_request, machine)

    def elect(self) -> None:
        """The Lease: who does not renew it is replaced."""
        if any(replica.leading and replica.running and replica.term == self.term for replica in self.replicas):
            return
        able = [replica for replica in self.replicas if replica.running]
        if able:
            self.term += 1
            self.dice.pick(able).lead(self.term)

    def wake_operators(self) -> None:
        """Something has changed that no object tells."""
        for replica in self.replicas:
            replica.wake()

    def _tell(self, before: Item | None, after: Item | None, _by: str) -> None:
        item = after if after is not None else before
        assert item is not None
        for replica in self.replicas:
            replica.hear(before, after)
        machine = self.machines.get(item.name) if item.kind == "Node" else None
        if machine is not None:
            agent = machine.agent
            agent.due = max(agent.due, self.schedule.now + self.dice.wait(0.15))
            self.schedule.after(agent.due - self.schedule.now, agent.hear, after)


def run_seed(seed: int, *, tracing: bool = False) -> Outcome:
    """One run. Two runs of a seed are the same."""
    world = World(seed, tracing=tracing)
    broken = None
    try:
        world.run()
    except BrokenError as error:
        broken = str(error)
    except Exception as error:
        broken = f"crash: {type(error).__name__}: {error}"
        if tracing:
            raise
    watch = world.watch
    return Outcome(
        seed, broken, world.schedule.events, world.setting.profile, watch.grants, watch.commits, watch.rollbacks,
        watch.requests.done, len(watch.requests.resets), tuple(world.schedule.trace),
    )  # fmt: skip


def run_and_sweep(seed: int) -> Outcome:
    """run_seed for a process that sweeps its own rubbish: now and then, instead of all the time."""
    outcome = run_seed(seed)
    if seed % 25 == 0:
        gc.collect()
    return outcome


def explain_seed(seed: int) -> str:
    """A seed's run as people read it."""
    world = World(seed, tracing=True)
    head = [f"seed {seed}: {world.setting}", f"releases: {[(r.release.version, r.fault) for r in world.releases]}"]
    try:
        world.run()
        tail = "all invariants held"
    except BrokenError as error:
        tail = f"BROKEN {error}"
    return "\n".join([*head, *world.schedule.trace, tail])
