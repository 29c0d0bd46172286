"""Patterns on unit names, for Conflicts and Replaces: Go's path.Match, without its way of failing in silence."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

META = frozenset("*?[\\")
"""Characters that make a pattern more than a plain name."""


@dataclass(frozen=True, slots=True)
class Glob:
    """A pattern that was understood."""

    pattern: str
    literal: str | None
    """The one name that it matches, when it is a plain name: such patterns can be looked up instead of tried."""
    _expression: re.Pattern[str]

    def matches(self, name: str) -> bool:
        """Whether the whole name fits."""
        return self._expression.fullmatch(name) is not None


@lru_cache(maxsize=16_384)
def compile_glob(pattern: str) -> Glob | None:
    """The pattern, ready for use; None for one that can't be understood (an open bracket, a backslash at the end).

    `*` and `?` do not cross `/`, `[a-z]` and `[^a-z]` are classes, a backslash takes the next character as it is.
    """
    expression = _translate(pattern)
    if expression is None:
        return None
    literal = pattern if not META & set(pattern) else None
    return Glob(pattern, literal, re.compile(expression, re.DOTALL))


def match_glob(pattern: str, name: str) -> bool:
    """Whether the pattern matches the whole name; one that can't be understood matches nothing."""
    glob = compile_glob(pattern)
    return glob is not None and glob.matches(name)


def _translate(pattern: str) -> str | None:
    """The pattern as a regular expression.

    What follows a star, up to the next, is sought once, at its first place, which is as good as any other. Without
    that (the atomic groups) a few dozen stars in somebody's Conflicts would keep the operator busy for ever.
    """
    pieces: list[list[str]] = [[]]
    at = 0
    while at < len(pattern):
        if pattern[at] == "*":
            pieces.append([])
            at += 1
            continue
        token, at = _take(pattern, at)
        if token is None:
            return None
        pieces[-1].append(token)
    head, *rest = ("".join(piece) for piece in pieces)
    if not rest:
        return head
    middle = "".join(f"(?>[^/]*?{piece})" for piece in rest[:-1] if piece)
    return f"{head}{middle}[^/]*{rest[-1]}"


def _take(pattern: str, at: int) -> tuple[str | None, int]:
    """What stands for one character of the name, and where the next begins; None for what can't be understood."""
    character = pattern[at]
    if character == "?":
        return "[^/]", at + 1
    if character == "[":
        return _take_class(pattern, at + 1)
    if character == "\\":
        at += 1
        if at == len(pattern):
            return None, at
    return re.escape(pattern[at]), at + 1


def _take_class(pattern: str, at: int) -> tuple[str | None, int]:
    negated = pattern[at : at + 1] == "^"
    at += negated
    ranges: list[str] = []
    while True:
        if pattern[at : at + 1] == "]" and ranges:
            break
        low, at = _take_bound(pattern, at)
        high = low
        if pattern[at : at + 1] == "-":
            high, at = _take_bound(pattern, at + 1)
        if low is None or high is None:
            return None, at
        if low <= high:
            ranges.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            # A range that runs backwards holds nothing; re would call it an error.
            ranges.append("")
    inner = "".join(ranges)
    if not inner:
        return ("." if negated else "(?!)"), at + 1
    return f"[{'^' if negated else ''}{inner}]", at + 1


def _take_bound(pattern: str, at: int) -> tuple[str | None, int]:
    """One end of a range in a class."""
    character = pattern[at : at + 1]
    if character in ("", "-", "]"):
        return None, at
    if character == "\\":
        at += 1
        character = pattern[at : at + 1]
        if not character:
            return None, at
    return character, at + 1
