"""Order of version strings: the UAPI.10 version format, as `systemd-analyze compare-versions` has it."""

from __future__ import annotations

import re

VERSION_PATTERN = r"^[0-9A-Za-z]+([.+_~^-][0-9A-Za-z]+)*$"
"""Versions that a release may have. Two separators never meet, since the format leaves their order to the reader."""
MAX_VERSION_CHARACTERS = 128

_TOKEN = re.compile(r"[0-9]+|[A-Za-z]+|[~^.-]")
_PRE, _END, _REVISION, _PATCH, _POINT, _LETTERS, _DIGITS = range(7)
_SEPARATORS = {"~": _PRE, "-": _REVISION, "^": _PATCH, ".": _POINT}

VersionKey = tuple[tuple[int, int, str], ...]


def version_key(version: str) -> VersionKey:
    """Key for sorting versions, oldest first. Characters outside of the format only separate, as the format says.

    `~` sorts before the end (2~rc1 before 2), all else after it (2 before 2-1 before 2^1 before 2.1), digits after
    letters and by value, letters by ASCII.
    """
    return (*(_rank_token(token) for token in _TOKEN.findall(version)), (_END, 0, ""))


def compare_versions(left: str, right: str) -> int:
    """-1 if `left` is older than `right`, 0 if neither is, 1 if `left` is newer."""
    first, second = version_key(left), version_key(right)
    return (first > second) - (first < second)


def _rank_token(token: str) -> tuple[int, int, str]:
    if token in _SEPARATORS:
        return _SEPARATORS[token], 0, ""
    # Digits by length and text, not as a number: int() refuses thousands of digits, and this text comes from outside.
    digits = token.lstrip("0")
    return (_DIGITS, len(digits), digits) if token[0].isdigit() else (_LETTERS, 0, token)
