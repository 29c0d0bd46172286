"""Patterns on names: what Go's path.Match says, and never a long wait."""

from __future__ import annotations

import pytest

from careen.units.globs import compile_glob, match_glob


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("web.service", "web.service", True),
        ("web.service", "webxservice", False),
        ("web", "web.service", False),
        ("*", "web.service", True),
        ("*.service", "web.service", True),
        ("web@*.service", "web@1.service", True),
        ("web@*.service", "web@.service", True),
        ("web@*.service", "db@1.service", False),
        ("*a*b*", "xxaxxbxx", True),
        ("*a*b", "abab", True),
        ("*ab", "aab", True),
        ("a*a", "a", False),
        ("**", "", True),
        ("*", "a/b", False),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("a?c", "a/c", False),
        ("?", "é", True),
        ("[abc]", "b", True),
        ("[a-c]x", "bx", True),
        ("[a-c]", "d", False),
        ("[^a-c]", "d", True),
        ("[^a-c]", "b", False),
        ("[!a]", "!", True),
        ("[\\]]", "]", True),
        ("[\\-a]", "-", True),
        ("[c-a]", "b", False),
        ("[^c-a]", "b", True),
        ("\\*", "*", True),
        ("\\*", "a", False),
        ("a\\b", "ab", True),
        ("a.c", "abc", False),
        ("(a|b)+", "a", False),
        ("web\n", "web", False),
        ("web", "web\n", False),
    ],
)
def test_patterns(pattern: str, name: str, matches: bool) -> None:
    assert match_glob(pattern, name) is matches


@pytest.mark.parametrize("pattern", ["[", "[a", "[]", "[]a]", "[-a]", "[a-]", "[a-", "[^]", "a\\", "[\\", "*["])
def test_what_cant_be_understood_matches_nothing(pattern: str) -> None:
    assert compile_glob(pattern) is None
    for name in ("", "a", "-", "]", "[", pattern):
        assert not match_glob(pattern, name)


def test_a_plain_name_can_be_looked_up() -> None:
    for pattern, literal in (
        ("web.service", "web.service"),
        ("web*", None),
        ("a?", None),
        ("[a]", None),
        ("\\a", None),
    ):
        glob = compile_glob(pattern)
        assert glob is not None
        assert glob.literal == literal


@pytest.mark.timeout(100)
def test_many_stars_keep_nobody_waiting() -> None:
    assert not match_glob("*a" * 100 + "b", "a" * 250)
    assert match_glob("*a" * 100, "a" * 250)
