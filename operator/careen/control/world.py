"""Live copies of all kinds that the plan looks at, and the snapshot made from them."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from careen.api.meta import AGENT_LEASE_PREFIX, SWITCH_CONFIGMAP
from careen.core.assemble import Facts, Objects, assemble, read_switch
from careen.core.decode import decode_core_node, decode_lock, decode_machine, decode_pod, decode_policy
from careen.core.holdings import Unit
from careen.core.instants import parse_instant
from careen.core.places import Rules
from careen.core.pods import Pod, Refusal
from careen.core.releases import Lookup, ReleaseKey
from careen.core.silence import SilenceTracker
from careen.core.snapshot import CoreNode, Lock, Machine, Policy, Snapshot
from careen.core.unitdocs import decode_unit
from careen.kube.resources import CONFIGMAPS, CORE_NODES, LEASES, LOCKS, NODES, PODS, POLICIES, UNITS
from careen.kube.session import Session
from careen.kube.store import Change, Store

from .settings import Settings

LIVE_PODS = "status.phase!=Succeeded,status.phase!=Failed"


@dataclass(frozen=True, slots=True)
class AgentLease:
    """An agent's Lease: whose it is, and when it says it was renewed."""

    machine: str
    renewed: str


def decode_agent_lease(obj: dict[str, Any]) -> AgentLease | None:
    """A Lease of an agent; None for any other Lease of the namespace."""
    name = obj["metadata"]["name"]
    if not name.startswith(AGENT_LEASE_PREFIX):
        return None
    renewed = (obj.get("spec") or {}).get("renewTime") or ""
    return AgentLease(name.removeprefix(AGENT_LEASE_PREFIX), renewed)


