"""Patterns on unit names as fleet has them: Go's path.Match, in which a bad pattern never matches.

`*` and `?` do not cross `/`, `[a-z]` and `[^a-z]` are classes, a backslash takes the next character as it is.
"""

import re
from functools import lru_cache

_WILD = re.compile(r"[*?\[\\]")
_NEVER = re.compile(r"(?!)")


@lru_cache(maxsize=65536)
def compile_glob(pattern: str) -> re.Pattern[str]:
    """The pattern as a regular expression for fullmatch; one that never matches for a bad pattern."""
    expression = _translate(pattern)
    return _NEVER if expression is None else re.compile(expression, re.DOTALL)


def matches_glob(pattern: str, name: str) -> bool:
    """Whether the whole name matches."""
    return compile_glob(pattern).fullmatch(name) is not None


def is_bad_glob(pattern: str) -> bool:
    """Whether the pattern can't be understood: a bracket is left open or is empty, or a backslash ends it."""
    return _translate(pattern) is None


def is_literal(pattern: str) -> bool:
    """Whether the pattern has nothing special in it, and so matches only itself."""
    return _WILD.search(pattern) is None


def literal_prefix(pattern: str) -> str:
    """What every name that matches begins with."""
    found = _WILD.search(pattern)
    return pattern if found is None else pattern[: found.start()]


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
