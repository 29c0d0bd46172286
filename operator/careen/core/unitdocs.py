"""Units and what machines hold of them, from the documents of the API server and back."""

from collections.abc import Iterable, Mapping
from typing import Any

from careen.api.requirements import Requirements
from careen.units.reading import check_unit

from .conditions import decode_conditions, encode_conditions
from .holdings import NO_UNITS, Counts, Holding, MachineUnits, Report, StoredPlace, Unit, UnitState
from .instants import format_instant, parse_instant
from .places import UnitSpec

Document = Mapping[str, Any]


def decode_unit(obj: Document) -> Unit:
    """A Unit. Its content is read here, once a version of the object, and not kept."""
    meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    name = spec.get("name") or meta["name"]
    desired = spec.get("desiredState") or "inactive"
    verdict = check_unit(name, spec.get("content") or "", spec.get("placement"), desired)
    valid = not verdict.errors
    return Unit(
        name=meta["name"],
        uid=meta["uid"],
        resource_version=meta["resourceVersion"],
        generation=meta.get("generation", 0),
        created=parse_instant(meta.get("creationTimestamp")) or 0.0,
        spec=UnitSpec(
            name=name,
            requirements=verdict.requirements if valid else Requirements(),
            desired=desired,
            # Nobody knows what it asks for, or could run it anywhere else: it waits where it is.
            on_silence=spec.get("onSilence") or "Replace" if valid else "Keep",
            pinned=not valid,
        ),
        hash=verdict.file.hash if verdict.file is not None else None,
        errors=verdict.errors,
        warnings=verdict.warnings,
        deleting="deletionTimestamp" in meta,
        state=_decode_state(status) if status else None,
        conditions=decode_conditions(status),
    )


def _decode_state(status: Document) -> UnitState:
    counts, placements = status.get("counts"), status.get("placements")
    return UnitState(
        generation=status.get("observedGeneration") or 0,
        hash=status.get("hash"),
        current=status.get("currentState"),
        placements=None if placements is None else tuple(_decode_place(place) for place in placements),
        counts=Counts(**{key: counts.get(key, 0) for key in Counts.__slots__}) if counts is not None else None,
        machines=tuple((each["node"], _decode_report("", each)) for each in status.get("machines") or ()),
        conditions=tuple(
            (each["type"], each["status"], each.get("reason") or "", each.get("message") or "")
            for each in status.get("conditions") or ()
        ),
    )


def _decode_place(place: Document) -> StoredPlace:
    since = parse_instant(place.get("since")) or 0.0
    return StoredPlace(place["node"], place.get("nodeUID"), since, bool(place.get("leaving")))


def _decode_report(name: str, report: Document) -> Report:
    return Report(
        name=name,
        hash=report.get("hash"),
        load=report.get("load") or "",
        active=report.get("active") or "",
        sub=report.get("sub") or "",
        launched=bool(report.get("launched")),
        message=report.get("message") or "",
    )


def decode_machine_units(spec: Document, status: Document) -> MachineUnits:
    """What a Node's spec and status say of units."""
    orders, reports = spec.get("units") or (), status.get("units") or ()
    metadata, capacity = spec.get("metadata") or {}, spec.get("unitCapacity")
    if not (orders or reports or metadata) and capacity is None:
        return NO_UNITS
    return MachineUnits(
        holdings={e["name"]: Holding(e["name"], e["unit"], e["hash"], e["desiredState"]) for e in orders},
        reports={each["name"]: _decode_report(each["name"], each) for each in reports},
        metadata=metadata,
        capacity=capacity,
    )


def encode_holdings(holdings: Iterable[Holding]) -> list[dict[str, Any]]:
    """A Node's spec.units."""
    return [
        {"name": each.name, "unit": each.unit, "hash": each.hash, "desiredState": each.desired} for each in holdings
    ]


def encode_unit_status(unit: Unit, state: UnitState, now: float) -> dict[str, Any]:
    """A Unit's whole status; `unit` is what is stored now, for the times of its conditions."""
    rows = ((name, status == "True", reason, message) for name, status, reason, message in state.conditions)
    body: dict[str, Any] = {
        "observedGeneration": state.generation,
        "hash": state.hash,
        "currentState": state.current,
        "placements": None if state.placements is None else [_encode_place(place) for place in state.placements],
        "machines": [_encode_report(machine, report) for machine, report in state.machines],
        "conditions": encode_conditions(rows, unit.conditions, state.generation, now),
    }
    if state.counts is not None:
        body["counts"] = {key: getattr(state.counts, key) for key in Counts.__slots__}
    return {key: value for key, value in body.items() if value is not None}


def _encode_place(place: StoredPlace) -> dict[str, Any]:
    body = {
        "node": place.node,
        "nodeUID": place.node_uid,
        "since": format_instant(place.since),
        "leaving": place.leaving,
    }
    return {key: value for key, value in body.items() if value is not None}


def _encode_report(machine: str, report: Report) -> dict[str, Any]:
    body = {"node": machine, "hash": report.hash, "load": report.load, "active": report.active, "sub": report.sub}
    return {key: value for key, value in body.items() if value is not None}
