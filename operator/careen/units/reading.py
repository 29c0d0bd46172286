"""A unit as a whole: is it one that can be, and where may it run? Asked by `careen unit verify` and the operator."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from careen.api.requirements import Requirements
from careen.units.file import UnitError, UnitFile, parse_unit
from careen.units.fleet import KNOWN, SECTION, Reading, expand_specifiers, read_section
from careen.units.names import UnitName, check_activation
from careen.units.wishes import FLEET, WIRE, dump_requirements, find_conflicts, make_metadata, pick_fleet

NAME_LISTS = ("machine_of", "conflicts", "replaces", "avoids")
"""Fields of Requirements that hold names or patterns."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said of a unit."""

    name: str
    file: UnitFile | None
    """The content; None for a name or a content that can't be."""
    requirements: Requirements
    """Where it may run; of no meaning while there are errors."""
    errors: tuple[str, ...]
    """Why it can't be taken, one sentence each; the first is the one that fleet would have answered with, if any."""
    warnings: tuple[str, ...] = ()
    """What people should look at; it is taken."""

    def dump(self) -> dict[str, Any]:
        """The document of `careen unit verify --json`."""
        return {
            "name": self.name,
            "hash": self.file.hash if self.file is not None else None,
            "requirements": dump_requirements(self.requirements) if self.file is not None else None,
            "errors": list(self.errors),
        }


def check_unit(
    name: str, text: str, placement: Mapping[str, Any] | None = None, desired_state: str = "inactive"
) -> Verdict:
    """Check a unit of this name with this content, Unit.spec.placement as a document, and desired state."""
    try:
        file = parse_unit(name, text)
    except UnitError as error:
        return Verdict(name, None, Requirements(), (str(error),))
    reading = read_requirements(file, placement)
    errors = list(reading.errors)
    if not file.options:
        errors.append("content must have options, such as ExecStart=, below a section, such as [Service]")
    if (fault := check_activation(file.name, desired_state)) is not None:
        errors.append(fault)
    return Verdict(name, file, reading.requirements, tuple(errors), reading.warnings)


def read_requirements(file: UnitFile, placement: Mapping[str, Any] | None = None) -> Reading:
    """What the unit asks for by [X-Fleet] and by Unit.spec.placement, a document with the names of the wire."""
    section = read_section(file)
    placement = placement or {}
    wanted = read_placement(placement, file.name)
    differences: tuple[str, ...] = ()
    if any(each.section == SECTION and each.name in KNOWN for each in file.options):
        if any(name in placement for name in FLEET.values()):
            differences = tuple(_find_differences(section.requirements, wanted))
        else:
            wanted = replace(wanted, **pick_fleet(section.requirements))
    errors = (*find_conflicts(wanted, file.name.full), *section.errors, *differences)
    return Reading(wanted, errors, section.warnings)


def read_placement(placement: Mapping[str, Any], name: UnitName) -> Requirements:
    """Unit.spec.placement as requirements, with the specifiers of [X-Fleet] replaced in its texts."""

    def expand(value: str) -> str:
        return expand_specifiers(value, name)

    found: dict[str, Any] = {}
    for field in fields(Requirements):
        value = placement.get(WIRE[field.name])
        if value is None:
            continue
        if field.name in NAME_LISTS:
            found[field.name] = tuple(sorted({expand(each) for each in value}))
        elif field.name == "machine_metadata":
            found[field.name] = make_metadata((expand(key), expand(each)) for key in value for each in value[key])
        else:
            found[field.name] = expand(value) if isinstance(value, str) else value
    return Requirements(**found)


def _find_differences(section: Requirements, placement: Requirements) -> Iterator[str]:
    """Requirements are said in one place, or alike in both: to join them would let one hide in the other."""
    in_section, in_placement = dump_requirements(section), dump_requirements(placement)
    for wire in FLEET.values():
        one, other = in_placement.get(wire), in_section.get(wire)
        if one != other:
            yield (
                f"placement.{wire} is {_show(one)} and [{SECTION}] says {_show(other)}: "
                "requirements must be in one place, or the same in both"
            )


def _show(value: Any) -> str:
    return "not given" if value is None else json.dumps(value, ensure_ascii=False)
