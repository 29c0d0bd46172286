"""Which requirements can't stand together, in fleet's words; one model behind the unit file and spec.placement."""

from __future__ import annotations

import time
from typing import Any

import pytest

from careen.api.requirements import Requirements
from careen.units.reading import Verdict, check_unit

SERVICE = "[Service]\nExecStart=/bin/true\n"
EVERYTHING = (
    "MachineMetadata=region=eu",
    "MachineOf=db@%i.service",
    'Conflicts="b.service" "a*.service"',
)
IN_ONE_PLACE = "requirements must be in one place, or the same in both"
SAME: dict[str, Any] = {
    "machineMetadata": {"region": ["eu"]},
    "machineOf": ["db@7.service"],
    "conflicts": ["a*.service", "b.service"],
}


def check(*lines: str, name: str = "web@7.service", **placement: Any) -> Verdict:
    text = "\n".join([SERVICE, "[X-Fleet]", *lines])
    return check_unit(name, text, placement or None)


def errors(*lines: str, name: str = "web@7.service", **placement: Any) -> tuple[str, ...]:
    return check(*lines, name=name, **placement).errors


PAIRS = [
    (("MachineID=m", "MachineOf=a.service"), "MachineID cannot be used with Peers"),
    (("MachineID=m", "Conflicts=a.service"), "MachineID cannot be used with Conflicts"),
    (("MachineID=m", "Global=true"), "MachineID cannot be used with Global"),
    (("MachineID=m", "Replaces=a.service"), "MachineID cannot be used with Replaces"),
    (("Global=true", "MachineOf=a.service"), "Global cannot be used with Peers"),
    (("Global=true", "Replaces=a.service"), "Global cannot be used with Replaces"),
    (("Conflicts=a.service", "Replaces=b.service"), "Conflicts cannot be used with Replaces"),
    (
        ("MachineOf=db@1.service", "Conflicts=db@*.service"),
        'unresolvable requirements: peer "db@1.service" matches conflict "db@*.service"',
    ),
    (
        ("MachineOf=db@1.service", "Replaces=db@[0-9].service"),
        'unresolvable requirements: peer "db@1.service" matches replace "db@[0-9].service"',
    ),
]


@pytest.mark.parametrize(("lines", "words"), PAIRS)
def test_what_cant_stand_together_is_refused_with_these_words(lines: tuple[str, ...], words: str) -> None:
    assert errors(*lines) == (words,)


def test_the_first_error_is_the_one_that_fleet_found_first() -> None:
    found = errors("MachineOf=a.service", "Conflicts=a*", "Global=1", "MachineID=m")
    assert found == (
        'unresolvable requirements: peer "a.service" matches conflict "a*"',
        "MachineID cannot be used with Peers",
        "MachineID cannot be used with Conflicts",
        "MachineID cannot be used with Global",
        "Global cannot be used with Peers",
    )


@pytest.mark.parametrize(
    "lines",
    [
        ("Global=true", "Conflicts=a.service", "MachineMetadata=a=b"),
        ("MachineOf=a.service", "Conflicts=b.service", "MachineMetadata=a=b"),
        ("MachineID=m", "MachineMetadata=a=b"),
        ("MachineOf=a.service", "Replaces=b.service"),
    ],
)
def test_what_can_is_taken(lines: tuple[str, ...]) -> None:
    assert errors(*lines) == ()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('MachineID=""', "MachineID must not be empty"),
        (
            "MachineOf=a.service b.service",
            "MachineOf \"a.service b.service\" must be the name of one unit: invalid character ' ' in unit name",
        ),
        ("MachineOf=%n", 'MachineOf "web@7.service" must be another unit, not the unit itself'),
        (
            "Replaces=a.service b.service",
            'Replaces "a.service b.service" must be one name or pattern; several in one line are quoted each',
        ),
        (
            "Conflicts=web[.service",
            'Conflicts "web[.service" must be a name or a pattern: a bracket or a backslash is left open',
        ),
    ],
)
def test_what_could_never_be_met_is_refused(line: str, words: str) -> None:
    assert errors(line) == (words,)


def test_what_is_tried_on_every_unit_is_limited() -> None:
    assert errors("Conflicts=" + " ".join(f"a{each}.service" for each in range(64))) == ()
    assert errors("Conflicts=" + " ".join(f"a{each}.service" for each in range(65))) == (
        "conflicts must have at most 64 entries, not 65",
    )
    assert errors(*(f"MachineOf=a{each}.service" for each in range(65)), "Conflicts=a*") == (
        "machineOf must have at most 64 entries, not 65",
    )
    assert errors(*(f"MachineMetadata=a{each}=b" for each in range(65))) == (
        "machineMetadata must have at most 64 entries, not 65",
    )
    assert errors(*(f"MachineMetadata=a=b{each}" for each in range(65))) == (
        'machineMetadata "a" must have at most 64 values, not 65',
    )


