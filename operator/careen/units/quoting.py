"""How errors quote what they speak of: as Go's %q does, so that old clients and scripts find the words they know."""

from __future__ import annotations

ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\\": "\\\\"}


def quote(text: str) -> str:
    """The text in double quotes."""
    return f'"{_escape(text, chr(34))}"'


def quote_character(character: str) -> str:
    """One character in single quotes."""
    return f"'{_escape(character, chr(39))}'"


def _escape(text: str, mark: str) -> str:
    return "".join(_escape_one(character, mark) for character in text)


def _escape_one(character: str, mark: str) -> str:
    if character in ESCAPES:
        return ESCAPES[character]
    if character == mark:
        return f"\\{mark}"
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
