"""Figures of the whole fleet, made when they are asked for: what is gone from the API leaves no series behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

Figures = dict[str, dict[tuple[str, ...], float]]
"""Values by family and label values, as the leader's last plan saw them."""


@dataclass(frozen=True, slots=True)
class Family:
    """One family of series."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    type: Literal["gauge", "counter"] = "gauge"
    per_node: bool = False
    """Served only with `careen operator --node-metrics`."""


FLEET = (
    Family("careen_nodes", "Machines, by policy, state and reason.", ("policy", "state", "reason")),
    Family("careen_blocked_nodes", "Machines that wait, by policy and reason.", ("policy", "reason")),
    Family(
        "careen_version_nodes", "Machines by policy and by the version that they have booted.", ("policy", "version")
    ),
    Family(
        "careen_agents",
        "Agents by state: talking, silent (no renewal of the Lease for 3 minutes), missing (never reported).",
        ("state",),
    ),
    Family(
        "careen_unsound_nodes",
        "Machines outside an update whose slots are not as they should be, by problem: BootedSlotNotGood (a reset may "
        "not boot what runs), OtherSlotNext (a reset boots the other slot), BootedSlotUnknown.",
        ("problem",),
    ),
    Family("careen_cluster_paused", "1 while the cluster-wide switch stops everything new."),
)
POLICIES = (
    Family(
        "careen_policy_nodes",
        "Machines of a policy by state: selected, updated, staging, staged, inFlight, unavailable, failed.",
        ("policy", "state"),
    ),
    Family("careen_policy_halted", "1 while the policy's rollout is halted after failures.", ("policy",)),
    Family("careen_policy_paused", "1 while spec.paused of the policy stops everything new.", ("policy",)),
    Family(
        "careen_policy_condition",
        "1 while the condition of the policy is True, 0 while it is not.",
        ("policy", "condition", "reason"),
    ),
    Family(
        "careen_policy_rollout_info",
        "1, labelled with the policy's present rollout, its version and its open wave.",
        ("policy", "rollout", "version", "wave"),
    ),
    Family(
        "careen_policy_rollout_start_timestamp_seconds",
        "When the policy's present rollout began, in seconds since the epoch.",
        ("policy",),
    ),
    Family(
        "careen_policy_complete_timestamp_seconds",
        "Since when all machines of the policy run its release, in seconds since the epoch; absent while they do not.",
        ("policy",),
    ),
    Family("careen_policy_rollout_failures", "Failures of the policy's present rollout.", ("policy",)),
)
LOCKS = (
    Family("careen_lock_slots", "spec.max of a RebootLock.", ("lock",)),
    Family("careen_lock_holders", "Holders of a RebootLock.", ("lock",)),
    Family("careen_lock_paused", "1 while spec.paused of the RebootLock stops grants.", ("lock",)),
    Family(
        "careen_lock_holder_since_timestamp_seconds",
        "Since when a holder holds a RebootLock, in seconds since the epoch, and who gave it the lock.",
        ("lock", "holder", "by"),
    ),
    Family(
        "careen_drain_blocked_pods",
        "Pods that a disruption budget keeps on a machine that is being drained.",
        ("node", "pod_namespace", "budget"),
    ),
)
UNITS = (
    Family(
        "careen_units",
        "Units by the reason of their condition Placed: Placed, Moving, UnitNotMovable (in a place that they should "
        "leave and can't), NoPlace (no machine takes them), Invalid, NameTaken, Inactive; Unknown before the first "
        "look.",
        ("reason",),
    ),
    Family(
        "careen_unit_places",
        "Places of all units on machines by what the machines report: placed, and of those loaded, active, failed.",
        ("state",),
    ),
)
STORES = (
    Family(
        "careen_store_relists_total",
        "Complete lists after the first, by kind; a growing number means lost watches.",
        ("resource",),
        type="counter",
    ),
)
NODES = (
    Family(
        "careen_node_info",
        "1, labelled with the version that a machine has booted, the versions in its slots, and its agent's version.",
        ("node", "version", "slot_a", "slot_b", "booted", "agent_version"),
        per_node=True,
    ),
    Family(
        "careen_node_state",
        "1, labelled with a machine's state and reason.",
        ("node", "policy", "state", "reason"),
        per_node=True,
    ),
    Family(
        "careen_node_boot_tries_left", "Boots that a slot has left, by its GPT tries.", ("node", "slot"), per_node=True
    ),
    Family(
        "careen_node_rejected_releases",
        "Releases that were rolled back on a machine and are not tried there again.",
        ("node",),
        per_node=True,
    ),
    Family(
        "careen_node_unsound",
        "1 while a machine's slots are not as they should be, by the problems of careen_unsound_nodes.",
        ("node", "problem"),
        per_node=True,
    ),
    Family(
        "careen_node_units",
        "Units of a machine by what it was told of them: loaded, launched, removed.",
        ("node", "desired"),
        per_node=True,
    ),
    Family(
        "careen_agent_last_seen_timestamp_seconds",
        "When an agent last renewed its Lease, by its own clock, in seconds since the epoch.",
        ("node",),
        per_node=True,
    ),
)
FAMILIES = FLEET + POLICIES + LOCKS + UNITS + STORES + NODES


class FleetCollector(Collector):
    """Serves what `source` gives; a process that does not lead has nothing to say about the fleet."""

    def __init__(self) -> None:
        self.source: Callable[[], Mapping[str, Mapping[tuple[str, ...], float]]] = dict

    def describe(self) -> list[GaugeMetricFamily | CounterMetricFamily]:
        """The families without values, so that registering asks for none."""
        return [_open(family) for family in FAMILIES]

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """The families that have values now."""
        figures = self.source()
        for family in FAMILIES:
            values = figures.get(family.name)
            if not values:
                continue
            made = _open(family)
            for labels, value in values.items():
                made.add_metric(labels, value)
            yield made


def _open(family: Family) -> GaugeMetricFamily | CounterMetricFamily:
    if family.type == "counter":
        return CounterMetricFamily(family.name.removesuffix("_total"), family.help, labels=family.labels)
    return GaugeMetricFamily(family.name, family.help, labels=family.labels)