def test_a_pattern_that_specifiers_make_long_is_refused_before_it_is_made_ready() -> None:
    line = "Conflicts=" + "%n" * 900
    began = time.process_time()
    found = check_unit("a" * 200 + ".service", f"[Service]\nExecStart=/bin/a\n[X-Fleet]\n{line}\n").errors
    assert time.process_time() - began < 0.1, "the operator does nothing else meanwhile"
    told = "a" * 40 + "..."
    assert found == (f'conflicts "{told}" must have at most 1024 characters, not {208 * 900}',)


def test_placement_and_section_are_one_model() -> None:
    assert errors(*EVERYTHING) == ()
    assert check(*EVERYTHING).requirements == check(**SAME).requirements
    assert check(*EVERYTHING).requirements == Requirements(
        machine_of=("db@7.service",), machine_metadata=(("region", ("eu",)),), conflicts=("a*.service", "b.service")
    )
    for lines, placement in (
        ("MachineID=m", {"machineID": "m"}),
        ("Global=yes", {"global": True}),
        ("Replaces=%p.service", {"replaces": ["web.service"]}),
    ):
        assert check(lines).requirements == check(**placement).requirements != Requirements()


def test_specifiers_count_in_placement_too() -> None:
    placement = {"machineOf": ["db@%i.service"], "machineMetadata": {"zone": ["%i"]}, "avoids": ["%p@*.service"]}
    found = check(**placement).requirements
    assert found == Requirements(
        machine_of=("db@7.service",), machine_metadata=(("zone", ("7",)),), avoids=("web@*.service",)
    )


def test_the_same_in_both_is_taken() -> None:
    assert errors(*EVERYTHING, **SAME) == ()
    assert check(*EVERYTHING, **SAME).requirements == check(*EVERYTHING).requirements


def test_different_in_both_is_refused() -> None:
    assert errors("Conflicts=a.service", conflicts=["b.service"]) == (
        'placement.conflicts is ["b.service"] and [X-Fleet] says ["a.service"]: ' + IN_ONE_PLACE,
    )
    found = errors("Conflicts=a.service", machineMetadata={"a": ["b"]})
    assert [each.partition(" and ")[0] for each in found] == [
        'placement.machineMetadata is {"a": ["b"]}',
        "placement.conflicts is not given",
    ]
    assert len(errors("Global=true", **{"global": False})) == 1


def test_what_the_section_cant_say_goes_beside_it() -> None:
    found = check("Conflicts=a.service", weight=3, surge=True, interruptible=True, avoids=["b.service"])
    assert found.errors == ()
    assert found.requirements == Requirements(
        conflicts=("a.service",), weight=3, surge=True, interruptible=True, avoids=("b.service",)
    )


def test_what_counts_units_of_a_template_is_refused_elsewhere() -> None:
    assert errors(maxPerMachine=2, spread="zone") == ()
    for name, value in (("maxPerMachine", 2), ("spread", "zone")):
        assert errors(name="web.service", **{name: value}) == (
            f"placement.{name} must be of a unit of a template, such as web@1.service",
        )


def test_a_global_unit_has_no_choice_of_place() -> None:
    for name, value in (("surge", True), ("maxPerMachine", 1), ("avoids", ["a.service"]), ("spread", "zone")):
        assert errors("Global=true", **{name: value}) == (
            f"Global cannot be used with {name}: such a unit runs on every machine that fits, and stays",
        )


def test_pairs_in_placement_are_refused_alike() -> None:
    assert errors(machineID="m", conflicts=["a.service"]) == ("MachineID cannot be used with Conflicts",)


@pytest.mark.parametrize("text", ["", "ExecStart=/bin/true", "[Service]\n"])
def test_a_unit_without_options_is_refused(text: str) -> None:
    assert check_unit("a.service", text).errors == (
        "content must have options, such as ExecStart=, below a section, such as [Service]",
    )


def test_a_template_is_taken_and_not_started() -> None:
    assert check_unit("a@.service", SERVICE).errors == ()
    assert check_unit("a@.service", SERVICE, desired_state="launched").errors == (
        'cannot activate template "a@.service"',
    )


def test_what_cant_be_parsed_has_one_error_and_no_requirements() -> None:
    verdict = check_unit("a.service", "[X-Fleet")
    assert verdict.dump() == {
        "name": "a.service", "hash": None, "requirements": None, "errors": ["unable to find end of section"],
    }  # fmt: skip
