"""A snapshot from decoded objects and plain facts: the same for the operator and for a dry run on a live cluster."""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from careen.api.meta import SWITCH_KEY

from .holdings import Unit
from .instants import parse_instant
from .places import NO_RULES, Rules
from .pods import Pod, Refusal
from .releases import Lookup, ReleaseKey
from .silence import SILENCE_SECONDS
from .snapshot import CoreNode, Lock, Machine, Policy, Requirement, Snapshot


@dataclass(frozen=True, slots=True)
class Objects:
    """All objects that a decision looks at, decoded, each kind by name."""

    machines: Mapping[str, Machine] = field(default_factory=dict)
    core_nodes: Mapping[str, CoreNode] = field(default_factory=dict)
    policies: Mapping[str, Policy] = field(default_factory=dict)
    locks: Mapping[str, Lock] = field(default_factory=dict)
    pods: Mapping[str, tuple[Pod, ...]] = field(default_factory=dict)
    """Pods that a drain has to move, by the name of their node."""
    units: Mapping[str, Unit] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known beside the objects; each field as Snapshot explains it."""

    releases: Mapping[ReleaseKey, Lookup] = field(default_factory=dict)
    silent: Set[str] = frozenset()
    silent_since: Mapping[str, float] = field(default_factory=dict)
    unit_rules: Rules = NO_RULES
    refusals: Mapping[str, Refusal] = field(default_factory=dict)
    verifying_since: Mapping[str, float] = field(default_factory=dict)
    busy: Set[tuple[str, str]] = frozenset()
    paused: bool = False
    term: int = 0
    operator_node: str | None = None
    node_selector: tuple[Requirement, ...] = ()


def assemble(objects: Objects, facts: Facts) -> Snapshot:
    """Put objects and facts together."""
    return Snapshot(
        machines=objects.machines,
        core_nodes=objects.core_nodes,
        pods=objects.pods,
        policies=objects.policies,
        locks=objects.locks,
        units=objects.units,
        releases=facts.releases,
        silent=frozenset(facts.silent),
        silent_since=facts.silent_since,
        unit_rules=facts.unit_rules,
        refusals=facts.refusals,
        verifying_since=facts.verifying_since,
        busy=frozenset(facts.busy),
        paused=facts.paused,
        term=facts.term,
        operator_node=facts.operator_node,
        node_selector=facts.node_selector,
    )


def group_pods(pods: Iterable[Pod]) -> dict[str, tuple[Pod, ...]]:
    """Pods by the name of their node, sorted by namespace and name: the order of evictions does not depend on lists."""
    grouped: dict[str, list[Pod]] = {}
    for pod in pods:
        grouped.setdefault(pod.node, []).append(pod)
    return {node: tuple(sorted(group, key=lambda pod: (pod.namespace, pod.name))) for node, group in grouped.items()}


def find_silent(
    machines: Iterable[str], renewals: Mapping[str, str | None], now: float, limit: float = SILENCE_SECONDS
) -> frozenset[str]:
    """Machines that count as silent at a first look, without having watched: no Lease, or one `limit` seconds behind.

    `renewals`: renewTime of each machine's Lease as written. `now`: the API server's time, seconds since the epoch.
    """
    silent = set()
    for name in machines:
        renewed = parse_instant(renewals.get(name))
        if renewed is None or now - renewed > limit:
            silent.add(name)
    return frozenset(silent)


def read_switch(configmap: Mapping[str, Any] | None) -> bool:
    """Whether the cluster-wide switch is on; an absent ConfigMap or key means that all runs."""
    data = (configmap or {}).get("data") or {}
    return str(data.get(SWITCH_KEY, "")).strip().lower() == "true"
