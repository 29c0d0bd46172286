"""What the agent knows of the units of its machine when it decides on them, frozen at one instant. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ValidationError

from careen.api.held import UnitOrder

Desired = Literal["loaded", "launched", "removed"]
AT_REST = ("inactive", "failed")
"""systemd's active states in which nothing of a unit runs."""


@dataclass(frozen=True, slots=True)
class UnitState:
    """One unit as systemd has it, in systemd's own words."""

    load: str
    active: str
    sub: str
    fragment: str = ""
    """The file that systemd has read it from, as systemd names it; empty if from none."""
    ours: bool = False
    """Whether that file is one that the agent wrote."""

    @property
    def running(self) -> bool:
        """Whether anything of it may run."""
        return self.active not in AT_REST


ABSENT = UnitState("not-found", "inactive", "dead")
"""A unit that systemd knows nothing of."""


@dataclass(frozen=True, slots=True)
class Launch:
    """That systemd was asked, in this boot, to start a unit."""

    hash: str
    """The content it was started with."""
    fault: str | None = None
    """How that start failed, as a sentence; None if it did not, or goes on."""
    stopping: bool = False
    """Whether a stop was asked for since then. What came of it may never be known: the agent may die, or lose systemd,
    before it hears. So a new order to launch the unit asks for a start once more."""


@dataclass(frozen=True, slots=True)
class Order:
    """One entry of Node.spec.units."""

    name: str
    unit: str
    """Name of the Unit object that has the content."""
    hash: str
    desired: Desired


@dataclass(frozen=True)
class Orders:
    """Node.spec.units as far as it can be read, sorted by name."""

    listed: tuple[Order, ...] = ()
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Why an entry can't be read, by the unit's name: nothing is done to that unit."""


@dataclass(frozen=True)
class Sight:
    """The units of the machine at one instant."""

    held: Mapping[str, str]
    """Hash of the file that the agent keeps of each unit."""
    states: Mapping[str, UnitState]
    launches: Mapping[str, Launch]
    """What was started in this boot, and since then neither stopped nor unloaded by an order."""
    unread: bool = False
    """Whether files have changed since systemd last read them."""
    stopping: frozenset[str] = frozenset()
    """Units that systemd has been asked to stop and has not answered for yet."""
    unreadable: str | None = None
    """Why systemd could not read the files just now, a sentence; it is then not asked to again for a while."""

    def state(self, name: str) -> UnitState:
        """What systemd has of a unit."""
        return self.states.get(name, ABSENT)

    def has(self, name: str) -> bool:
        """Whether anything of a unit on this machine is the agent's: its file, what systemd read, or what it started.

        The machine's own units, and what comes up by itself, as mounts do, are not. What runs though its file is
        gone is taken for the agent's: it may be all that is left when its folder and its memory were lost.
        """
        state = self.state(name)
        orphaned = state.running and state.load == "not-found"
        return name in self.held or name in self.launches or state.ours or orphaned


def read_orders(entries: object) -> Orders:
    """Node.spec.units, a document's value; anything that can't be read is told instead of obeyed."""
    listed: dict[str, Order] = {}
    unreadable: dict[str, str] = {}
    for entry in entries if isinstance(entries, list) else ():
        try:
            order = UnitOrder.model_validate(entry)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            unreadable[_name_of(entry)] = f"spec.units {place}: {first['msg']}"
        else:
            listed[order.name] = Order(order.name, order.unit, order.hash, order.desired_state)
    unreadable.pop("", None)
    return Orders(tuple(sorted(listed.values(), key=lambda each: each.name)), unreadable)


def _name_of(entry: Any) -> str:
    name = entry.get("name") if isinstance(entry, dict) else None
    return name if isinstance(name, str) else ""
