"""Unit files: parser, canonical text and hash, as fleet has them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from careen.units.names import UnitName, check_name, split_name
from careen.units.quoting import quote

MOST_BYTES = 65_536
"""Bytes that a unit file may have: Unit.spec.content holds no more."""
LINE_BYTES = 2048
"""Bytes at which a line is too long for systemd."""
SHORT_HASH = 7
"""Digits of a hash that people are shown."""
COMMENTS = ("#", ";")
SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"  # noqa: E501
"""What is trimmed: Go's white space. Python's own holds four characters more, and a hash must not depend on that."""


class UnitError(ValueError):
    """Why a text can't be a unit file, or a name not a unit's, as one sentence."""


@dataclass(frozen=True, slots=True)
class Option:
    """One line of a unit file; with backslashes at the ends of lines it may be several."""

    section: str
    name: str
    value: str
    """Trimmed; backslashes before line breaks, and the line breaks, are kept."""


@dataclass(frozen=True, slots=True)
class UnitFile:
    """A unit: its name, and its options in their order, repeats included."""

    name: UnitName
    options: tuple[Option, ...]

    @property
    def canonical(self) -> str:
        """The text that is hashed and written to disks: no comments, one section of each name."""
        return write_options(self.options)

    @property
    def hash(self) -> str:
        """SHA-1 of the canonical text, 40 lower-case hex digits: fleet's identity of a content."""
        return hash_text(self.canonical)

    @property
    def description(self) -> str:
        """The first Description of [Unit], or nothing."""
        return next(iter(self.values("Unit", "Description")), "")

    def values(self, section: str, name: str) -> tuple[str, ...]:
        """The values of all options of this name in this section, in their order."""
        return tuple(each.value for each in self.options if (each.section, each.name) == (section, name))


def parse_unit(name: str, text: str) -> UnitFile:
    """The unit of this name with this content. UnitError for a name or a text that can't be."""
    if (fault := check_name(name)) is not None:
        raise UnitError(fault)
    return UnitFile(split_name(name), parse_options(text))


def parse_options(text: str) -> tuple[Option, ...]:
    """The options of a unit file. UnitError, in fleet's words, for a text that is none."""
    return tuple(_Reader(_split_lines(text)).read())


def write_options(options: tuple[Option, ...]) -> str:
    """The canonical text: sections in the order in which they first come, each with all its options."""
    sections: dict[str, list[str]] = {}
    for each in options:
        sections.setdefault(each.section, []).append(f"{each.name}={each.value}\n")
    return "\n".join(f"[{name}]\n{''.join(lines)}" for name, lines in sections.items())


def unit_hash(text: str) -> str:
    """Hash of the canonical text of a unit file. UnitError for a text that is none."""
    return hash_text(write_options(parse_options(text)))


def hash_text(canonical: str) -> str:
    """SHA-1 of a text that is canonical already."""
    return hashlib.sha1(canonical.encode(), usedforsecurity=False).hexdigest()


def _split_lines(text: str) -> list[str]:
    """The lines, whatever they end in.

    systemd ends a line at a carriage return and at NUL too: an option behind one must not be hidden from us.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise UnitError(f"content must be text: character {error.start + 1} is half of a pair") from None
    if size > MOST_BYTES:
        raise UnitError(f"content must have at most {MOST_BYTES} bytes, not {size}")
    if "\0" in text:
        raise UnitError(f"content must be text: character {text.index(chr(0)) + 1} is NUL")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if any(len(line.encode()) >= LINE_BYTES for line in lines):
        raise UnitError(f"line too long (max {LINE_BYTES} bytes)")
    return lines


class _Reader:
    """Reads lines from the first to the last."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._next = 0

    def read(self) -> Iterator[Option]:
        section: str | None = None
        while self._next < len(self._lines):
            line = self._take()
            if section is None:
                line = _skip_to_section(line)
            line = line.lstrip(SPACE)
            if not line or line.startswith(COMMENTS):
                continue
            if line.startswith("["):
                section = _read_section(line)
            elif section is not None:
                yield self._read_option(section, line)

    def _take(self) -> str:
        self._next += 1
        return self._lines[self._next - 1]

    def _read_option(self, section: str, line: str) -> Option:
        name, equals, value = line.partition("=")
        if not equals:
            raise UnitError("unexpected newline encountered while parsing option name")
        name = name.strip(SPACE)
        return Option(section, name, self._read_value(name, value))

    def _read_value(self, name: str, line: str) -> str:
        parts: list[str] = []
        while line.strip(SPACE):
            parts.append(line)
            if not line.endswith("\\"):
                return _trim("\n".join(parts), name)
            line = self._take() if self._next < len(self._lines) else ""
        if not parts:
            return ""
        # The blank line that ends a continuation is kept, or the canonical text would take in the option behind it.
        return "\n".join(parts).strip(SPACE) + "\n"


def _trim(value: str, name: str) -> str:
    value = value.strip(SPACE)
    if value.endswith("\\"):
        # Trimmed, the backslash would join the next line to this one: fleet lost options in this way.
        raise UnitError(f"blank after the backslash at the end of a line of {quote(name)}")
    return value


def _skip_to_section(line: str) -> str:
    """What a line before the first section says: text there is not read, but a section may begin in it."""
    for at, character in enumerate(line):
        if character == "[":
            return line[at:]
        if character in COMMENTS:
            break
    return ""


def _read_section(line: str) -> str:
    name, bracket, rest = line[1:].partition("]")
    if not bracket:
        raise UnitError("unable to find end of section")
    if garbage := rest.strip(SPACE):
        raise UnitError(f"found garbage after section name {name}: {quote(garbage)}")
    return name
