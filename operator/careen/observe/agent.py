"""Metrics of one agent, served on its own machine. Each agent has a registry of its own: many may share a process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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

SECONDS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)
REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class SlotFigures:
    """One slot as its machine sees it."""

    version: str
    priority: int
    tries: int
    successful: bool


@dataclass(frozen=True, slots=True)
class MachineFigures:
    """The machine as its agent sees it."""

    slots: Mapping[str, SlotFigures]
    booted: str
    method: str
    """How the running system was booted: Kexec or Firmware."""
    phase: str
    """Phase of the present order."""
    rejected: int
    """Releases that were rolled back here and are not tried again."""
    unhealthy: bool
    """Whether the local gates do not pass."""


class AgentMetrics:
    """What an agent counts and shows. The methods may be called from any thread."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.build = Gauge(
            "careen_build_info", "1, labelled with the version of this process.", ["version"], registry=registry
        )
        self.build.labels(__version__).set(1)
        self.slot = Gauge(
            "careen_agent_slot_info", "1, labelled with the version in a slot.", ["slot", "version"], registry=registry
        )
        self.priority = Gauge(
            "careen_agent_slot_priority", "GPT priority of a slot; 0 is never booted.", ["slot"], registry=registry
        )
        self.tries = Gauge(
            "careen_agent_slot_tries_left", "Boots that a slot has left, by its GPT tries.", ["slot"], registry=registry
        )
        self.successful = Gauge(
            "careen_agent_slot_successful", "1 while a slot is marked good.", ["slot"], registry=registry
        )
        self.booted = Gauge("careen_agent_slot_booted", "1 for the slot that runs.", ["slot"], registry=registry)
        self.boot = Gauge(
            "careen_agent_boot_info",
            "1, labelled with how the running system was booted: Kexec or Firmware.",
            ["method"],
            registry=registry,
        )
        self.phase = Gauge(
            "careen_agent_phase", "1 for the phase of the machine's present order.", ["phase"], registry=registry
        )
        self.rejected = Gauge(
            "careen_agent_rejected_releases",
            "Releases that were rolled back here and are not tried again.",
            registry=registry,
        )
        self.unhealthy = Gauge(
            "careen_agent_unhealthy", "1 while the machine's local gates do not pass.", registry=registry
        )
        self.steps = Counter(
            "careen_agent_steps_total",
            "Steps of the agent by kind and outcome: done or failed.",
            ["step", "outcome"],
            registry=registry,
        )
        self.step_seconds = Histogram(
            "careen_agent_step_duration_seconds",
            "Time of the agent's steps by kind; StageImage is the writing of a release.",
            ["step"],
            buckets=SECONDS,
            registry=registry,
        )
        self.failures = Counter(
            "careen_agent_failures_total", "Failed steps by class of the error.", ["class"], registry=registry
        )
        self.bytes = Counter(
            "careen_agent_staged_bytes_total",
            "Bytes of images put into the passive slot by where they came from: fetched, reused (copied on the disk), "
            "skipped (there already, or zeros).",
            ["source"],
            registry=registry,
        )
        self.renewals = Counter(
            "careen_agent_lease_renewals_total",
            "Renewals of the agent's Lease by outcome: done or failed.",
            ["outcome"],
            registry=registry,
        )
        self.renewed = Gauge(
            "careen_agent_lease_renewed_timestamp_seconds",
            "When the agent last renewed its Lease, in seconds since the epoch.",
            registry=registry,
        )
        self.units = Gauge(
            "careen_agent_units",
            "Units whose files the machine holds, by systemd's active state.",
            ["state"],
            registry=registry,
        )
        self.units_behind = Gauge(
            "careen_agent_units_behind",
            "Units whose order is not done, and status.units says why.",
            registry=registry,
        )
        self.unit_operations = Counter(
            "careen_agent_unit_operations_total",
            "Operations on units by kind (Load, Unload, Reload, Start, Stop) and outcome: done (of Start and Stop: "
            "systemd has taken the job) or failed.",
            ["operation", "outcome"],
            registry=registry,
        )
        self.unit_writes = Counter(
            "careen_agent_unit_writes_total",
            "Writes of status.units by outcome: done or failed.",
            ["outcome"],
            registry=registry,
        )
        self.requests = Counter(
            "careen_api_requests_total",
            "Requests to the API server, by verb, resource and HTTP code; code 0 is no answer.",
            ["verb", "resource", "code"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "careen_api_request_duration_seconds",
            "Time of requests to the API server; a watch counts until its stream is open.",
            ["verb"],
            buckets=REQUEST_SECONDS,
            registry=registry,
        )
        for outcome in ("done", "failed"):
            self.renewals.labels(outcome)
            self.unit_writes.labels(outcome)
        for source in ("fetched", "reused", "skipped"):
            self.bytes.labels(source)

    def serve(self, port: int, address: str) -> int:
        """Serve the metrics over HTTP; returns the port. Raises OSError if the port is taken."""
        server, _ = start_http_server(port, addr=address, registry=self.registry)
        return int(server.server_address[1])

    def show(self, figures: MachineFigures) -> None:
        """Show the machine as it is; what it is no longer disappears."""
        slots = figures.slots
        _show(self.slot, {(name, slot.version): 1 for name, slot in slots.items()})
        _show(self.priority, {(name,): slot.priority for name, slot in slots.items()})
        _show(self.tries, {(name,): slot.tries for name, slot in slots.items()})
        _show(self.successful, {(name,): slot.successful for name, slot in slots.items()})
        _show(self.booted, {(name,): name == figures.booted for name in slots})
        _show(self.boot, {(figures.method,): 1})
        _show(self.phase, {(figures.phase,): 1})
        self.rejected.set(figures.rejected)
        self.unhealthy.set(figures.unhealthy)

    def record_request(self, verb: str, resource: str, code: int, seconds: float) -> None:
        """Count one request to the API server."""
        self.requests.labels(verb, resource, str(code)).inc()
        self.request_seconds.labels(verb).observe(seconds)

    def record_step(self, step: str, outcome: str, seconds: float) -> None:
        """Count one step."""
        self.steps.labels(step, outcome).inc()
        self.step_seconds.labels(step).observe(seconds)

    def record_failure(self, class_: str) -> None:
        """Count one failure."""
        self.failures.labels(class_).inc()

    def show_units(self, states: Mapping[str, int], behind: int) -> None:
        """Show how many units are in which active state, and how many orders are not done."""
        self.units.clear()
        for state, count in states.items():
            self.units.labels(state).set(count)
        self.units_behind.set(behind)

    def record_unit_operation(self, operation: str, outcome: str) -> None:
        """Count one operation on a unit."""
        self.unit_operations.labels(operation, outcome).inc()

    def record_unit_write(self, outcome: str) -> None:
        """Count one write of status.units."""
        self.unit_writes.labels(outcome).inc()

    def record_bytes(self, source: str, count: int) -> None:
        """Count bytes that were put into the passive slot."""
        self.bytes.labels(source).inc(count)

    def record_renewal(self, at: float | None) -> None:
        """Count one renewal of the Lease; at: when it was done, None if it failed."""
        self.renewals.labels("failed" if at is None else "done").inc()
        if at is not None:
            self.renewed.set(at)


def _show(gauge: Gauge, values: Mapping[tuple[str, ...], float]) -> None:
    """Show these values and no others. The old ones go last: a scrape in between finds too many, and never none."""
    for labels, value in values.items():
        gauge.labels(*labels).set(value)
    shown = [tuple(sample.labels.values()) for metric in gauge.collect() for sample in metric.samples]
    for labels in shown:
        if labels not in values:
            gauge.remove(*labels)
