"""Requirements of a unit: what they are called in documents, and which of them can't stand together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

from careen.api.requirements import Metadata, Requirements
from careen.units.globs import compile_glob, match_glob
from careen.units.names import check_name
from careen.units.quoting import quote

FLEET = {
    "machine_id": "machineID",
    "machine_of": "machineOf",
    "machine_metadata": "machineMetadata",
    "conflicts": "conflicts",
    "replaces": "replaces",
    "global_": "global",
}
"""Fields that [X-Fleet] can say too, with their names on the wire."""
BEYOND = {
    "weight": "weight",
    "max_per_machine": "maxPerMachine",
    "avoids": "avoids",
    "spread": "spread",
    "surge": "surge",
    "interruptible": "interruptible",
}
"""Fields that only Unit.spec.placement has, with their names on the wire."""
WIRE = {**FLEET, **BEYOND}
MOST_WISHES = 64
"""Values of one requirement: each of them may have to be tried on each unit and each machine."""
MOST_PATTERN = 1024
"""Characters of a pattern, with its specifiers replaced: by those a short one can grow to megabytes, and making them
ready for use would hold up whoever reads the unit."""


def pick_fleet(wanted: Requirements) -> dict[str, Any]:
    """The values of the fields that [X-Fleet] can say, by the names of the fields."""
    return {name: getattr(wanted, name) for name in FLEET}


def dump_requirements(wanted: Requirements) -> dict[str, Any]:
    """What was asked for, as Unit.spec.placement says it; what is as without being asked for is left out."""
    return {
        WIRE[field.name]: _dump_value(field.name, getattr(wanted, field.name))
        for field in fields(wanted)
        if getattr(wanted, field.name) != field.default
    }


def _dump_value(name: str, value: Any) -> Any:
    if name == "machine_metadata":
        return {key: list(values) for key, values in value}
    return list(value) if isinstance(value, tuple) else value


def make_metadata(pairs: Iterable[tuple[str, str]]) -> Metadata:
    """Pairs of key and value as requirements: several values of one key are one requirement, met by any of them."""
    found: dict[str, set[str]] = {}
    for key, value in pairs:
        found.setdefault(key, set()).add(value)
    return tuple((key, tuple(sorted(found[key]))) for key in sorted(found))


def find_conflicts(wanted: Requirements, name: str) -> Iterator[str]:
    """Why the unit contradicts itself, in fleet's words and its order: the first is what fleet would have said.

    `name` is the unit's own.
    """
    if excess := list(_find_excess(wanted)):
        yield from excess
        return
    for word, patterns in (("conflict", wanted.conflicts), ("replace", wanted.replaces)):
        for peer in wanted.machine_of:
            for pattern in patterns:
                if match_glob(pattern, peer):
                    yield f"unresolvable requirements: peer {quote(peer)} matches {word} {quote(pattern)}"
    given = {
        "MachineID": wanted.machine_id is not None,
        "Global": wanted.global_,
        "Peers": bool(wanted.machine_of),
        "Conflicts": bool(wanted.conflicts),
        "Replaces": bool(wanted.replaces),
    }
    for one, other in EXCLUSIVE:
        if given[one] and given[other]:
            yield f"{one} cannot be used with {other}"
    yield from _find_unmatchable(wanted)
    if name in wanted.machine_of:
        yield f"MachineOf {quote(name)} must be another unit, not the unit itself"
    yield from _find_idle(wanted, name)


NOTHING = Requirements()
"""What asks for nothing."""
EXCLUSIVE = (
    ("MachineID", "Peers"),
    ("MachineID", "Conflicts"),
    ("MachineID", "Global"),
    ("MachineID", "Replaces"),
    ("Global", "Peers"),
    ("Global", "Replaces"),
    ("Conflicts", "Replaces"),
)
"""Requirements that can't stand together, in the order in which fleet looked for them."""


def _find_excess(wanted: Requirements) -> Iterator[str]:
    for field in ("machine_of", "machine_metadata", "conflicts", "replaces", "avoids"):
        if (number := len(getattr(wanted, field))) > MOST_WISHES:
            yield f"{WIRE[field]} must have at most {MOST_WISHES} entries, not {number}"
    for key, values in wanted.machine_metadata:
        if len(values) > MOST_WISHES:
            yield f"machineMetadata {quote(key)} must have at most {MOST_WISHES} values, not {len(values)}"
    for field in ("conflicts", "replaces", "avoids"):
        for pattern in getattr(wanted, field):
            if (length := len(pattern)) > MOST_PATTERN:
                told = quote(f"{pattern[:40]}...")
                yield f"{WIRE[field]} {told} must have at most {MOST_PATTERN} characters, not {length}"


def _find_unmatchable(wanted: Requirements) -> Iterator[str]:
    """Requirements that no machine and no unit could ever meet; fleet took them without a word."""
    if wanted.machine_id is not None and not wanted.machine_id:
        yield "MachineID must not be empty"
    for peer in wanted.machine_of:
        if (fault := check_name(peer)) is not None:
            yield f"MachineOf {quote(peer)} must be the name of one unit: {fault}"
    for option, patterns in (
        ("Conflicts", wanted.conflicts),
        ("Replaces", wanted.replaces),
        ("avoids", wanted.avoids),
    ):
        for pattern in patterns:
            if any(character.isspace() for character in pattern):
                yield f"{option} {quote(pattern)} must be one name or pattern; several in one line are quoted each"
            elif compile_glob(pattern) is None:
                yield f"{option} {quote(pattern)} must be a name or a pattern: a bracket or a backslash is left open"


def _find_idle(wanted: Requirements, name: str) -> Iterator[str]:
    """Wishes that would change nothing: what is asked for must be done or refused."""
    for field in ("max_per_machine", "spread"):
        if getattr(wanted, field) is not None and "@" not in name:
            yield f"placement.{BEYOND[field]} must be of a unit of a template, such as web@1.service"
    if not wanted.global_:
        return
    for field in ("max_per_machine", "avoids", "spread", "surge", "interruptible"):
        if getattr(wanted, field) != getattr(NOTHING, field):
            yield f"Global cannot be used with {BEYOND[field]}: such a unit runs on every machine that fits, and stays"
