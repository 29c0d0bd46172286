"""A small cluster as plain values, for tests of the decisions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from careen.core.actions import Action, Plan
from careen.core.fleet import Fleet, survey
from careen.core.plan import make_plan
from careen.core.pods import Pod
from careen.core.releases import Lookup, Release, ReleaseKey
from careen.core.rollouts import Progress, assess
from careen.core.snapshot import (
    CoreNode,
    Failure,
    Holder,
    Lock,
    Machine,
    Note,
    Order,
    Policy,
    Rollout,
    Slot,
    Snapshot,
    Step,
    Terms,
)
from careen.core.waves import order_id

NOW = 1_900_000_000.0
TERMS = Terms("default", 0, 600, 600, "Rollback", "Auto", 3600)


def release_of(version: str) -> Release:
    return Release("http://r", version, "sha256:" + version[0] * 64, 4096, f"{version}.img")


class Cluster:
    """Objects by name; `at` is the instant of the next plan. Everything is up to date and idle unless said."""

    def __init__(self) -> None:
        self.at = NOW
        self.machines: dict[str, Machine] = {}
        self.cores: dict[str, CoreNode] = {}
        self.pods: dict[str, tuple[Pod, ...]] = {}
        self.policies: dict[str, Policy] = {}
        self.locks: dict[str, Lock] = {}
        self.facts: dict[str, Any] = {"term": 1}

    def add(self, *names: str, version: str = "1.0.0", control_plane: bool = False, **changes: Any) -> None:
        """Machines that run a version, with their core Nodes; changes: fields of the core Node, or `zone`."""
        for name in names:
            labels = {"zone": changes.get("zone", "x")}
            if control_plane:
                labels["node-role.kubernetes.io/control-plane"] = ""
            core = CoreNode(name, f"core-{name}", "1", labels, True, False, f"boot-{name}", f"id-{name}")
            self.cores[name] = replace(core, **{k: v for k, v in changes.items() if k != "zone"})
            release = release_of(version)
            self.machines[name] = Machine(
                name, f"uid-{name}", "1", 1, NOW - 1000, core_uid=core.uid, core_machine_id=core.machine_id,
                booted="A", boot_id=core.boot_id, protocol=1,
                deadman="TrialTimer", slots={"A": Slot(True, version, release.digest), "B": Slot(False, None, None)},
            )  # fmt: skip

    def change(self, name: str, **changes: Any) -> None:
        """Change fields of a machine."""
        self.machines[name] = replace(self.machines[name], **changes)

    def change_core(self, name: str, **changes: Any) -> None:
        """Change fields of a core Node."""
        self.cores[name] = replace(self.cores[name], **changes)

    def set_policy(self, version: str = "2.0.0", *, name: str = "os", stored: bool = True, **changes: Any) -> Policy:
        """A policy for all machines, with its rollout of `version` stored unless not."""
        policy = Policy(name, f"uid-{name}", "1", 1, (), "http://r", version, None, TERMS, observed_generation=1)
        self.policies[name] = replace(policy, **changes)
        if stored:
            self.store_rollout(name)
        return self.policies[name]

    def store_rollout(self, name: str = "os", **changes: Any) -> Rollout:
        """What the first plan would have recorded."""
        policy = self.policies[name]
        progress = assess(self.fleet(), replace(policy, rollout=None), self.at - 100)
        assert progress.rollout is not None
        rollout = replace(progress.rollout, **changes)
        self.policies[name] = replace(policy, rollout=rollout)
        return rollout

    def set_lock(self, *held: str, limit: int = 1, name: str = "default", term: int = 1, **changes: Any) -> None:
        """A lock, held by machines for their current orders."""
        holders = tuple(self.holder(h) for h in sorted(held))
        lock = Lock(name, f"uid-{name}", "1", 1, limit, term=term, holders=holders, observed_generation=1)
        self.locks[name] = replace(lock, **changes)

    def holder(self, name: str) -> Holder:
        """The operator's hold for a machine's current order."""
        order = self.machines[name].order
        return Holder(
            name, self.at - 60, order.id if order else None, f"uid-{name}", self.cores[name].uid, f"id-{name}",
            by="operator",
        )  # fmt: skip

    def give(
        self, name: str, goal: str = "Stage", phase: str = "Staged", *, policy: str = "os", attempt: int = 0,
        acknowledged: bool = True, cause: str | None = None, step_cause: str | None = None, **changes: Any,
    ) -> Order:  # fmt: skip
        """An order of the policy's rollout, and how far the agent is with it."""
        known = self.policies[policy]
        assert known.rollout is not None
        before = None if goal == "Stage" or changes.pop("unarmed", False) else "boot-before"
        order = Order(
            order_id(self.cores[name].uid, known.rollout, attempt), attempt, 0, 0, policy, known.uid, known.rollout.id,
            known.rollout.release, goal, cause, before, known.terms,
        )  # fmt: skip
        order = replace(order, **changes)
        step = Step(order.id, goal if acknowledged else "Stage", phase, step_cause)
        self.change(name, order=order, step=step)
        if phase == "Verifying":
            self.change(
                name, booted="B", slots={**self.machines[name].slots, "B": Slot(False, "2.0.0", "sha256:" + "2" * 64)}
            )
        return order

    def note(self, name: str, state: str, reason: str, since: float, settled: float | None = None) -> None:
        """What the operator last said about a machine."""
        boot = self.machines[name].boot_id if settled is not None else None
        self.change(name, note=Note(state, reason, "", since, settled, boot))

    def snapshot(self) -> Snapshot:
        found = [release_of(f"{n}.0.0") for n in range(1, 6)]
        releases = {ReleaseKey("http://r", "version", release.version): Lookup(release) for release in found}
        facts = {"releases": releases, **self.facts}
        return Snapshot(self.machines, self.cores, self.pods, self.policies, self.locks, **facts)

    def fleet(self) -> Fleet:
        return survey(self.snapshot())

    def assess(self, name: str = "os") -> Progress:
        return assess(self.fleet(), self.policies[name], self.at)

    def plan(self) -> Plan:
        return make_plan(self.snapshot(), self.at)

    def find(self, kind: type[Action] | Any, name: str | None = None) -> list[Any]:
        """Actions of one kind in the plan of now."""
        return [a for a in self.plan().actions if isinstance(a, kind) and name in (None, a.name)]

    def reason(self, name: str) -> tuple[str, str]:
        """(state, reason) of a machine in the plan of now."""
        return next((e.state, e.reason) for e in self.plan().explanations if e.machine == name)


def failures(*names: str) -> Iterable[Failure]:
    return tuple(Failure(name, f"core-{name}", f"order-{name}", "Panic") for name in names)
