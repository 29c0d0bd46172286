"""The text of unit files: what is parsed, what is refused with which words, the canonical text and its hash."""

from __future__ import annotations

import pytest

from careen.units.file import MOST_BYTES, UnitError, parse_options, parse_unit, unit_hash, write_options

SAMPLE = "[Service]\nExecStart=/bin/sleep 1\n"
SAMPLE_HASH = "0291f12e379921025c603e454c0fe989ddb0f3dd"


def canonical(text: str) -> str:
    return write_options(parse_options(text))


def options(text: str) -> list[tuple[str, str, str]]:
    return [(each.section, each.name, each.value) for each in parse_options(text)]


def test_the_sample_has_fleets_hash() -> None:
    assert unit_hash(SAMPLE) == SAMPLE_HASH
    assert parse_unit("sleep.service", SAMPLE).hash == SAMPLE_HASH


@pytest.mark.parametrize(
    "text",
    [
        "# first\n; second\n" + SAMPLE,
        "[Service]\n# between\n  ; indented\nExecStart=/bin/sleep 1\n# last",
        "# ends in a backslash \\\n[Service]\n# and \\\nExecStart=/bin/sleep 1\n",
    ],
)
def test_comments_do_not_change_the_hash(text: str) -> None:
    assert unit_hash(text) == SAMPLE_HASH


@pytest.mark.parametrize(
    "text",
    [
        "[Service]\r\nExecStart=/bin/sleep 1\r\n",
        "[Service]\rExecStart=/bin/sleep 1\r",
        "\n\n[Service]  \n\n\n   ExecStart  =  /bin/sleep 1   ",
        "words before the first section\n" + SAMPLE,
        "words [Service]\nExecStart=/bin/sleep 1",
    ],
)
def test_line_ends_and_blanks_do_not_change_the_hash(text: str) -> None:
    assert unit_hash(text) == SAMPLE_HASH


def test_another_value_is_another_hash() -> None:
    assert unit_hash("[Service]\nExecStart=/bin/sleep 2\n") != SAMPLE_HASH
    assert unit_hash("[Unit]\nExecStart=/bin/sleep 1\n") != SAMPLE_HASH


def test_sections_that_come_twice_are_merged_at_their_first_place() -> None:
    text = "[Unit]\nA=1\n\n\n[Service]\nB=2\n[Unit]\nA=3\n"
    assert canonical(text) == "[Unit]\nA=1\nA=3\n\n[Service]\nB=2\n"


@pytest.mark.parametrize(
    "text",
    ["", "no section at all", "[Unit]\n", "# [Unit]\n; A=1", "before # [Unit]", "# [Unit]\nA=1", "x ; [Unit]\nA=1"],
)
def test_a_text_without_options_is_an_empty_unit(text: str) -> None:
    assert options(text) == []
    assert canonical(text) == ""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=b=c", "b=c"),
        ("A=", ""),
        ("A=   \nB", None),
        ("A=one \\\n  two", "one \\\n  two"),
        ("A=one \\\n# no comment\nB=2", "one \\\n# no comment"),
        ("A=one\\\n\nB=2", "one\\\n"),
        ("A=one\\", "one\\\n"),
        ("A=back\\slash", "back\\slash"),
        ("A=\u00a0x\u3000", "x"),
        ("A=\x1cx", "\x1cx"),
    ],
)
def test_values(text: str, value: str | None) -> None:
    if value is None:
        with pytest.raises(UnitError):
            parse_options(f"[S]\n{text}")
        return
    assert options(f"[S]\n{text}")[0] == ("S", "A", value)


def test_a_blank_line_ends_a_continuation_in_the_canonical_text_too() -> None:
    text = canonical("[S]\nA=one\\\n\nB=2")
    assert text == "[S]\nA=one\\\n\nB=2\n"
    assert options(text) == [("S", "A", "one\\\n"), ("S", "B", "2")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[Unit", "unable to find end of section"),
        ("[Un\nit]\nA=1", "unable to find end of section"),
        ("[Unit] x\n", 'found garbage after section name Unit: "x"'),
        ("[Unit]]\nA=1", 'found garbage after section name Unit: "]"'),
        ("[Unit]\nnothing\nA=1", "unexpected newline encountered while parsing option name"),
        ("[Unit]\nnothing", "unexpected newline encountered while parsing option name"),
        ("[Unit]\nA=" + "x" * 2100, "line too long (max 2048 bytes)"),
        ("[Unit]\n#" + "x" * 2100, "line too long (max 2048 bytes)"),
        ("[Unit]\nA=" + "é" * 1023 + "\n", "line too long (max 2048 bytes)"),
        ("[Unit]\nA=b\\ \nC=d", 'blank after the backslash at the end of a line of "A"'),
        ("[Unit]\nA=b\0c", "content must be text: character 11 is NUL"),
        ("[Unit]\nA=\ud800", "content must be text: character 10 is half of a pair"),
    ],
)
def test_what_is_no_unit_file_is_refused_with_these_words(text: str, words: str) -> None:
    with pytest.raises(UnitError) as caught:
        parse_options(text)
    assert str(caught.value) == words


def test_a_line_may_have_2047_bytes_and_a_value_more_on_several_lines() -> None:
    assert options("[S]\nA=" + "x" * 2045)[0][2] == "x" * 2045
    value = options("[S]\nA=" + "x" * 1500 + "\\\n" + "y" * 1500)[0][2]
    assert len(value) == 3002


def test_the_size_of_a_file_is_limited_in_bytes() -> None:
    line = "A=" + "é" * 500 + "\n"
    text = "[S]\n" + line * (MOST_BYTES // len(line.encode()))
    assert options(text)
    with pytest.raises(UnitError, match="content must have at most 65536 bytes, not "):
        parse_options(text + line)


def test_the_description_is_the_first_of_its_section() -> None:
    text = "[Service]\nDescription=no\n[Unit]\nDescription=one\nDescription=two\n"
    assert parse_unit("a.service", text).description == "one"
    assert parse_unit("a.service", SAMPLE).description == ""


def test_a_bad_name_is_told_before_a_bad_text() -> None:
    with pytest.raises(UnitError, match="unit name cannot be empty"):
        parse_unit("", "[")
