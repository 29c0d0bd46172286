"""Unit files of any shape: the canonical text stands, and so does the hash; whatever is read can be written."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from careen.units.file import Option, UnitError, hash_text, parse_options, unit_hash, write_options
from careen.units.fleet import split_value
from careen.units.globs import match_glob
from careen.units.names import CHARACTERS, SUFFIXES, check_name, split_name
from careen.units.reading import check_unit

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no fault of the code."""
PIECES = st.sampled_from(
    ["[Unit]", "[X-Fleet]", "[", "]", "\n", "\r\n", "\r", "\\\n", "\\ \n", "\\", "=", " ", "\t", "#", ";", "a", "b=c",
     "ExecStart=/bin/x", "Conflicts=", "MachineMetadata=", "MachineOf=", "Global=yes", '"', "%i", "\x85", "é", "\x0b"]
)  # fmt: skip
TEXTS = st.one_of(st.lists(PIECES, max_size=40).map("".join), st.text(max_size=80))
WORDS = st.text('abc=#;[]\\" é', max_size=8).map(lambda text: text.strip(" \\"))
OPTIONS = st.lists(
    st.tuples(st.sampled_from(["Unit", "Service", "X-Fleet"]), st.sampled_from("ABC"), WORDS), max_size=12
)


@PATIENT
@given(TEXTS)
def test_the_canonical_text_is_its_own_canonical_text(text: str) -> None:
    try:
        canonical = write_options(parse_options(text))
    except UnitError:
        return
    assert write_options(parse_options(canonical)) == canonical
    assert unit_hash(text) == unit_hash(canonical) == hash_text(canonical)


@PATIENT
@given(OPTIONS)
def test_what_is_written_is_read_again(options: list[tuple[str, str, str]]) -> None:
    written = tuple(Option(*each) for each in options)
    read = parse_options(write_options(written))
    for section in ("Unit", "Service", "X-Fleet"):
        assert [each for each in read if each.section == section] == [
            each for each in written if each.section == section
        ]


@PATIENT
@given(OPTIONS, st.sampled_from(["# note\n", "; note\n", "\n", "   \n"]))
def test_comments_and_blank_lines_anywhere_do_not_change_the_hash(
    options: list[tuple[str, str, str]], filler: str
) -> None:
    canonical = write_options(tuple(Option(*each) for each in options))
    noisy = "".join(filler + line for line in canonical.splitlines(keepends=True)) + filler
    assert unit_hash(noisy) == unit_hash(canonical)


@PATIENT
@given(TEXTS)
def test_any_text_gets_a_verdict(text: str) -> None:
    verdict = check_unit("web@1.service", text)
    assert (verdict.file is None) <= bool(verdict.errors)
    assert verdict == check_unit("web@1.service", text)


@PATIENT
@given(st.text(max_size=300))
def test_any_name_gets_an_answer_and_its_parts_make_it_up(name: str) -> None:
    if check_name(name) is not None:
        return
    parts = split_name(name)
    at = "@" if parts.template is not None else ""
    assert f"{parts.prefix}{at}{parts.instance}.{parts.suffix}" == name
    assert set(parts.stem) <= CHARACTERS
    assert parts.suffix in SUFFIXES


@PATIENT
@given(st.lists(st.text("ab %", max_size=4), min_size=1, max_size=6))
def test_quoted_values_come_back_as_they_were(values: list[str]) -> None:
    assert split_value(" ".join(f'"{value}"' for value in values)) == values


@PATIENT
@given(st.text("ab*?/", max_size=10), st.text("ab/", max_size=10))
def test_patterns_match_as_a_search_of_all_ways_does(pattern: str, name: str) -> None:
    assert match_glob(pattern, name) == _match(pattern, name)


def _match(pattern: str, name: str) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "*":
        return _match(pattern[1:], name) or (name[:1] not in ("", "/") and _match(pattern, name[1:]))
    fits = name[:1] == pattern[0] if pattern[0] != "?" else name[:1] not in ("", "/")
    return fits and _match(pattern[1:], name[1:])
