"""All metrics of the operator, in one registry."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.registry import Collector

REGISTRY = CollectorRegistry()

PLAN_SECONDS = Histogram(
    "careen_plan_duration_seconds",
    "Time that one plan took, from the snapshot to the list of actions.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
    registry=REGISTRY,
)
ACTIONS = Counter(
    "careen_actions_total",
    "Actions of the plan that were carried out, by kind and outcome: done, stale (the object had changed), refused, "
    "failed.",
    ["action", "outcome"],
    registry=REGISTRY,
)
REQUESTS = Counter(
    "careen_api_requests_total",
    "Requests to the API server, by verb, resource and HTTP code; code 0 is no answer.",
    ["verb", "resource", "code"],
    registry=REGISTRY,
)
REQUEST_SECONDS = Histogram(
    "careen_api_request_duration_seconds",
    "Time of requests to the API server; a watch counts until its stream is open.",
    ["verb"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
    registry=REGISTRY,
)
LEADER = Gauge("careen_leader", "1 while this process leads, 0 while it stands by.", registry=REGISTRY)
TERM = Gauge("careen_leader_term", "Term of the leader's Lease that this process led in last.", registry=REGISTRY)
RELISTS = Gauge(
    "careen_store_relists",
    "Complete lists after the first, by kind; a growing number means lost watches.",
    ["resource"],
    registry=REGISTRY,
)
POLICY_NODES = Gauge(
    "careen_policy_nodes",
    "Machines of a policy by state: selected, updated, staging, staged, inFlight, unavailable, failed.",
    ["policy", "state"],
    registry=REGISTRY,
)
POLICY_HALTED = Gauge(
    "careen_policy_halted", "1 while the policy's rollout is halted after failures.", ["policy"], registry=REGISTRY
)
BLOCKED = Gauge(
    "careen_blocked_nodes", "Machines that wait, by policy and reason.", ["policy", "reason"], registry=REGISTRY
)
LOCK_SLOTS = Gauge("careen_lock_slots", "spec.max of a RebootLock.", ["lock"], registry=REGISTRY)
LOCK_HOLDERS = Gauge("careen_lock_holders", "Holders of a RebootLock.", ["lock"], registry=REGISTRY)
ROLLBACKS = Counter(
    "careen_rollbacks_total",
    "Machines that went back to the old system, by cause.",
    ["cause"],
    registry=REGISTRY,
)
EVICTIONS = Counter(
    "careen_drain_evictions_total",
    "Evictions by outcome: evicted, gone, refused by a disruption budget.",
    ["outcome"],
    registry=REGISTRY,
)
RELEASE_EXPIRY = Gauge(
    "careen_release_metadata_expiry_timestamp_seconds",
    "When the signed metadata of a release repository expires unless it is signed again, in seconds since the epoch; "
    "after that nothing is started.",
    ["repository"],
    registry=REGISTRY,
)
RELEASE_RESOLVED = Gauge(
    "careen_release_resolved_timestamp_seconds",
    "When a channel, version or digest that a policy asks for was last found, in seconds since the epoch.",
    ["repository", "kind", "name"],
    registry=REGISTRY,
)
LOOKUPS = Counter(
    "careen_release_lookups_total",
    "Lookups of releases by outcome: found, unavailable, distrusted (keys, signatures or expiry were wrong).",
    ["outcome"],
    registry=REGISTRY,
)


class BuildInfo(Collector):
    """careen_build_info: 1, labelled with the version."""

    def __init__(self, version: str) -> None:
        self._version = version

    def collect(self) -> list[object]:  # type: ignore[override]
        """The one sample."""
        from prometheus_client.core import InfoMetricFamily

        info = InfoMetricFamily("careen_build", "Version of this process.")
        info.add_metric([], {"version": self._version})
        return [info]


def record_request(verb: str, resource: str, code: int, seconds: float) -> None:
    """Count one request to the API server."""
    REQUESTS.labels(verb, resource, str(code)).inc()
    REQUEST_SECONDS.labels(verb).observe(seconds)


def record_action(action: str, outcome: str) -> None:
    """Count one action that was carried out."""
    ACTIONS.labels(action, outcome).inc()


def record_eviction(outcome: str) -> None:
    """Count one eviction."""
    EVICTIONS.labels(outcome).inc()


def record_rollback(cause: str) -> None:
    """Count one machine that went back."""
    ROLLBACKS.labels(cause).inc()


def record_lookup(outcome: str) -> None:
    """Count one lookup of a release."""
    LOOKUPS.labels(outcome).inc()


def show_release(key: tuple[str, str, str], resolved_at: float | None, expires_at: float | None) -> None:
    """Show when a release key (repository, kind, name) was last found, and when its repository's metadata expires."""
    if resolved_at is not None:
        RELEASE_RESOLVED.labels(*key).set(resolved_at)
    if expires_at is not None:
        RELEASE_EXPIRY.labels(key[0]).set(expires_at)


def forget_release(key: tuple[str, str, str]) -> None:
    """Drop the series of a release key that no policy asks for any more."""
    RELEASE_RESOLVED.remove_by_labels(dict(zip(("repository", "kind", "name"), key, strict=True)))


def forget_repository(repository: str) -> None:
    """Drop the series of a repository that no policy names any more."""
    RELEASE_EXPIRY.remove_by_labels({"repository": repository})


def record_plan(seconds: float) -> None:
    """Record the time of one plan."""
    PLAN_SECONDS.observe(seconds)


def show_leader(leads: bool, term: int) -> None:
    """Show whether this process leads, and in which term."""
    LEADER.set(1 if leads else 0)
    TERM.set(term)


def show_relists(resource: str, relists: int) -> None:
    """Show how often a store had to list again."""
    RELISTS.labels(resource).set(relists)


def show_blocked(waiting: Mapping[tuple[str, str], int]) -> None:
    """Show the machines that wait; reasons that are gone disappear."""
    BLOCKED.clear()
    for (policy, reason), count in waiting.items():
        BLOCKED.labels(policy, reason).set(count)


def show_policy(policy: str, counts: Mapping[str, int], halted: bool) -> None:
    """Show a policy's machines by state."""
    for state, count in counts.items():
        POLICY_NODES.labels(policy, state).set(count)
    POLICY_HALTED.labels(policy).set(1 if halted else 0)


def forget_policy(policy: str) -> None:
    """Drop the series of a policy that was deleted."""
    POLICY_NODES.remove_by_labels({"policy": policy})
    POLICY_HALTED.remove_by_labels({"policy": policy})


def show_lock(lock: str, slots: int, holders: int) -> None:
    """Show a lock's slots and holders."""
    LOCK_SLOTS.labels(lock).set(slots)
    LOCK_HOLDERS.labels(lock).set(holders)


def forget_lock(lock: str) -> None:
    """Drop the series of a lock that was deleted."""
    LOCK_SLOTS.remove_by_labels({"lock": lock})
    LOCK_HOLDERS.remove_by_labels({"lock": lock})


def serve(port: int, address: str, version: str) -> int:
    """Serve the metrics over HTTP; returns the port (of use with port 0, any free one)."""
    REGISTRY.register(BuildInfo(version))
    server, _ = start_http_server(port, addr=address, registry=REGISTRY)
    return int(server.server_address[1])
