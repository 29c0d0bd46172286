"""Which machine each unit runs on: fleet's rules, and what goes beyond them where a unit asks for it.

A placement is a function of the units, the machines, where everything is now, and the time. What stands, stays: a unit
leaves its machine only when that is gone or silent for too long, is about to be activated, or is no longer able to run
it, or when a unit that replaces it comes. A place that is left is kept in the decision until the agent says that
nothing runs there any more.

Where this is not fleet's way: units are visited by name and not at random; the unit that is replaced leaves, never the
one that replaces it, so that the two can't push each other around for ever; units that nobody wants to run neither
count as load nor conflict; templates are not placed; what already runs somewhere wins over a global unit that comes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from careen.api.requirements import Requirements
from careen.units.names import split_name

from .refusal import Refusal


class Role(StrEnum):
    """What a unit has a place for."""

    RUN = "Run"
    """It is to run there."""
    WAIT = "Wait"
    """It is to run there as soon as it has left its other place."""
    YIELD = "Yield"
    """It runs there until it runs at its new place (surge)."""
    LEAVE = "Leave"
    """It is to be stopped there; the place is dropped when the agent says that it is gone."""


NOTHING = Requirements()
"""What is asked for by default, and by a unit that exists no more and still has a place that it leaves."""
STANDING = frozenset({Role.RUN, Role.WAIT})
"""Roles of the place that counts: where the unit belongs."""


@dataclass(frozen=True, slots=True)
class Place:
    """One machine that a unit has to do with."""

    machine: str
    role: Role = Role.RUN
    ready: bool = field(default=False, compare=False)
    """Whether the agent reports it there in its desired state; a fact for the decision, no part of it."""


@dataclass(frozen=True, slots=True)
class UnitSpec:
    """A unit as far as its placement goes."""

    name: str
    requirements: Requirements = NOTHING
    desired: str = "launched"
    """inactive, loaded or launched."""
    on_silence: str = "Replace"
    """Replace or Keep: whether it is put elsewhere when its machine has been silent for the grace period."""
    pinned: bool = False
    """It stays where it is, and comes nowhere else: what it asks for can't be understood."""

    @property
    def placeable(self) -> bool:
        """Whether it is to have a place at all: a template never is, only its instances."""
        return self.desired != "inactive" and not split_name(self.name).is_template

    @property
    def stays_single(self) -> bool:
        """Whether it must never run twice: it waits also for a silent machine that it has to leave."""
        return self.on_silence == "Keep"


@dataclass(frozen=True, slots=True)
class Target:
    """A machine as far as units go."""

    name: str
    machine_id: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    capacity: int | None = None
    """The most weight that it takes; None for any."""
    silent_since: float | None = None
    """Since when its agent has been silent; None while it talks; infinite where nothing is known of it yet."""
    leaving: bool = False
    """Whether it is about to be activated: it takes nothing new, and what can move moves away."""

    @property
    def closed(self) -> str | None:
        """Why nothing new is put here, in words; None where it may be."""
        if self.leaving:
            return "about to be activated"
        return "silent" if self.silent_since is not None else None


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for all units."""

    grace_seconds: float = 60.0
    """How long a machine may be silent before its units are put elsewhere."""
    rebalance_budget: int = 0
    """How many units may be on the move at once only to even out the load; 0 moves none."""


NO_RULES = Rules()


@dataclass(frozen=True, slots=True)
class Decision:
    """New places of one unit, in the order of the machines' names; none when it is gone everywhere."""

    unit: str
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class NoPlace:
    """Why no machine takes a unit."""

    unit: str
    reasons: tuple[tuple[int, str], ...]
    """How many machines say so, and what; most frequent first. Without machines: none."""

    @property
    def message(self) -> str:
        """The reasons as one sentence; the rarest are summed up."""
        if not self.reasons:
            return "there is no machine"
        told = [f"{_count(number)}: {reason}" for number, reason in self.reasons[:MOST_REASONS]]
        rest = sum(number for number, _ in self.reasons[MOST_REASONS:])
        return "; ".join([*told, f"{_count(rest)}: other reasons"] if rest else told)


MOST_REASONS = 5
"""Reasons that a sentence tells one by one."""


@dataclass(frozen=True, slots=True)
class Placements:
    """What came out."""

    decisions: tuple[Decision, ...]
    """Units whose places change, by name."""
    refusals: Mapping[str, NoPlace]
    """Units that should run and have no place, or that can't leave a machine which they should leave, and why."""
    blocked: Mapping[str, Refusal]
    """Machines about to be activated that a unit can't leave: the activation is refused. Nothing moves away then."""
    moving: Mapping[str, tuple[str, ...]]
    """Machines about to be activated, with the units that still have to leave; none when it may go on."""
    wake_at: float | None
    """When the grace period of a silent machine ends, if that is still to come."""


def group_of(name: str) -> str | None:
    """The template that units are counted by, for one of its instances; None for a unit that is alone."""
    parts = split_name(name)
    return parts.template if parts.is_instance else None


def _count(number: int) -> str:
    return "1 machine" if number == 1 else f"{number} machines"
