"""Conditions of our objects: as they are stored, and as they are written."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .instants import format_instant, parse_instant


@dataclass(frozen=True, slots=True)
class Condition:
    """A stored condition."""

    type: str
    status: str
    reason: str
    message: str
    since: float
    generation: int


def decode_conditions(status: Mapping[str, Any]) -> dict[str, Condition]:
    """The conditions of an object's status, by type."""
    return {condition["type"]: _decode_condition(condition) for condition in status.get("conditions") or ()}


def _decode_condition(condition: Mapping[str, Any]) -> Condition:
    return Condition(
        type=condition["type"],
        status=condition["status"],
        reason=condition.get("reason") or "",
        message=condition.get("message") or "",
        since=parse_instant(condition.get("lastTransitionTime")) or 0.0,
        generation=condition.get("observedGeneration") or 0,
    )


def encode_conditions(
    rows: Iterable[tuple[str, bool, str, str]], known: Mapping[str, Condition], generation: int, now: float
) -> list[dict[str, Any]]:
    """Conditions from (type, holds, reason, message); one keeps its time while its status stays the same."""
    return [
        {
            "type": name,
            "status": "True" if holds else "False",
            "observedGeneration": generation,
            "lastTransitionTime": format_instant(_since(known.get(name), holds, now)),
            "reason": reason,
            "message": message,
        }
        for name, holds, reason, message in rows
    ]


def _since(known: Condition | None, holds: bool, now: float) -> float:
    return known.since if known is not None and known.status == str(holds) else now