class World:
    """The stores. `run()` keeps them up to date; `wake` is called when anything a plan looks at has changed."""

    def __init__(self, session: Session, settings: Settings, wake: Callable[[], None]) -> None:
        self._settings = settings
        self._session = session
        self._wake = wake
        self.silence = SilenceTracker(settings.silence_seconds)
        self._silent_since: dict[str, float] = {}
        self._silent_live: float | None = None
        self._rules = Rules(settings.unit_grace_seconds, settings.unit_rebalance)
        self._pods_by_node: dict[str, dict[str, Pod]] = {}
        self._verifying: dict[str, float] = {}
        self._verifying_live: float | None = None
        namespace = settings.namespace
        # A machine that went while we were cut off holds its lock until we look again: look again soon.
        store = partial(Store, session, max_backoff=1.0)
        self.machines: Store[Machine] = store(NODES, decode=decode_machine, on_change=self._changed)
        self.cores: Store[CoreNode] = store(CORE_NODES, decode=decode_core_node, on_change=self._core_changed)
        self.policies: Store[Policy] = store(POLICIES, decode=decode_policy, on_change=self._changed)
        self.locks: Store[Lock] = store(LOCKS, decode=decode_lock, on_change=self._changed)
        self.units: Store[Unit] = store(UNITS, decode=decode_unit, on_change=self._changed)
        self.pods: Store[Pod] = store(PODS, decode=decode_pod, field_selector=LIVE_PODS, on_change=self._pod_changed)
        self.leases: Store[AgentLease] = store(
            LEASES, decode=decode_agent_lease, namespace=namespace, on_change=self._lease_changed
        )
        self.switch: Store[bool] = store(
            CONFIGMAPS,
            decode=read_switch,
            namespace=namespace,
            field_selector=f"metadata.name={SWITCH_CONFIGMAP}",
            on_change=self._changed,
        )
        self.stores: tuple[Store[Any], ...] = (
            self.machines,
            self.cores,
            self.policies,
            self.locks,
            self.units,
            self.pods,
            self.leases,
            self.switch,
        )

    async def run(self) -> None:
        """Keep all stores up to date until cancelled."""
        async with asyncio.TaskGroup() as group:
            for store in self.stores:
                group.create_task(store.run(), name=f"store-{store.resource.plural}")

    async def wait_synced(self, timeout: float) -> None:
        """Wait until every store holds a complete list."""
        async with asyncio.timeout(timeout):
            await asyncio.gather(*(store.wait_synced(timeout) for store in self.stores))

    async def relist(self) -> None:
        """A consistent list of everything: what a new leader plans from."""
        await asyncio.gather(*(store.relist() for store in self.stores))

    @property
    def live(self) -> bool:
        """Whether all watches are connected."""
        return all(store.live for store in self.stores)

    @property
    def live_since(self) -> float | None:
        """Monotonic instant since when all watches have been unbroken; None while one is down."""
        if not self.live:
            return None
        return max(store.live_since or 0.0 for store in self.stores)

    def now(self) -> float:
        """The API server's time; this machine's only until the server has answered once."""
        return self._session.clock.now(time.monotonic()) or time.time()

    def snapshot(
        self,
        *,
        term: int,
        busy: frozenset[tuple[str, str]],
        refusals: dict[str, Refusal],
        releases: Mapping[ReleaseKey, Lookup],
    ) -> Snapshot:
        """The frozen view of this instant."""
        machines = {name: machine for (_, name), machine in self.machines.objects.items()}
        objects = Objects(
            machines=machines,
            core_nodes={name: core for (_, name), core in self.cores.objects.items()},
            policies={name: policy for (_, name), policy in self.policies.objects.items()},
            locks={name: lock for (_, name), lock in self.locks.objects.items()},
            units={name: unit for (_, name), unit in self.units.objects.items()},
            pods={node: tuple(pods.values()) for node, pods in self._pods_by_node.items() if pods},
        )
        silent = self._silent(machines)
        facts = Facts(
            releases=releases,
            silent=silent,
            silent_since=self._track_silence(silent),
            unit_rules=self._rules,
            refusals=refusals,
            verifying_since=self._track_trials(machines),
            busy=busy,
            # A switch that has not been listed yet may be on.
            paused=not self.switch.synced or any(self.switch.objects.values()),
            term=term,
            operator_node=self._settings.operator_node,
            node_selector=self._settings.node_selector,
        )
        return assemble(objects, facts)

    def next_silence(self) -> float | None:
        """Monotonic instant at which another agent becomes silent if nothing changes."""
        live = self.leases.live_since
        if live is None or not self.leases.live:
            return None
        return self.silence.next_silence(time.monotonic(), live)

    def _silent(self, machines: dict[str, Machine]) -> frozenset[str]:
        """Silent agents; while the watch of the Leases is down nobody becomes silent and nobody ceases to be: we could
        not see a change."""
        mono = time.monotonic()
        live = self.leases.live_since if self.leases.live else None
        since = mono if live is None else live
        silent = frozenset(name for name in machines if self.silence.is_silent(name, mono, since))
        self.silence.keep(silent)
        return silent

    def _track_silence(self, silent: frozenset[str]) -> dict[str, float]:
        """Since when each agent has been seen to be silent; anew after each gap of the watch, in which it may have
        spoken: the grace period before its units are put elsewhere must have been looked at from end to end.
        """
        live = self.leases.live_since if self.leases.live else None
        if live is None or live != self._silent_live:
            self._silent_since.clear()
            self._silent_live = live
        now = self.now()
        self._silent_since = {name: self._silent_since.get(name, now) for name in silent}
        return dict(self._silent_since) if live is not None else {}

    def last_seen(self) -> dict[str, float]:
        """When each agent last renewed its Lease, by its own clock. May be called from any thread."""
        leases = [lease for lease in self.leases.objects.copy().values() if lease is not None]  # type: ignore[attr-defined]
        seen = ((lease.machine, parse_instant(lease.renewed)) for lease in leases)
        return {machine: at for machine, at in seen if at is not None}

    def begin_lead(self) -> None:
        """Count anew what counts only while this process leads: the time of trials (rule 7), and grace periods.

        A machine that was silent when an earlier lead of ours ended may have spoken since then.
        """
        self._verifying.clear()
        self._silent_since.clear()

    def _track_trials(self, machines: dict[str, Machine]) -> dict[str, float]:
        """When each order on trial was first seen so, forgotten at each gap of the watches (rule 7)."""
        live = self.live_since
        if live is None or live != self._verifying_live:
            self._verifying.clear()
            self._verifying_live = live
        now = self.now()
        current = {m.step.id for m in machines.values() if m.phase == "Verifying" and m.in_flight}
        self._verifying = {order: self._verifying.get(order, now) for order in current} if live is not None else {}
        return dict(self._verifying)

    def _changed(self, _change: Change[Any]) -> None:
        self._wake()

    def _core_changed(self, change: Change[CoreNode]) -> None:
        # The kubelet rewrites its Node every few minutes; only a change of what we read is worth a plan.
        if change.old is None or change.new is None or not _same_core(change.old, change.new):
            self._wake()

    def _pod_changed(self, change: Change[Pod]) -> None:
        for pod in (change.old, change.new):
            if pod is not None and (there := self._pods_by_node.get(pod.node)) is not None:
                there.pop(pod.uid, None)
                if not there:
                    del self._pods_by_node[pod.node]  # Names of nodes come and go for as long as we run.
        if change.new is not None:
            self._pods_by_node.setdefault(change.new.node, {})[change.new.uid] = change.new
        if change.old != change.new:
            self._wake()

    def _lease_changed(self, change: Change[AgentLease]) -> None:
        mono = time.monotonic()
        if change.new is None:
            if change.old is not None:
                self.silence.forget(change.old.machine)
            self._wake()
            return
        machine = change.new.machine
        live = self.leases.live_since or mono
        was_silent = self.silence.is_silent(machine, mono, live)
        renewed = parse_instant(change.new.renewed)
        age = None if renewed is None else self.now() - renewed
        self.silence.observe(machine, change.new.renewed, age, mono)
        if was_silent != self.silence.is_silent(machine, mono, live):
            self._wake()


def _same_core(old: CoreNode, new: CoreNode) -> bool:
    return (
        old.uid == new.uid
        and old.labels == new.labels
        and (old.ready, old.unschedulable, old.boot_id) == (new.ready, new.unschedulable, new.boot_id)
        and (old.machine_id, old.cordoned_for) == (new.machine_id, new.cordoned_for)
    )
