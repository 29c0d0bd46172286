"""Names of systemd on D-Bus, and how it writes unit names in paths."""

from __future__ import annotations

import re
from typing import NamedTuple

DBUS = "org.freedesktop.DBus"
PROPERTIES = "org.freedesktop.DBus.Properties"
SERVICE = "org.freedesktop.systemd1"
MANAGER = "org.freedesktop.systemd1.Manager"
UNIT = "org.freedesktop.systemd1.Unit"
ROOT_PATH = "/org/freedesktop/systemd1"
UNIT_PATH = "/org/freedesktop/systemd1/unit/"


class Where(NamedTuple):
    """Whom a call goes to."""

    service: str
    path: str
    interface: str


THE_BUS = Where(DBUS, "/org/freedesktop/DBus", DBUS)
THE_MANAGER = Where(SERVICE, ROOT_PATH, MANAGER)

MATCHES = (
    *(
        f"type='signal',sender='{SERVICE}',path='{ROOT_PATH}',interface='{MANAGER}',member='{member}'"
        for member in ("UnitNew", "UnitRemoved", "JobRemoved", "Reloading")
    ),
    f"type='signal',sender='{SERVICE}',path_namespace='{UNIT_PATH[:-1]}',interface='{PROPERTIES}',arg0='{UNIT}'",
    f"type='signal',sender='{DBUS}',interface='{DBUS}',member='NameOwnerChanged',arg0='{SERVICE}'",
)
"""What the bus is to pass on."""

_PLAIN = re.compile(r"[A-Za-z0-9]")
_ESCAPED = re.compile(r"_([0-9a-f]{2})")


def properties_of(name: str) -> Where:
    """Where the properties of a unit are."""
    return Where(SERVICE, to_path(name), PROPERTIES)


def to_path(name: str) -> str:
    """The object path of a unit. A digit in the first place is escaped too, as systemd does."""
    characters = (
        chr(byte) if _PLAIN.match(chr(byte)) and not (place == 0 and chr(byte).isdigit()) else f"_{byte:02x}"
        for place, byte in enumerate(name.encode())
    )
    return UNIT_PATH + "".join(characters)


def to_name(path: str) -> str:
    """The unit of an object path; empty if it is none of a unit."""
    if not path.startswith(UNIT_PATH):
        return ""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), path.removeprefix(UNIT_PATH))


def escape_pattern(name: str) -> str:
    """A pattern that this name alone matches."""
    return re.sub(r"([\\*?\[])", r"\\\1", name)
