"""A replica of the operator: late and partial copies of the objects, the plan, and writes that may arrive far too late.

A replica that was stopped goes on where it was, believes itself the leader, and learns that it is not only some
seconds after it woke up. Requests on their way arrive even if their sender is dead by then.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from careen.core.actions import Action, DeleteNode, SetOrder, WriteLock, WritePolicy, target
from careen.core.plan import make_plan
from careen.core.pods import Pod, Refusal
from careen.core.releases import Lookup, ReleaseKey
from careen.core.snapshot import Policy, Snapshot

from . import execute
from .api import KINDS, Item, Refused, set_path

if TYPE_CHECKING:
    from .world import World

LEASE = 15.0
"""Seconds of silence after which another replica takes over."""
GIVE_UP = 10.0
"""Seconds after which a request without an answer counts as failed."""
STALE_HOLD = 0.5
Objects = dict[str, dict[str, Item]]


@dataclass(slots=True)
class Basis:
    """What a plan was made from, for those who check it."""

    objects: Objects
    silent: frozenset[str]
    granted: frozenset[str] = frozenset()
    """All machines granted by the same plan."""
    freed: frozenset[tuple[str, str]] = frozenset()
    """(lock, holder) of all that the same plan frees."""


@dataclass(slots=True)
class Replica:
    """One operator process. `life` counts its deaths, so that what a dead one had begun does not go on."""

    world: World
    name: str
    host: str | None = None
    """Machine that it runs on."""
    life: int = 0
    alive: bool = True
    leading: bool = False
    term: int = 0
    stalled_until: float = 0.0
    deaf: bool = False
    trap: float = 0.0
    """Seconds for which it is stopped as soon as it has decided on a lock's next write; 0: no trap is set."""
    objects: Objects = field(default_factory=dict)
    lookups: dict[ReleaseKey, Lookup] = field(default_factory=dict)
    """What it has found releases to be; forgotten with the lead."""
    busy: dict[tuple[str, str], object] = field(default_factory=dict)
    refusals: dict[str, Refusal] = field(default_factory=dict)
    verifying: dict[str, float] = field(default_factory=dict)
    _due: dict[tuple[str, str], float] = field(default_factory=dict)
    _gone: set[str] = field(default_factory=set)
    _listed: int = 0
    """Version of the last list: what is older came too late."""
    _planning: bool = False
    _woken: float = 0.0

    @property
    def running(self) -> bool:
        """Whether it does anything at all now."""
        return self.alive and self.world.schedule.now >= self.stalled_until

    def note(self, what: str) -> None:
        """A line in the trace."""
        self.world.schedule.note(self.name, what)

    def _after(self, delay: float, call: Any, *arguments: Any) -> None:
        """Later, in this life; while stopped, as soon as it is continued."""
        life = self.life

        def run() -> None:
            if life != self.life:
                return
            if self.world.schedule.now < self.stalled_until:
                self.world.schedule.after(self.stalled_until - self.world.schedule.now, run)
                return
            call(*arguments)

        self.world.schedule.after(delay, run)

    # Coming and going.

    def die(self) -> None:
        """SIGKILL."""
        self.note("operator dies")
        self.life += 1
        self.alive = self.leading = self._planning = self.deaf = False
        self.stalled_until = 0.0
        self.busy.clear()
        self.objects = {}
        self.world.schedule.after(self.world.dice.wait(4.0), self._restart, self.life)
        self.world.schedule.after(self.world.dice.uniform(0.5, LEASE), self.world.elect)

    def _restart(self, life: int) -> None:
        if life == self.life:
            self.alive = True
            self.host = self.world.pick_host()
            self.world.schedule.after(1.0, self.world.elect)

    def stall(self, seconds: float) -> None:
        """SIGSTOP, for a while."""
        self.note(f"operator is stopped for {seconds:.0f} s")
        self.stalled_until = self.world.schedule.now + seconds
        self.world.schedule.after(LEASE, self.world.elect)
        self.world.schedule.after(seconds + 1.0, self.world.elect)
        # It learns that it was deposed only some time after it woke up.
        self._after(seconds + self.world.dice.uniform(0.0, 8.0), self._look_at_lease)

    def _look_at_lease(self) -> None:
        if self.leading and self.term != self.world.term:
            self.note(f"operator learns that it was deposed (term {self.term})")
            self.resign()

    def resign(self) -> None:
        """Stand by."""
        self.life += 1
        self.leading = self._planning = False
        self.trap = 0.0
        self.busy.clear()

    def lead(self, term: int) -> None:
        """Elected: raise the fence, list everything, then plan."""
        self.life += 1
        self.leading, self.term, self._planning, self.deaf = True, term, False, False
        self.busy, self.refusals, self.verifying = {}, {}, {}
        self.objects = {}
        self.lookups = {}
        self.note(f"leads with term {term}")
        self._after(self.world.dice.wait(1.0), self._look_up)
        self._after(self.world.dice.wait(0.2), self._raise_fence)

    def _raise_fence(self) -> None:
        if self.world.api.down:
            self._after(3.0, self._raise_fence)
            return
        for name, lock in list(self.world.api.objects["RebootLock"].items()):
            if (lock.status.get("term") or 0) >= self.term:
                continue
            self.world.api.update(
                "RebootLock", name, lambda doc: set_path(doc, ("status", "term"), self.term), by="operator"
            )
        self._after(self.world.dice.wait(0.2), self.relist)

    def relist(self) -> None:
        """A consistent list of everything."""
        if self.world.api.down:
            self._after(3.0, self.relist)
            return
        self.objects = {kind: dict(self.world.api.objects[kind]) for kind in KINDS}
        self._listed = self.world.api.version
        self.deaf = False
        self.verifying.clear()
        self.wake()

    # The store.

    def hear(self, before: Item | None, after: Item | None) -> None:
        """The API server has a change for us; it arrives later, in order for one object, not across objects."""
        if not self.leading or self.deaf or not self.objects:
            return
        item = after if after is not None else before
        assert item is not None
        key = (item.kind, item.name)
        due = max(self._due.get(key, 0.0), self.world.schedule.now + self.world.dice.wait(0.15))
        self._due[key] = due
        version = self.world.api.version
        self._after(due - self.world.schedule.now, self._take, item, after is None, version)
        if self.world.dice.chance(0.02):
            self._after(self.world.dice.wait(2.0), self._take, item, after is None, version)

    def _take(self, item: Item, deleted: bool, version: int) -> None:
        if self.deaf or not self.objects:
            return
        if self.world.api.down:
            self._after(3.0, self._take, item, deleted, version)
            return
        held = self.objects[item.kind].get(item.name)
        if item.uid in self._gone or version <= self._listed or (held is not None and held.version >= version):
            return
        if deleted:
            self._forget(item)
        else:
            self.objects[item.kind][item.name] = item
        self.wake()

    def _forget(self, item: Item) -> None:
        self._gone.add(item.uid)
        held = self.objects[item.kind].get(item.name)
        if held is not None and held.uid == item.uid:
            del self.objects[item.kind][item.name]

    def miss(self, seconds: float) -> None:
        """The watches are cut, and what happens meanwhile is known only from the list afterwards."""
        self.deaf = True
        self.verifying.clear()
        self._after(seconds, self.relist)

    def look_again(self) -> None:
        """The repository is looked at again after a while: this is the interval between two lookups."""
        self._after(self.world.dice.wait(8.0), self._look_up)

    def _look_up(self) -> None:
        if self.leading:
            self.lookups = self.world.repository.look_up(self.lookups, self.world.schedule.now)
            self.wake()

    # The loop.

    def wake(self) -> None:
        """Plan soon, with all that arrives until then."""
        if self._planning or not self.leading or not self.objects:
            return
        self._planning = True
        self._after(self.world.dice.uniform(0.02, self.world.dice.pick((0.1, 1.0, 3.0))), self._plan)

    def _wake_at(self, instant: float) -> None:
        if self._woken == instant:
            self.wake()

    def snapshot(self) -> Snapshot:
        """What the plan is made from."""
        objects, world = self.objects, self.world
        machines = {name: item.value for name, item in objects["Node"].items()}
        on_trial = {m.step.id for m in machines.values() if m.phase == "Verifying"}
        now = world.schedule.now
        self.verifying = {order: self.verifying.get(order, now) for order in on_trial}
        return Snapshot(
            machines=machines,
            core_nodes={name: item.value for name, item in objects["CoreNode"].items()},
            pods=_by_node(objects["Pod"]),
            policies={name: item.value for name, item in objects["UpdatePolicy"].items()},
            locks={name: item.value for name, item in objects["RebootLock"].items()},
            units={name: item.value for name, item in objects["Unit"].items()},
            releases=self.lookups,
            silent=frozenset(name for name in machines if world.is_silent(name)),
            refusals=dict(self.refusals),
            verifying_since=dict(self.verifying) if not self.deaf else {},
            busy=frozenset(self.busy),
            paused=world.switch,
            term=self.term,
            operator_node=self.host,
        )

    def _plan(self) -> None:
        self._planning = False
        snapshot = self.snapshot()
        now = self.world.schedule.now
        plan = make_plan(snapshot, now)
        locks = [action for action in plan.actions if isinstance(action, WriteLock)]
        granted = frozenset(name for lock in locks for name in lock.granted)
        freed = frozenset((lock.name, name) for lock in locks for name in lock.freed)
        basis = Basis({kind: dict(self.objects[kind]) for kind in KINDS}, snapshot.silent, granted, freed)
        for action in plan.actions:
            self._submit(action, basis)
        if plan.wake_at is not None and self._woken != plan.wake_at:
            self._woken = plan.wake_at
            self._after(max(0.0, plan.wake_at - now), self._wake_at, plan.wake_at)

    def _submit(self, action: Action, basis: Basis) -> None:
        token = object()
        where = target(action)
        self.busy[where] = token
        policy: Policy | None = None
        if isinstance(action, WritePolicy):
            policy = self.objects["UpdatePolicy"][action.name].value
        if self.trap and isinstance(action, WriteLock):
            seconds, self.trap = self.trap, 0.0
            self.stall(seconds)
        # Lost with the process, and late when it is stopped: this is the deposed leader's late write.
        self._after(self.world.dice.wait(0.05), self._send, action, basis, policy, token)

    def _send(self, action: Action, basis: Basis, policy: Policy | None, token: object) -> None:
        self._after(GIVE_UP, self._give_up, action, token)
        self.world.schedule.after(self.world.dice.wait(0.05), self._arrive, action, basis, policy, token, self.life)

    def _arrive(self, action: Action, basis: Basis, policy: Policy | None, token: object, life: int) -> None:
        """The request reaches the API server, whatever became of its sender."""
        world = self.world
        if world.api.down:
            return
        world.watch.expect(action, basis)
        answer = execute.perform(action, policy, world.api, world.workload, world.schedule.now)
        world.watch.done(action, answer)
        if world.schedule.tracing:
            self.note(f"{describe(action)} -> {answer.version if isinstance(answer, Item) else answer}")
        if life == self.life and not world.dice.chance(world.crash_share):
            self._after(world.dice.wait(0.05), self._take_answer, action, answer, token)

    def _give_up(self, action: Action, token: object) -> None:
        if self.busy.get(target(action)) is token:
            self._free(action, token)

    def _free(self, action: Action, token: object) -> None:
        if self.busy.get(target(action)) is token:
            del self.busy[target(action)]
            self.wake()

    def _take_answer(self, action: Action, answer: Item | Refused, token: object) -> None:
        if self.busy.get(target(action)) is not token:
            return
        where = target(action)
        if answer is Refused.BUDGET:
            self.refusals[where[1]] = Refusal("the budget allows no more", self.world.schedule.now + 5.0)
        elif where[0] == "Pod":
            self._after(30.0, self._free, action, token)
            return
        elif isinstance(answer, Refused):
            self._after(STALE_HOLD, self._free, action, token)
            return
        elif isinstance(action, DeleteNode):
            self._forget(answer)
        else:
            self._take(answer, False, answer.version)
        self._free(action, token)


def _by_node(pods: dict[str, Item]) -> dict[str, tuple[Pod, ...]]:
    found: dict[str, tuple[Pod, ...]] = {}
    for item in pods.values():
        pod = item.value
        if pod is not None:
            found[pod.node] = (*found.get(pod.node, ()), pod)
    return found


def describe(action: Action) -> str:
    """An action in one line of a trace."""
    match action:
        case SetOrder():
            order = action.order
            return f"order {action.name}: {order.id} {order.release.version} {order.goal} {order.cause or ''}"
        case WriteLock():
            held = ", ".join(holder.id for holder in action.holders)
            return f"lock {action.name} term {action.term} [{held}] granted {action.granted} freed {action.freed}"
        case WritePolicy():
            rollout = action.state.rollout
            told = [f"{name}:{reason}" for name, status, reason, _ in action.state.conditions if status == "True"]
            at = "no rollout"
            if rollout is not None:
                halted = "halted" if rollout.halted_at is not None else "runs"
                at = f"{rollout.id[:10]} wave {rollout.wave} failed {rollout.failed} {halted}"
            return f"policy {action.name}: {at} {told}"
        case _:
            return str(action)
