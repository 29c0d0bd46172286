"""The [X-Fleet] section: its options under all their names, how their values are parted, and the specifiers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from careen.api.requirements import Requirements
from careen.units.file import UnitFile
from careen.units.names import UnitName
from careen.units.quoting import quote
from careen.units.wishes import make_metadata

SECTION = "X-Fleet"
NAMES = {
    "MachineID": ("MachineID", "X-ConditionMachineID", "X-ConditionMachineBootID"),
    "MachineOf": ("X-ConditionMachineOf", "MachineOf"),
    "MachineMetadata": ("X-ConditionMachineMetadata", "MachineMetadata"),
    "Conflicts": ("X-Conflicts", "Conflicts"),
    "Replaces": ("Replaces",),
    "Global": ("Global",),
}
"""Each option with the names it is read under, in the order in which they count."""
KNOWN = frozenset(name for names in NAMES.values() for name in names)
"""Names of all options that mean something."""
TRUE = frozenset({"true", "yes", "1", "on", "t"})
FALSE = frozenset({"false", "no", "0", "off", "f", ""})


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read."""

    requirements: Requirements
    errors: tuple[str, ...] = ()
    """Why the unit is refused."""
    warnings: tuple[str, ...] = ()
    """What people should look at; the unit is taken."""


def read_section(file: UnitFile) -> Reading:
    """What [X-Fleet] asks for, with the specifiers replaced."""

    def values(option: str) -> list[str]:
        """The values that are not empty, over all names of the option."""
        found = [each for name in NAMES[option] for each in _read_values(file, name)]
        return [each for each in found if each]

    pairs = values("MachineMetadata")
    truth = "".join([*_read_values(file, "Global")][-1:])
    requirements = Requirements(
        machine_id=_pick_machine(file),
        machine_of=_sort(values("MachineOf")),
        machine_metadata=make_metadata((key, value) for key, _, value in map(_split_pair, pairs) if key and value),
        conflicts=_sort(word for value in values("Conflicts") for word in value.split()),
        replaces=_sort(values("Replaces")),
        global_=truth.lower() in TRUE,
    )
    return Reading(requirements, tuple(_find_bad_pairs(pairs)), tuple(_find_doubts(file, truth)))


def _sort(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(values)))


def _read_values(file: UnitFile, name: str) -> Iterator[str]:
    for value in file.values(SECTION, name):
        for each in split_value(value):
            yield expand_specifiers(each, file.name)


def _pick_machine(file: UnitFile) -> str | None:
    """The first value counts, and a modern name before an old one."""
    for name in NAMES["MachineID"]:
        for value in _read_values(file, name):
            return value
    return None


def split_value(value: str) -> list[str]:
    """The values in one value of [X-Fleet].

    Quoted from end to end, it is parted at the spaces that are outside of quotes, and the quotes go; two such spaces
    have an empty value between them. Not so quoted it is one value. A line break behind a backslash is a space.
    """
    if "\n" in value:
        value = " ".join(part.strip() for part in value.split("\\\n")).strip()
    if not (value.startswith('"') and value.endswith('"')):
        return [value]
    values = [""]
    quoted = False
    for character in value:
        if character == '"':
            quoted = not quoted
        elif character == " " and not quoted:
            values.append("")
        else:
            values[-1] += character
    return values


def expand_specifiers(value: str, name: UnitName) -> str:
    """The value with %n (full name), %N (without suffix), %p (prefix) and %i (instance) replaced, and no others."""
    for specifier, stands_for in (("%n", name.full), ("%N", name.stem), ("%p", name.prefix), ("%i", name.instance)):
        value = value.replace(specifier, stands_for)
    return value


def _split_pair(pair: str) -> tuple[str, str, str]:
    """Key, sign and value; all empty for what is no pair."""
    return pair.partition("=") if pair.count("=") == 1 else ("", "", "")


def _find_bad_pairs(pairs: list[str]) -> Iterator[str]:
    """Fleet dropped such pairs in silence, and the unit ran anywhere."""
    for pair in pairs:
        key, _, value = _split_pair(pair)
        if not (key and value):
            yield f"MachineMetadata {quote(pair)} must be key=value; several in one line are quoted each"


def _find_doubts(file: UnitFile, truth: str) -> Iterator[str]:
    for name in dict.fromkeys(each.name for each in file.options if each.section == SECTION):
        if name not in KNOWN:
            yield f"unrecognized requirement in [{SECTION}] section: {quote(name)}"
    if truth.lower() not in TRUE | FALSE:
        yield f"Global {quote(truth)} counts as false; words for true are {', '.join(sorted(TRUE))}"
