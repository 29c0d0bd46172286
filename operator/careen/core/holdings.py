"""Units as objects, and what machines are to hold of them and say that they hold: a part of the snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from .conditions import Condition
from .places import UnitSpec

BUSY = frozenset({"active", "activating", "reloading", "deactivating"})
"""systemd's active states in which something of the unit still runs."""
RUNNING = frozenset({"active", "reloading"})
"""systemd's active states in which the unit is up."""
REMOVED = "removed"
UNREAD = "error"
"""Load state that an agent reports while systemd does not answer it: that a hash is missing means nothing then."""


@dataclass(frozen=True, slots=True)
class Holding:
    """One entry of a Node's spec.units: what the machine is to hold, or to get rid of."""

    name: str
    unit: str
    """Name of the Unit object that the content is read from."""
    hash: str
    desired: str
    """loaded, launched or removed."""

    @property
    def kept(self) -> bool:
        """Whether the machine is to have it."""
        return self.desired != REMOVED


@dataclass(frozen=True, slots=True)
class Report:
    """One entry of a Node's status.units: the unit as the machine's systemd has it."""

    name: str
    hash: str | None
    load: str
    active: str
    sub: str
    launched: bool = False
    message: str = ""

    @property
    def gone(self) -> bool:
        """Whether nothing of the unit is left there: no file, and nothing that runs; and systemd could be asked."""
        return self.hash is None and self.active not in BUSY and self.load != UNREAD


@dataclass(frozen=True, slots=True)
class MachineUnits:
    """All of a machine that units have to do with."""

    holdings: Mapping[str, Holding] = field(default_factory=dict)
    """What it is to hold, by the units' full names."""
    reports: Mapping[str, Report] = field(default_factory=dict)
    """What it says, by the units' full names."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """spec.metadata."""
    capacity: int | None = None
    """spec.unitCapacity."""

    def list_held(self) -> Iterator[str]:
        """Names of all units that are ordered here, or that are here without an order: the Node was made again."""
        yield from self.holdings
        yield from (name for name, report in self.reports.items() if name not in self.holdings and not report.gone)

    def holds(self, name: str) -> bool:
        """Whether the unit is ordered here, or is here."""
        report = self.reports.get(name)
        return name in self.holdings or (report is not None and not report.gone)

    def keeps(self, name: str) -> bool:
        """Whether it is here and no order to remove it was given."""
        holding = self.holdings.get(name)
        return holding.kept if holding is not None else self.holds(name)

    def list_changed(self, before: MachineUnits) -> Iterator[str]:
        """Names of units of which it is to hold, or says, another thing than before."""
        names = self.holdings.keys() | self.reports.keys() | before.holdings.keys() | before.reports.keys()
        for name in names:
            same = self.holdings.get(name) == before.holdings.get(name)
            if not same or self.reports.get(name) != before.reports.get(name):
                yield name


NO_UNITS = MachineUnits()


@dataclass(frozen=True, slots=True)
class StoredPlace:
    """One entry of a Unit's status.placements."""

    node: str
    node_uid: str | None
    since: float
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class Counts:
    """A Unit's status.counts."""

    placed: int = 0
    loaded: int = 0
    active: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class UnitState:
    """All that the operator says about a unit."""

    generation: int
    hash: str | None
    current: str | None
    placements: tuple[StoredPlace, ...] | None
    """Where it was put; None for a global unit, and before the first decision."""
    counts: Counts | None
    machines: tuple[tuple[str, Report], ...]
    """The first machines that report it, by name."""
    conditions: tuple[tuple[str, str, str, str], ...]
    """(type, status, reason, message) in a fixed order."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A Unit."""

    name: str
    uid: str
    resource_version: str
    generation: int
    created: float
    spec: UnitSpec
    """As far as its placement goes, under its full name; of no meaning while there are errors, but for the name."""
    hash: str | None
    """SHA-1 of its canonical text; None where that can't be."""
    errors: tuple[str, ...] = ()
    """Why it can't be taken, one sentence each."""
    warnings: tuple[str, ...] = ()
    deleting: bool = False
    """Whether it was deleted, and only somebody's finalizer keeps it."""
    state: UnitState | None = None
    """What is stored about it."""
    conditions: Mapping[str, Condition] = field(default_factory=dict)

    @property
    def full_name(self) -> str:
        """The name that systemd knows it by."""
        return self.spec.name

    @property
    def placements(self) -> tuple[StoredPlace, ...] | None:
        """The stored decision."""
        return self.state.placements if self.state is not None else None
