"""What a unit asks of its place: the one model behind [X-Fleet] and Unit.spec.placement."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from careen.units.globs import compile_glob, match_glob
from careen.units.names import check_name
from careen.units.quoting import quote

Metadata = tuple[tuple[str, tuple[str, ...]], ...]
"""Keys in order, each with the values, in order, of which the machine must have one."""

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


@dataclass(frozen=True, slots=True)
class Requirements:
    """Where a unit may run. Lists are sorted and without repeats, so equal wishes are equal; specifiers are replaced.

    The first six are fleet's; the others are off unless asked for.
    """

    machine_id: str | None = None
    """The machine, by the whole of its id or the first 8 characters of it. None: any."""
    machine_of: tuple[str, ...] = ()
    """Names of units that must all be on the same machine."""
    machine_metadata: Metadata = ()
    """Metadata of the machine: every key must have one of its values."""
    conflicts: tuple[str, ...] = ()
    """Patterns (`match_glob`) on the names of units that must not be on the same machine; the unit itself never is."""
    replaces: tuple[str, ...] = ()
    """Patterns on the names of units that must leave the machine."""
    global_: bool = False
    """Run on every machine that fits."""
    weight: int = 1
    """How much of a machine's capacity the unit takes up."""
    max_per_machine: int | None = None
    """Most units of the same template on one machine. None: no limit."""
    avoids: tuple[str, ...] = ()
    """Patterns on the names of units that had better not be on the same machine: conflicts that may be broken."""
    spread: str | None = None
    """Topology key over whose values the units of the same template are spread evenly. None: not spread."""
    surge: bool = False
    """Moved, the unit is started in its new place before it is stopped in the old one."""
    interruptible: bool = False
    """A machine may be activated though the unit can't go anywhere else: it is down until the machine is back."""

    @property
    def fleet(self) -> tuple[Any, ...]:
        """The values of the fields that [X-Fleet] can say."""
        return tuple(getattr(self, name) for name in FLEET)

    def dump(self) -> dict[str, Any]:
        """What was asked for, as Unit.spec.placement says it; what is as without being asked for is left out."""
        dumped: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                name = FLEET.get(field.name) or BEYOND[field.name]
                dumped[name] = _dump_value(field.name, value)
        return dumped


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


def matches_machine(wanted: str, machine_id: str) -> bool:
    """Whether a MachineID means this machine: by the whole id, or by its first 8 characters."""
    return wanted in (machine_id, machine_id[:8])


def meets_metadata(wanted: Metadata, metadata: Mapping[str, str]) -> bool:
    """Whether the machine's metadata has, for every key, one of the values; by exact equality."""
    return all(metadata.get(key) in values for key, values in wanted)


def find_conflicts(wanted: Requirements, name: str) -> Iterator[str]:
    """Why the unit contradicts itself, in fleet's words and its order: the first is what fleet would have said.

    `name` is the unit's own.
    """
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
            yield f"placement.{BEYOND[field]} is for the units of a template, such as web@1.service"
    if not wanted.global_:
        return
    fixed = Requirements()
    for field in ("max_per_machine", "avoids", "spread", "surge", "interruptible"):
        if getattr(wanted, field) != getattr(fixed, field):
            yield f"Global cannot be used with {BEYOND[field]}: such a unit runs on every machine that fits, and stays"
