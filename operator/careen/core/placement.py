"""Which machine each unit runs on: fleet's rules, and what goes beyond them where a unit asks for it.

A placement is a function of the units, the machines, where everything is now, and the time. What stands, stays: a unit
leaves its machine only when that is gone or silent for too long, is about to be activated, or is no longer able to run
it, or when a unit that replaces it comes. A place that is left is kept in the decision until the agent says that
nothing runs there any more.

Where this is not fleet's way: units are visited by name and not at random; the unit that is replaced leaves, never the
one that replaces it, so that the two can't push each other around for ever; units that nobody wants to run neither
count as load nor conflict; templates are not placed; what already runs somewhere wins over a global unit that comes; a
unit that others must be beside goes where they can go too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import inf

from .board import Board
from .places import NO_RULES, STANDING, Decision, Place, Placements, Role, Rules, Target, UnitSpec
from .refusal import Refusal
from .seating import Seating


def place(
    units: Mapping[str, UnitSpec],
    machines: Mapping[str, Target],
    current: Mapping[str, tuple[Place, ...]],
    now: float,
    rules: Rules = NO_RULES,
) -> Placements:
    """Decide where all units are to be. All three mappings are by name; current has the stored decisions."""
    return Placer().place(units, machines, current, now, rules)


class Placer:
    """The same, for whoever asks again and again: the answers are those of `place`, whatever was asked before.

    What is the very same object as the last time is taken as unchanged, so objects must not be changed in place.
    """

    def __init__(self) -> None:
        self._board = Board()
        self._units: dict[str, UnitSpec] = {}
        self._current: dict[str, tuple[Place, ...]] = {}
        self._stranded: set[str] = set()
        """Units with a place on a machine that is not there: it may come."""
        self._ahead: set[str] = set()
        """Units whose places on the board are not the current ones, because they were decided anew."""

    def place(
        self,
        units: Mapping[str, UnitSpec],
        machines: Mapping[str, Target],
        current: Mapping[str, tuple[Place, ...]],
        now: float,
        rules: Rules = NO_RULES,
    ) -> Placements:
        """Decide where all units are to be."""
        board = self._board
        come = self._take_machines(machines)
        self._take_units(units)
        self._take_current(current, come)
        seating = Seating(board, self._is_ready, now, rules)
        seating.run(self._list_dirty())
        decisions = self._decide()
        silent = (t.silent_since for t in machines.values() if t.silent_since is not None)
        ends = [since + rules.grace_seconds for since in silent if since < inf]
        placements = Placements(
            decisions=decisions,
            refusals=dict(sorted(seating.refusals.items())),
            blocked=seating.blocked,
            moving={t.name: self._list_moving(t.name) for t in machines.values() if t.leaving},
            wake_at=min((end for end in ends if end > now), default=None),
        )
        board.touched.clear()
        board.stirred.clear()
        board.renewed.clear()
        return placements

    def refuse_activation(
        self,
        units: Mapping[str, UnitSpec],
        machines: Mapping[str, Target],
        current: Mapping[str, tuple[Place, ...]],
        now: float,
        *,
        leaving: Iterable[str],
        rules: Rules = NO_RULES,
    ) -> Mapping[str, Refusal]:
        """Which of these machines could not be activated because of their units, if all of them were to be. Nothing is
        decided by asking.
        """
        asked = {name: replace(machines[name], leaving=True) for name in leaving}
        return self.place(units, {**machines, **asked}, current, now, rules).blocked

    def roles_of(self, unit: str) -> Mapping[str, Role]:
        """Where a unit is to be, by machine, as `place` has just decided."""
        return self._board.places.get(unit, {})

    def seats_on(self, machine: str) -> Mapping[str, Role]:
        """Who is to be on a machine, by unit, as `place` has just decided."""
        return self._board.seats.get(machine, {})

    def _take_machines(self, machines: Mapping[str, Target]) -> bool:
        """Whether a machine has come that was not there."""
        board, come = self._board, False
        for name, target in machines.items():
            if board.targets.get(name) is not target:
                come = come or name not in board.targets
                board.set_target(target)
        if len(board.targets) != len(machines):
            for name in board.targets.keys() - machines.keys():
                # Who had a place there must get it back should the machine come again before anything was stored.
                self._stranded.update(board.seats[name])
                board.drop_target(name)
        return come

    def _take_units(self, units: Mapping[str, UnitSpec]) -> None:
        for name, unit in units.items():
            if self._units.get(name) is not unit:
                self._units[name] = unit
                self._board.set_unit(unit)
        if len(self._units) != len(units):
            for name in self._units.keys() - units.keys():
                del self._units[name]
                self._board.drop_unit(name)

    def _take_current(self, current: Mapping[str, tuple[Place, ...]], come: bool) -> None:
        fresh = {name for name, places in current.items() if self._current.get(name) is not places}
        self._current.update((name, current[name]) for name in fresh)
        gone = self._current.keys() - current.keys() if len(self._current) != len(current) else set()
        for name in gone:
            del self._current[name]
        for name in fresh | gone | self._ahead | (self._stranded if come else set()):
            if self._board.reset(name, self._current.get(name, ())):
                self._stranded.add(name)
            else:
                self._stranded.discard(name)

    def _is_ready(self, name: str, machine: str) -> bool:
        return any(place.machine == machine and place.ready for place in self._current.get(name, ()))

    def _list_dirty(self) -> set[str]:
        board = self._board
        dirty = board.stirred | board.unsettled
        for machine in board.touched:
            dirty.update(board.seats[machine])
        return dirty

    def _decide(self) -> tuple[Decision, ...]:
        """What the board has otherwise than the stored decisions."""
        board, decisions = self._board, []
        for name in sorted(board.stirred | self._ahead | self._stranded):
            stored = self._current.get(name, ())
            roles = board.places.get(name, {})
            if {place.machine: place.role for place in stored} == roles:
                continue
            ready = {place.machine for place in stored if place.ready}
            decisions.append(Decision(name, tuple(Place(m, roles[m], m in ready) for m in sorted(roles))))
        self._ahead = {decision.unit for decision in decisions}
        return tuple(decisions)

    def _list_moving(self, machine: str) -> tuple[str, ...]:
        """A unit that stands on, although it was to leave, either blocks the activation or may be interrupted."""
        board = self._board
        return tuple(
            name
            for name, role in sorted(board.seats[machine].items())
            if role not in STANDING or (role is Role.RUN and self._must_go(name))
        )

    def _must_go(self, name: str) -> bool:
        wanted = self._board.asks(name)
        return not wanted.global_ and not wanted.interruptible
