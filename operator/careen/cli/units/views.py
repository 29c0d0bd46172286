"""Units and machines as the verbs see them, read from the API server's documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from careen.units.reading import Verdict, check_unit

Document = Mapping[str, Any]

BUSY = frozenset({"active", "activating", "reloading", "deactivating"})
"""systemd's active states in which something of the unit still runs."""


@dataclass(frozen=True, slots=True)
class Report:
    """What one machine's systemd says of one unit."""

    unit: str
    hash: str
    load: str
    active: str
    sub: str
    message: str = ""

    @property
    def held(self) -> bool:
        """Whether the machine has anything of it: the file, or something that runs."""
        return bool(self.hash) or self.active in BUSY


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of a unit."""

    holds: bool
    reason: str
    message: str

    @property
    def sentence(self) -> str:
        """Reason and message."""
        return f"{self.reason}: {self.message}" if self.message else self.reason


@dataclass(frozen=True, slots=True)
class UnitView:
    """One Unit object."""

    object: str
    name: str
    """Full name of the unit."""
    uid: str
    created: str
    generation: int
    deleting: bool
    desired: str
    content: str
    placement: Document
    verdict: Verdict
    """What is to be said of its content, here and now."""
    observed: int = 0
    """The generation that all below was computed from by the operator; 0: it has not seen the unit."""
    current: str = ""
    """inactive, loaded, launched; empty for a global unit, and before the operator has said it."""
    place: str = ""
    """The machine that it is to run on; empty for none and for a global unit."""
    leaving: tuple[str, ...] = ()
    """Machines that it is about to leave."""
    counts: Mapping[str, int] = field(default_factory=dict)
    reports: Mapping[str, Report] = field(default_factory=dict)
    """By machine; the first ones only."""
    conditions: Mapping[str, Condition] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """SHA-1 of the canonical text; empty for a content that can't be."""
        return self.verdict.file.hash if self.verdict.file is not None else ""

    @property
    def is_global(self) -> bool:
        """Whether it runs on every machine that fits."""
        return self.verdict.requirements.global_

    @property
    def is_template(self) -> bool:
        """Whether only instances of it can run."""
        return self.verdict.file is not None and self.verdict.file.name.is_template

    @property
    def reason(self) -> str:
        """Why it is not as wanted, reason and sentence; else why it is where it is."""
        for name, bad in (("Stalled", True), ("Ready", False)):
            condition = self.conditions.get(name)
            if condition is not None and condition.holds == bad:
                return condition.sentence
        placed = self.conditions.get("Placed")
        return placed.sentence if placed is not None else ""


@dataclass(frozen=True, slots=True)
class MachineView:
    """One machine: its Node, and what the core Node adds."""

    name: str
    id: str
    ip: str
    metadata: Mapping[str, str]
    """spec.metadata: what people gave it."""
    labels: Mapping[str, str]
    """The core Node's labels, which units choose by too."""
    reports: tuple[Report, ...]
    in_cluster: bool
    """Whether it is a Kubernetes Node, too."""

    @property
    def address(self) -> str:
        """What fleet's columns call a machine: its name and its address."""
        return f"{self.name}/{self.ip}" if self.ip else self.name

    def report(self, unit: str) -> Report | None:
        """What it says of a unit that it has anything of; None for one that it has nothing of."""
        return next((each for each in self.reports if each.unit == unit and each.held), None)


def read_unit(document: Document) -> UnitView:
    """A Unit object."""
    meta, spec, status = document["metadata"], document.get("spec") or {}, document.get("status") or {}
    name, desired = spec.get("name") or meta["name"], spec.get("desiredState") or "inactive"
    places = status.get("placements") or ()
    return UnitView(
        object=meta["name"],
        name=name,
        uid=meta.get("uid", ""),
        created=meta.get("creationTimestamp") or "",
        generation=meta.get("generation", 0),
        deleting="deletionTimestamp" in meta,
        desired=desired,
        content=spec.get("content") or "",
        placement=spec.get("placement") or {},
        verdict=check_unit(name, spec.get("content") or "", spec.get("placement"), desired),
        observed=status.get("observedGeneration") or 0,
        current=status.get("currentState") or "",
        place=next((each["node"] for each in places if not each.get("leaving")), ""),
        leaving=tuple(each["node"] for each in places if each.get("leaving")),
        counts=status.get("counts") or {},
        reports={each["node"]: _read_report(name, each) for each in status.get("machines") or ()},
        conditions={
            each["type"]: Condition(each["status"] == "True", each.get("reason") or "", each.get("message") or "")
            for each in status.get("conditions") or ()
        },
    )


def _read_report(unit: str, report: Document) -> Report:
    words = (report.get(key) or "" for key in ("hash", "load", "active", "sub", "message"))
    return Report(unit, *words)


def elect_units(documents: Iterable[Document]) -> dict[str, UnitView]:
    """Units by full name, in the order of their names. Of several with one name the oldest counts."""
    found: dict[str, UnitView] = {}
    for unit in map(read_unit, documents):
        rival = found.get(unit.name)
        if not unit.deleting and (rival is None or (unit.created, unit.object) < (rival.created, rival.object)):
            found[unit.name] = unit
    return {name: found[name] for name in sorted(found)}


def read_machine(node: Document, core: Document | None) -> MachineView:
    """A machine from its Node and, if there is one, its core Node."""
    meta, spec, status = node["metadata"], node.get("spec") or {}, node.get("status") or {}
    core_status = (core or {}).get("status") or {}
    info = core_status.get("nodeInfo") or {}
    return MachineView(
        name=meta["name"],
        id=status.get("machineID") or info.get("machineID") or "",
        ip=_pick_address(core_status.get("addresses") or ()),
        metadata=spec.get("metadata") or {},
        labels=(core or {}).get("metadata", {}).get("labels") or {},
        reports=tuple(_read_report(each["name"], each) for each in status.get("units") or ()),
        in_cluster=core is not None or spec.get("coreNode") is not None,
    )


def _pick_address(addresses: Iterable[Document]) -> str:
    by_type = {each.get("type"): str(each.get("address")) for each in reversed(list(addresses))}
    return by_type.get("InternalIP") or by_type.get("ExternalIP") or ""
