"""All metrics of the operator, in one registry."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

from careen import __version__
from careen.api.reasons import Cause

from .fleet import FleetCollector

# A gauge beside each counter that tells when it was made: twice the series, and no name that Prometheus' rules allow.
disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()
FLEET = FleetCollector()
"""What the leader knows of the fleet; `source` is set by the process that leads."""
REGISTRY.register(FLEET)
ProcessCollector(registry=REGISTRY)
LONG = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 21600.0, 86400.0, 259200.0)
"""Up to days: a machine may wait as long as a large fleet takes before it."""

BUILD = Gauge("careen_build_info", "1, labelled with the version of this process.", ["version"], registry=REGISTRY)
BUILD.labels(__version__).set(1)

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
UPDATE_SECONDS = Histogram(
    "careen_update_duration_seconds",
    "Time that one machine spent in a phase of an update: staging, waiting (staged, for its turn), draining, "
    "activating (until the new system's agent reports), verifying, rollingBack, returning (until its lock is free).",
    ["phase"],
    buckets=LONG,
    registry=REGISTRY,
)
DRAIN_SECONDS = Histogram(
    "careen_drain_duration_seconds",
    "Time from the grant of the lock until all pods had left (done) or the drain was given up (givenBack).",
    ["outcome"],
    buckets=LONG,
    registry=REGISTRY,
)
REBOOT_SECONDS = Histogram(
    "careen_reboot_duration_seconds",
    "Time from the order to boot until the agent reported from the new boot, by method: Kexec or Firmware.",
    ["method"],
    buckets=LONG,
    registry=REGISTRY,
)
LOCK_WAIT_SECONDS = Histogram(
    "careen_lock_wait_seconds",
    "Time that a staged machine waited for its place in a RebootLock.",
    ["lock"],
    buckets=LONG,
    registry=REGISTRY,
)
HANDOVER_SECONDS = Histogram(
    "careen_lock_handover_seconds",
    "Time from the end of one machine's update to the grant of its place to the next, while others waited for room.",
    ["lock"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0),
    registry=REGISTRY,
)
UPDATES = Counter(
    "careen_updates_total",
    "Updates of machines that have ended, by policy and outcome: committed or rolledBack.",
    ["policy", "outcome"],
    registry=REGISTRY,
)
ROLLBACKS = Counter(
    "careen_rollbacks_total",
    "Machines that went back to the old system, by policy and cause.",
    ["policy", "cause"],
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


def _begin() -> None:
    """Begin what has few labels at 0: an increase is seen only from a value that was there before."""
    for phase in ("staging", "waiting", "draining", "activating", "verifying", "rollingBack", "returning"):
        UPDATE_SECONDS.labels(phase)
    for outcome in ("done", "givenBack"):
        DRAIN_SECONDS.labels(outcome)
    for method in ("Kexec", "Firmware"):
        REBOOT_SECONDS.labels(method)
    for outcome in ("evicted", "gone", "refused"):
        EVICTIONS.labels(outcome)
    for outcome in ("found", "unavailable", "distrusted"):
        LOOKUPS.labels(outcome)


_begin()


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


def record_phase(phase: str, seconds: float) -> None:
    """Record the time that a machine spent in a phase of an update."""
    UPDATE_SECONDS.labels(phase).observe(seconds)


def record_drain(outcome: str, seconds: float) -> None:
    """Record the time of one drain."""
    DRAIN_SECONDS.labels(outcome).observe(seconds)


def record_reboot(method: str, seconds: float) -> None:
    """Record the time of one reboot."""
    REBOOT_SECONDS.labels(method).observe(seconds)


def record_wait(lock: str, seconds: float) -> None:
    """Record how long a machine waited for a lock."""
    LOCK_WAIT_SECONDS.labels(lock).observe(seconds)


def record_handover(lock: str, seconds: float) -> None:
    """Record how long a place in a lock took to the next machine."""
    HANDOVER_SECONDS.labels(lock).observe(seconds)


def record_update(policy: str, cause: str | None) -> None:
    """Count one update that has ended; cause: why it was rolled back, None if it was committed."""
    UPDATES.labels(policy, "committed" if cause is None else "rolledBack").inc()
    if cause is not None:
        ROLLBACKS.labels(policy, cause).inc()


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


def expect_policy(policy: str) -> None:
    """Begin a policy's counters at 0: an increase is seen only from a value that was there before."""
    for outcome in ("committed", "rolledBack"):
        UPDATES.labels(policy, outcome)
    for cause in Cause:
        ROLLBACKS.labels(policy, cause)


def forget_policy(policy: str) -> None:
    """Drop the series of a policy that was deleted."""
    UPDATES.remove_by_labels({"policy": policy})
    ROLLBACKS.remove_by_labels({"policy": policy})


def expect_lock(lock: str) -> None:
    """Begin a lock's histograms."""
    LOCK_WAIT_SECONDS.labels(lock)
    HANDOVER_SECONDS.labels(lock)


def forget_lock(lock: str) -> None:
    """Drop the series of a lock that was deleted."""
    LOCK_WAIT_SECONDS.remove_by_labels({"lock": lock})
    HANDOVER_SECONDS.remove_by_labels({"lock": lock})


def serve(port: int, address: str) -> int:
    """Serve the metrics over HTTP; returns the port (of use with port 0, any free one)."""
    server, _ = start_http_server(port, addr=address, registry=REGISTRY)
    return int(server.server_address[1])
