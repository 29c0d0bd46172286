"""Names of units: their parts, and which ones systemd and fleet take."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256

from careen.units.quoting import quote, quote_character

MOST_BYTES = 256
"""Bytes that a name may have."""
SUFFIXES = (
    "automount", "busname", "device", "mount", "path", "scope", "service", "slice", "snapshot", "socket", "swap",
    "target", "timer",
)  # fmt: skip
"""Types of units."""
TEMPLATE_SUFFIXES = ("path", "service", "socket", "target", "timer")
"""Types that may be templates, and instances of them."""
CHARACTERS = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ:-_.\\@")
"""Characters of a name before its suffix."""
_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_OBJECT_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_MOST_OBJECT_NAME = 253
_MOST_READABLE = 200


@dataclass(frozen=True, slots=True)
class UnitName:
    """The parts of a unit's name."""

    full: str
    """The name: foo@bar.service."""
    stem: str
    """The name without its suffix: foo@bar."""
    prefix: str
    """What stands before the first @, or the stem: foo."""
    instance: str
    """What stands behind the first @: bar. Empty for a template, and for a name without @."""
    suffix: str
    """The type, without its dot: service."""
    template: str | None
    """Name of the template that this is, or is an instance of: foo@.service. None: neither."""

    @property
    def is_template(self) -> bool:
        """Whether this is a template: it can be kept, but not started."""
        return self.full == self.template

    @property
    def is_instance(self) -> bool:
        """Whether this is an instance of a template."""
        return self.template is not None and not self.is_template


def split_name(name: str) -> UnitName:
    """The parts of a name that `check_name` finds no fault with; it parts others as well as it can."""
    stem, _, suffix = name.rpartition(".")
    prefix, at, instance = stem.partition("@")
    return UnitName(name, stem, prefix, instance, suffix, f"{prefix}@.{suffix}" if at else None)


def check_name(name: str) -> str | None:
    """Why a unit can't have this name, in fleet's words; None if it can."""
    if not name:
        return "unit name cannot be empty"
    if len(name.encode(errors="surrogatepass")) > MOST_BYTES:
        return f"unit name exceeds maximum length ({MOST_BYTES})"
    stem, dot, suffix = name.rpartition(".")
    if not dot:
        return 'unit name must contain "."'
    if not suffix:
        return 'unit name cannot end in "."'
    if suffix not in SUFFIXES:
        return f"invalid unit type: {quote(suffix)}"
    if "@" in name and suffix not in TEMPLATE_SUFFIXES:
        return f"invalid unit type for template: {quote(suffix)}"
    for character in stem:
        if character not in CHARACTERS:
            return f"invalid character {quote_character(character)} in unit name"
    return 'unit name cannot start in "@"' if name.startswith("@") else None


def check_activation(name: UnitName, desired_state: str) -> str | None:
    """Why a unit of this name can't have this desired state; None if it can. Only instances of a template can run."""
    if name.is_template and desired_state != "inactive":
        return f"cannot activate template {quote(name.full)}"
    return None


def complete_name(word: str) -> str:
    """The name that people mean: `web` is web.service. Only what has no type gets one; fleet had its own list."""
    return word if word.rpartition(".")[2] in SUFFIXES and "." in word else f"{word}.service"


def name_object(name: str) -> str:
    """The name of the Unit object: the unit's own where an object may be called so, else what can be kept and a hash.

    The two never meet: a name with a hash has no type at its end.
    """
    if len(name) <= _MOST_OBJECT_NAME and _OBJECT_NAME.fullmatch(name):
        return name
    labels = [re.sub("[^a-z0-9]+", "-", part.lower()).strip("-") for part in name.split(".")]
    readable = ".".join(label for label in labels if label)[:_MOST_READABLE].rstrip("-.")
    return f"{readable}-{sha256(name.encode()).hexdigest()[:10]}"
