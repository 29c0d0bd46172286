"""[X-Fleet]: how values are parted, which names and how many values count, specifiers, and what is pointed out."""

from __future__ import annotations

import pytest

from careen.api.requirements import Requirements
from careen.units.file import parse_unit
from careen.units.fleet import Reading, expand_specifiers, read_section, split_value
from careen.units.names import split_name


def read(*lines: str, name: str = "web@7.service") -> Reading:
    return read_section(parse_unit(name, "\n".join(["[X-Fleet]", *lines])))


def wanted(*lines: str, name: str = "web@7.service") -> Requirements:
    reading = read(*lines, name=name)
    assert reading.errors == ()
    return reading.requirements


@pytest.mark.parametrize(
    ("value", "values"),
    [
        ('"a=b" "c=d"', ["a=b", "c=d"]),
        ('"a b" "c"', ["a b", "c"]),
        ('"a=b"  "c=d"', ["a=b", "", "c=d"]),
        ('"a=b"\t"c=d"', ["a=b\tc=d"]),
        ('"a""b"', ["ab"]),
        ('"', [""]),
        ('""', [""]),
        ("a=b c=d", ["a=b c=d"]),
        ("'a' 'b'", ["'a' 'b'"]),
        ('"a" b', ['"a" b']),
        ('"a\\" "b"', ["a\\", "b"]),
        ("", [""]),
        ('"a=b" \\\n   "c=d"', ["a=b", "c=d"]),
        ("a \\\n b\\\n", ["a b"]),
    ],
)
def test_values_are_parted_at_spaces_between_quotes_only(value: str, values: list[str]) -> None:
    assert split_value(value) == values


def test_only_values_of_this_section_are_parted() -> None:
    file = parse_unit("a.service", '[Unit]\nConflicts="a.service" "b.service"\nMachineOf=c.service\n')
    assert file.values("Unit", "Conflicts") == ('"a.service" "b.service"',)
    assert read_section(file).requirements == Requirements()


def test_values_of_one_key_are_alternatives_and_keys_add_up() -> None:
    found = wanted(
        'MachineMetadata="region=us" "disk=ssd"', "MachineMetadata=region=eu", "X-ConditionMachineMetadata=rack=1"
    )
    assert found.machine_metadata == (("disk", ("ssd",)), ("rack", ("1",)), ("region", ("eu", "us")))


def test_an_empty_value_between_two_spaces_is_harmless() -> None:
    assert wanted('MachineMetadata="a=b"  "c=d"').machine_metadata == (("a", ("b",)), ("c", ("d",)))


@pytest.mark.parametrize("pair", ["region=eu region=us", "a=b=c", "a", "=b", "a="])
def test_a_malformed_pair_is_refused_by_its_words_and_not_dropped(pair: str) -> None:
    reading = read(f"MachineMetadata={pair}", "MachineMetadata=good=1")
    assert reading.errors == (f'MachineMetadata "{pair}" must be key=value; several in one line are quoted each',)
    assert reading.requirements.machine_metadata == (("good", ("1",)),)


def test_conflicts_in_one_unquoted_value_all_count() -> None:
    found = wanted("Conflicts=b*.service  a.service\tc?.timer", 'Conflicts="d.service e.service" "f.service"')
    assert found.conflicts == ("a.service", "b*.service", "c?.timer", "d.service", "e.service", "f.service")


def test_replaces_are_not_parted_at_spaces() -> None:
    assert wanted('Replaces="a.service" "b*.service"', "Replaces=c d").replaces == ("a.service", "b*.service", "c d")


def test_all_peers_count() -> None:
    found = wanted("MachineOf=b.service", "MachineOf=a.service", "X-ConditionMachineOf=c.service")
    assert found.machine_of == ("a.service", "b.service", "c.service")


@pytest.mark.parametrize("word", ["true", "True", "YES", "yes", "1", "on", "t", "T"])
def test_words_for_global(word: str) -> None:
    assert wanted(f"Global={word}").global_


@pytest.mark.parametrize("word", ["false", "no", "0", "off", "f", "", "maybe", "2"])
def test_other_words_are_not(word: str) -> None:
    assert not wanted(f"Global={word}").global_


def test_the_last_global_wins() -> None:
    assert not wanted("Global=true", "Global=false").global_
    assert not wanted("Global=true", "Global=").global_
    assert wanted("Global=false", 'Global="no" "yes"').global_


def test_the_first_machine_id_wins_and_a_modern_name_over_an_old_one() -> None:
    assert wanted("MachineID=one", "MachineID=two").machine_id == "one"
    assert wanted("X-ConditionMachineID=old", "MachineID=new").machine_id == "new"
    assert wanted("X-ConditionMachineBootID=older", "X-ConditionMachineID=old").machine_id == "old"
    assert wanted("X-ConditionMachineBootID=older").machine_id == "older"


def test_old_names_are_honoured() -> None:
    found = wanted(
        "X-ConditionMachineID=m",
        "X-ConditionMachineOf=p.service",
        "X-ConditionMachineMetadata=a=b",
        "X-Conflicts=c*.service d.service",
    )
    assert found == Requirements(
        machine_id="m",
        machine_of=("p.service",),
        machine_metadata=(("a", ("b",)),),
        conflicts=("c*.service", "d.service"),
    )


@pytest.mark.parametrize("name", ["X-Replaces", "X-ConditionReplaces", "X-Global", "X-ConditionConflicts", "machineid"])
def test_other_names_are_not_old_names(name: str) -> None:
    reading = read(f"{name}=true")
    assert reading.requirements == Requirements()
    assert reading.warnings == (f'unrecognized requirement in [X-Fleet] section: "{name}"',)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("%n", "web@7.service"),
        ("%N", "web@7"),
        ("%p", "web"),
        ("%i", "7"),
        ("db@%i.service", "db@7.service"),
        ("%p-%i-%i.service", "web-7-7.service"),
        ("%H %m %% %I", "%H %m %% %I"),
        ("%%i", "%7"),
        ("%", "%"),
    ],
)
def test_specifiers(value: str, expected: str) -> None:
    assert expand_specifiers(value, split_name("web@7.service")) == expected


def test_specifiers_are_replaced_in_all_values() -> None:
    found = wanted("MachineOf=db@%i.service", "Conflicts=%p@*.service", 'MachineMetadata="zone=%i"')
    assert found.machine_of == ("db@7.service",)
    assert found.conflicts == ("web@*.service",)
    assert found.machine_metadata == (("zone", ("7",)),)


def test_an_unknown_key_is_taken_and_pointed_out_once() -> None:
    reading = read("Colour=red", "Colour=blue", "Conflicts=a.service")
    assert reading.errors == ()
    assert reading.warnings == ('unrecognized requirement in [X-Fleet] section: "Colour"',)
    assert reading.requirements.conflicts == ("a.service",)


def test_a_word_that_only_seems_to_say_something_is_pointed_out() -> None:
    assert read("Global=maybe").warnings == ('Global "maybe" counts as false; words for true are 1, on, t, true, yes',)
    assert read("Global=no").warnings == ()
