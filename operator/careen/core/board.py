"""Who sits where: all places at one moment, with the indexes that make questions about them cheap.

Each index follows from the places, the units and the machines; none is a memory of its own.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from typing import TypeVar

from careen.api.requirements import Metadata, Requirements

from .patterns import AVOID, CONFLICT, REPLACE, Pattern, PatternIndex
from .places import NOTHING, STANDING, Place, Role, Target, UnitSpec, group_of

_Key = TypeVar("_Key", str, int)


class Board:
    """The places, to be asked and changed."""

    def __init__(self) -> None:
        self.units: dict[str, UnitSpec] = {}
        """Units that are to have places."""
        self.targets: dict[str, Target] = {}
        self.places: dict[str, dict[str, Role]] = {}
        """By unit, then by machine; only machines that exist."""
        self.seats: dict[str, dict[str, Role]] = {}
        """The same by machine, then by unit."""
        self.index = PatternIndex()
        self.load: dict[str, int] = {}
        """Weight of what stands, by machine."""
        self.used: dict[str, int] = {}
        """Weight of what stands and of what is leaving, by machine."""
        self.order: list[tuple[int, str, str]] = []
        """Load, machine id and name of the machines that take units, least loaded first."""
        self.closed: dict[str, set[str]] = {}
        """The other machines, by why they do not."""
        self.groups: dict[str, dict[str, int]] = {}
        """How many of a group stand on each machine."""
        self.limits: dict[str, dict[int, int]] = {}
        """How many units of a group ask for each limit of units per machine."""
        self.followers: dict[str, set[str]] = {}
        """Units that must be where a unit is."""
        self.globals: dict[str, UnitSpec] = {}
        self.homeless: set[str] = set()
        """Units that are to have a place, are not global, and stand nowhere."""
        self.unsettled: set[str] = set()
        """Units with a place that waits, yields or is left."""
        self.kept_off: dict[str, dict[str, str]] = {}
        """Global units, with the machines that do not run them for another reason than their metadata."""
        self.touched: set[str] = set()
        """Machines on which something changed since this was last emptied."""
        self.stirred: set[str] = set()
        """Units that changed, or whose places did, since this was last emptied."""
        self.renewed: set[str] = set()
        """Units that are others than before, since this was last emptied."""
        self._by_metadata: dict[str, dict[str, set[str]]] = {}
        self._by_id: dict[str, set[str]] = {}
        self._replacers: set[str] = set()
        self._claims: dict[str, tuple[tuple[str, Pattern], ...]] = {}

    def asks(self, name: str) -> Requirements:
        """What a unit asks for."""
        unit = self.units.get(name)
        return unit.requirements if unit is not None else NOTHING

    def is_pinned(self, name: str) -> bool:
        """Whether a unit stays where it is, whatever happens."""
        unit = self.units.get(name)
        return unit is not None and unit.pinned

    def claims(self, name: str) -> tuple[tuple[str, Pattern], ...]:
        """The patterns that a unit holds, each with what it claims by it."""
        return self._claims.get(name, ())

    def limit_of(self, name: str) -> tuple[str, int] | None:
        """The unit's group, and how many of it a machine may hold."""
        group = group_of(name)
        if group is None or group not in self.limits:
            return None
        return group, min(self.limits[group])

    def find_by_id(self, machine_id: str) -> set[str]:
        """Machines with this id, or with an id that begins with these 8 characters."""
        return self._by_id.get(machine_id, set())

    def find_by_metadata(self, wanted: Metadata) -> set[str]:
        """Machines that have one of the values of each key."""
        found = (self._by_metadata.get(key, {}) for key, _ in wanted)
        return set.intersection(
            *(
                set().union(*(there.get(value, ()) for value in values))
                for there, (_, values) in zip(found, wanted, strict=True)
            )
        )

    def list_domains(self, key: str) -> list[str]:
        """Values of a key of the machines' metadata."""
        return [value for value, machines in self._by_metadata.get(key, {}).items() if machines]

    def set_target(self, target: Target) -> None:
        """A machine is there, or is another than before."""
        old = self.targets.get(target.name)
        if old is None:
            self.seats[target.name] = {}
            self.load[target.name] = self.used[target.name] = 0
        else:
            self._unlist(old)
        self.targets[target.name] = target
        for found in self._keys(target):
            found.add(target.name)
        if target.closed is None:
            insort(self.order, (self.load[target.name], target.machine_id, target.name))
        else:
            self.closed.setdefault(target.closed, set()).add(target.name)
        self.touched.add(target.name)

    def drop_target(self, name: str) -> None:
        """A machine is gone, and all places on it."""
        for unit in list(self.seats[name]):
            self.unseat(unit, name)
        self._unlist(self.targets.pop(name))
        del self.seats[name], self.load[name], self.used[name]
        for machines in self.kept_off.values():
            machines.pop(name, None)
        self.touched.discard(name)

    def set_unit(self, unit: UnitSpec) -> None:
        """A unit is there, or is another than before."""
        self._change_unit(unit.name, unit if unit.placeable else None)

    def drop_unit(self, name: str) -> None:
        """A unit is there no more. Its places stay until they have been left."""
        self._change_unit(name, None)

    def seat(self, name: str, machine: str, role: Role) -> None:
        """Give a unit a place on a machine on which it has none."""
        self.index.add_name(name)
        self.places.setdefault(name, {})[machine] = role
        self.seats[machine][name] = role
        self._count(name, machine, role, 1)

    def unseat(self, name: str, machine: str) -> None:
        """Take a place away."""
        role = self.places[name].pop(machine)
        del self.seats[machine][name]
        self._count(name, machine, role, -1)
        if not self.places[name]:
            del self.places[name]
            self._forget(name)

    def set_role(self, name: str, machine: str, role: Role) -> None:
        """Change what a place is for."""
        before = self.places[name][machine]
        self.places[name][machine] = self.seats[machine][name] = role
        self._stand(name, machine, (role in STANDING) - (before in STANDING))
        self._note(name, machine)

    def reset(self, name: str, places: Iterable[Place]) -> bool:
        """Make a unit's places these; whether any of them is on a machine that is not there."""
        wanted = {place.machine: place.role for place in places}
        known = {machine: role for machine, role in wanted.items() if machine in self.targets}
        if self.places.get(name, {}) != known:
            for machine in list(self.places.get(name, ())):
                self.unseat(name, machine)
            for machine, role in known.items():
                self.seat(name, machine, role)
        self.stirred.add(name)
        return len(known) != len(wanted)

    def _change_unit(self, name: str, unit: UnitSpec | None) -> None:
        # The counts are taken back as the old unit made them, and made anew: no index has to know what has changed.
        seated = list(self.places.get(name, {}).items())
        for machine, role in seated:
            self._count(name, machine, role, -1)
        self._unlearn(name)
        if unit is not None:
            self._learn(unit)
        for machine, role in seated:
            self._count(name, machine, role, 1)
        self.renewed.add(name)
        self._note(name)
        self._forget(name)

    def _learn(self, unit: UnitSpec) -> None:
        name, wanted = unit.name, unit.requirements
        self.units[name] = unit
        self.index.add_name(name)
        claims = []
        for kind, patterns in ((CONFLICT, wanted.conflicts), (AVOID, wanted.avoids), (REPLACE, wanted.replaces)):
            for text in patterns:
                pattern, fresh = self.index.hold(text)
                claims.append((kind, pattern))
                for other in fresh - {name}:
                    for machine in self.places.get(other, ()):
                        _add(pattern.there, machine, 1)
        self._claims[name] = tuple(claims)
        for peer in wanted.machine_of:
            self.followers.setdefault(peer, set()).add(name)
        if wanted.global_:
            self.globals[name] = unit
        if wanted.replaces:
            self._replacers.add(name)
            self._touch_replacers()
        if wanted.max_per_machine is not None and (group := group_of(name)) is not None:
            self._limit(group, wanted.max_per_machine, 1)

    def _unlearn(self, name: str) -> None:
        unit = self.units.pop(name, None)
        if unit is None:
            return
        wanted = unit.requirements
        for _, pattern in self._claims.pop(name):
            self.index.release(pattern.text)
        for peer in wanted.machine_of:
            self.followers[peer].discard(name)
            if not self.followers[peer]:
                del self.followers[peer]
        self.globals.pop(name, None)
        if wanted.replaces:
            self._touch_replacers()
            self._replacers.discard(name)
        self.kept_off.pop(name, None)
        if wanted.max_per_machine is not None and (group := group_of(name)) is not None:
            self._limit(group, wanted.max_per_machine, -1)

    def _touch_replacers(self) -> None:
        """Who replaces whom hangs on all that replace, wherever they are: a detour back makes it void."""
        for name in self._replacers:
            self.touched.update(self.places.get(name, ()))

    def _limit(self, group: str, limit: int, number: int) -> None:
        before = min(self.limits.get(group, {limit + 1: 0}))
        _add(self.limits.setdefault(group, {}), limit, number)
        if not self.limits[group]:
            del self.limits[group]
        if min(self.limits.get(group, {limit + 1: 0})) != before:
            for name, machines in self.places.items():
                if group_of(name) == group:
                    self.touched.update(machines)

    def _count(self, name: str, machine: str, role: Role, number: int) -> None:
        for pattern in self.index.hits(name):
            _add(pattern.there, machine, number)
        for kind, pattern in self._claims.get(name, ()):
            _add(pattern.claims[kind], machine, number)
        self.used[machine] += number * self.asks(name).weight
        if role in STANDING:
            self._stand(name, machine, number)
        self._note(name, machine)

    def _stand(self, name: str, machine: str, number: int) -> None:
        if not number:
            return
        group = group_of(name)
        if group is not None:
            counts = self.groups.setdefault(group, {})
            _add(counts, machine, number)
            if not counts:
                del self.groups[group]
        target, load = self.targets[machine], self.load[machine]
        self.load[machine] = load + number * self.asks(name).weight
        if target.closed is None:
            del self.order[bisect_left(self.order, (load, target.machine_id, machine))]
            insort(self.order, (self.load[machine], target.machine_id, machine))

    def _note(self, name: str, machine: str | None = None) -> None:
        self.stirred.add(name)
        if machine is not None:
            self.touched.add(machine)
        roles = self.places.get(name, {}).values()
        unit = self.units.get(name)
        if unit is None or unit.requirements.global_ or any(role in STANDING for role in roles):
            self.homeless.discard(name)
        else:
            self.homeless.add(name)
        if any(role is not Role.RUN for role in roles):
            self.unsettled.add(name)
        else:
            self.unsettled.discard(name)

    def _forget(self, name: str) -> None:
        if name not in self.units and name not in self.places:
            self.index.drop_name(name)

    def _keys(self, target: Target) -> Iterator[set[str]]:
        for key, value in target.metadata.items():
            yield self._by_metadata.setdefault(key, {}).setdefault(value, set())
        yield self._by_id.setdefault(target.machine_id, set())
        yield self._by_id.setdefault(target.machine_id[:8], set())

    def _unlist(self, target: Target) -> None:
        for found in self._keys(target):
            found.discard(target.name)
        if target.closed is None:
            del self.order[bisect_left(self.order, (self.load[target.name], target.machine_id, target.name))]
        else:
            self.closed[target.closed].discard(target.name)


def _add(counts: dict[_Key, int], key: _Key, number: int) -> None:
    """Count; what has come down to nothing leaves no trace, since a key alone already says that something is there."""
    left = counts.get(key, 0) + number
    if left:
        counts[key] = left
    else:
        del counts[key]
