"""All units and all machines as their placement sees them, from one plan to the next.

What is decided is a function of the snapshot and the instant. What is remembered only saves looking again at what is as
it was: a roster that was just made says the same.
"""

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf

from careen.api.requirements import Requirements

from .actions import Action, SetUnits
from .fleet import Fleet, speaks_protocol
from .holdings import BUSY, NO_UNITS, RUNNING, MachineUnits, Report, Unit
from .movement import STILL, Movement
from .placement import Placer
from .places import STANDING, Place, Placements, Role, Rules, Target, UnitSpec
from .projection import Seats, project
from .refusal import Refusal
from .selectors import matches
from .snapshot import Snapshot
from .unitstatus import Whereabouts, is_as_wanted
from .unitwrites import write_unit

GLOBAL = Requirements(global_=True)


@dataclass(frozen=True, slots=True)
class Look:
    """What came of one look at the units."""

    movement: Movement = STILL
    actions: tuple[Action, ...] = ()
    wake_at: float | None = None


@dataclass(slots=True)
class Known:
    """What was looked at, and what was made of it."""

    units: dict[str, Unit] = field(default_factory=dict)
    """By the objects' names."""
    claims: dict[str, dict[str, Unit]] = field(default_factory=dict)
    """Units by full name, then by the objects' names."""
    valid: dict[str, Unit] = field(default_factory=dict)
    """Of each full name the unit that counts."""
    specs: dict[str, UnitSpec] = field(default_factory=dict)
    stored: dict[str, tuple[Place, ...]] = field(default_factory=dict)
    """Places by what is stored in units, and by what machines hold."""
    current: dict[str, tuple[Place, ...]] = field(default_factory=dict)
    """The same, but for decisions whose writes are on their way: they count as stored."""
    machines: dict[str, MachineUnits] = field(default_factory=dict)
    uids: dict[str, str] = field(default_factory=dict)
    """Of the machines' Nodes; none for one that is being made again."""
    held: dict[str, set[str]] = field(default_factory=dict)
    """Machines that hold units, by the units' full names."""
    targets: dict[str, Target] = field(default_factory=dict)
    lost: frozenset[str] = frozenset()
    """Machines that have been silent for longer than the grace period."""


class Roster:
    """Looks at snapshots, one after the other."""

    def __init__(self) -> None:
        self._placer = Placer()
        self._known = Known()
        self._rules = Rules()
        self._now = 0.0
        self._placements = Placements((), {}, {}, {}, None)
        self._asked: dict[tuple[str, tuple[str, ...]], Refusal | None] = {}
        self._pending: dict[str, tuple[str, tuple[Place, ...]]] = {}
        """Decisions that are being written, with the version of the object that they were made from."""
        self._changed = False
        """Whether what a placement follows from is another than before: then what was asked counts no more."""
        self._open_units: set[str] = set()
        """Full names whose status was not as it should be, or that were moved, or refused, when last looked at."""
        self._open_machines: set[str] = set()

    def look(self, fleet: Fleet, now: float) -> Look:
        """Decide where units run, and what has to be written for it."""
        snapshot = fleet.snapshot
        involved = (m for m in snapshot.machines.values() if m.units.holdings or m.units.reports)
        if not snapshot.units and not self._known.units and not any(True for _ in involved):
            return Look()
        dirty, told, machines = self._take(fleet, now)
        known = self._known
        placements = self._placer.place(known.specs, known.targets, known.current, now, self._rules)
        if self._changed or placements.decisions != self._placements.decisions:
            self._asked.clear()
        self._placements = placements
        decided = {decision.unit for decision in placements.decisions}
        names = dirty | told | self._open_units | decided | placements.refusals.keys()
        writes = self._write_units(snapshot, names)
        for name in names:
            if name not in dirty and name not in decided and self._is_global(name):
                continue  # What a machine says of it means nothing to the others, of which there may be thousands.
            machines.update(self._placer.roles_of(name), known.held.get(name, ()))
            machines.update(place.machine for place in known.stored.get(name, ()))
        orders = self._write_machines(snapshot, machines)
        movement = Movement(placements.blocked, placements.moving, self._ask)
        return Look(movement, (*writes, *orders), placements.wake_at)

    def _take(self, fleet: Fleet, now: float) -> tuple[set[str], set[str], set[str]]:
        """Take in a snapshot: names of units that changed, of those that machines have news of, and of machines."""
        snapshot, known = fleet.snapshot, self._known
        self._changed = self._rules != snapshot.unit_rules
        self._now, self._rules = now, snapshot.unit_rules
        dirty = self._take_units(snapshot.units)
        targets = self._make_targets(fleet)
        come_or_gone = targets.keys() ^ known.targets.keys()
        self._changed |= bool(come_or_gone) or any(known.targets[name] is not each for name, each in targets.items())
        known.targets = targets
        silent = (t for t in targets.values() if t.silent_since is not None)
        lost = frozenset(t.name for t in silent if now >= (t.silent_since or 0.0) + self._rules.grace_seconds)
        told: set[str] = set()
        machines = self._take_machines(snapshot, told)
        dirty.update(self._list_concerned(come_or_gone | (lost ^ known.lost)))
        self._changed = self._changed or lost != known.lost
        known.lost = lost
        dirty |= {name for name in list(self._pending) if not self._is_pending(name, snapshot)}
        for name in dirty | told:
            self._derive(name)
        return dirty, told, machines | self._open_machines

    def _list_concerned(self, machines: Set[str]) -> Iterator[str]:
        """Units that were put on one of these machines, or are there."""
        if not machines:
            return
        for machine in machines:
            yield from self._known.machines.get(machine, NO_UNITS).list_held()
        for name, unit in self._known.valid.items():
            if any(place.node in machines for place in unit.placements or ()):
                yield name

    def _take_units(self, units: Mapping[str, Unit]) -> set[str]:
        known = self._known
        dirty = set()
        for name, unit in units.items():
            before = known.units.get(name)
            if before is unit:
                continue
            if before is not None:
                self._drop_claim(before)
                dirty.add(before.full_name)
            known.units[name] = unit
            known.claims.setdefault(unit.full_name, {})[name] = unit
            dirty.add(unit.full_name)
        if len(known.units) != len(units):
            for name in known.units.keys() - units.keys():
                unit = known.units.pop(name)
                self._drop_claim(unit)
                dirty.add(unit.full_name)
        for name in dirty:
            self._elect(name)
        return dirty

    def _drop_claim(self, unit: Unit) -> None:
        claims = self._known.claims[unit.full_name]
        del claims[unit.name]
        if not claims:
            del self._known.claims[unit.full_name]

    def _elect(self, name: str) -> None:
        """Of several units with one name the oldest counts; one that is being deleted counts no more."""
        known = self._known
        claims = [unit for unit in known.claims.get(name, {}).values() if not unit.deleting]
        if not claims:
            known.valid.pop(name, None)
            self._changed = known.specs.pop(name, None) is not None or self._changed
            return
        unit = known.valid[name] = min(claims, key=lambda each: (each.created, each.name))
        spec = unit.spec
        if spec.pinned and unit.placements is None:
            # It was never put anywhere, so where it runs, it does so as a global unit.
            spec = replace(spec, requirements=GLOBAL)
        if known.specs.get(name) != spec:
            known.specs[name] = spec
            self._changed = True

    def _make_targets(self, fleet: Fleet) -> dict[str, Target]:
        snapshot, before = fleet.snapshot, self._known.targets
        targets = {}
        for name, machine in snapshot.machines.items():
            core = fleet.cores.get(name)
            if core is None:
                continue
            since = None
            if name in snapshot.silent:
                since = snapshot.silent_since.get(name, inf)
            elif not machine.reported or not speaks_protocol(machine):
                since = inf
            made = Target(
                name=name,
                machine_id=core.machine_id or machine.core_machine_id or name,
                metadata={**core.labels, **machine.units.metadata},
                capacity=machine.units.capacity,
                silent_since=since,
                leaving=name in fleet.held or machine.in_flight,
            )
            old = before.get(name)
            targets[name] = old if old == made and old is not None else made
        for name, core in snapshot.core_nodes.items():
            # A Node that is being made again is no machine that is gone: what runs there goes on.
            if name not in snapshot.machines and matches(snapshot.node_selector, core.labels, {}):
                made = Target(name, core.machine_id or name, core.labels, None, inf)
                old = before.get(name)
                targets[name] = old if old == made and old is not None else made
        return targets

    def _take_machines(self, snapshot: Snapshot, told: set[str]) -> set[str]:
        """Take in what machines hold; the names of those where it has changed. told: units that are concerned."""
        known, changed = self._known, set()
        for name in known.targets:
            machine = snapshot.machines.get(name)
            units, uid = (machine.units, machine.uid) if machine is not None else (NO_UNITS, "")
            before = known.machines.get(name)
            if known.uids.get(name) != uid:
                known.uids[name] = uid
                changed.add(name)
                told.update(n for n, places in known.stored.items() if any(p.machine == name for p in places))
            if before is units:
                continue
            known.machines[name] = units
            if before != units:
                changed.add(name)
                self._index(name, before or NO_UNITS, units, told)
        if len(known.machines) != len(known.targets):
            for name in known.machines.keys() - known.targets.keys():
                self._index(name, known.machines.pop(name), NO_UNITS, told)
                del known.uids[name]
        return changed

    def _index(self, machine: str, before: MachineUnits, after: MachineUnits, told: set[str]) -> None:
        held = self._known.held
        gone, here = set(before.list_held()), set(after.list_held())
        for name in gone - here:
            held[name].discard(machine)
            if not held[name]:
                del held[name]
        for name in here - gone:
            held.setdefault(name, set()).add(machine)
        # Only these, not all units of the machine: a global one is to be looked at on all machines.
        told.update(after.list_changed(before))

    def _derive(self, name: str) -> None:
        """The unit's places."""
        known = self._known
        if name in self._pending:
            return  # What it holds now is looked at when its write has ended.
        roles = dict(self._read_roles(name))
        made = tuple(Place(m, roles[m], self._is_ready(name, m, roles)) for m in sorted(roles))
        before = known.stored.get(name)
        if before is not None and before == made and [p.ready for p in before] == [p.ready for p in made]:
            made = before
        self._changed = self._changed or known.current.get(name, ()) is not made
        for places in (known.stored, known.current):
            if made:
                places[name] = made
            else:
                places.pop(name, None)

    def _is_pending(self, name: str, snapshot: Snapshot) -> bool:
        """Whether a decision's write is still on its way. One that is not, or did not come through, counts no more."""
        unit, (version, places) = self._known.valid.get(name), self._pending[name]
        if unit is not None and unit.resource_version == version and ("Unit", unit.name) in snapshot.busy:
            self._changed = self._changed or self._known.current.get(name) is not places
            self._known.current[name] = places
            return True
        del self._pending[name]
        return False

    def _read_roles(self, name: str) -> Iterator[tuple[str, Role]]:
        known, unit = self._known, self._known.valid.get(name)
        stored = unit.placements if unit is not None else ()
        adopts = unit is not None and (stored is None or known.specs[name].requirements.global_)
        standing = {place.node for place in stored or () if not place.leaving and not adopts}
        yielding = {place.node for place in stored or () if place.leaving and not adopts}
        holders = {m for m in known.held.get(name, ()) if m in known.targets}
        left = {m for m in holders if not known.machines[m].keeps(name)}
        left |= set() if adopts else holders - standing - yielding
        for machine in holders:
            yield machine, Role.LEAVE if machine in left else Role.YIELD if machine in yielding else Role.RUN
        # What is still being stopped elsewhere is waited for, unless nobody can tell and it may run twice.
        waits = bool(left if unit is not None and unit.spec.stays_single else left - known.lost)
        for machine in standing - holders:
            if machine in known.targets:
                yield machine, Role.WAIT if waits else Role.RUN

    def _is_ready(self, name: str, machine: str, roles: Mapping[str, Role]) -> bool:
        """Whether it is up there. One that ends by itself is as good, when its old place does not run any more."""
        unit, report = self._known.valid.get(name), self._report(name, machine)
        if unit is None or report is None or not is_as_wanted(unit, report):
            return False
        if unit.spec.desired != "launched" or report.active in RUNNING:
            return True
        old = [self._report(name, m) for m, role in roles.items() if role is Role.YIELD]
        return report.active == "inactive" and not any(each is not None and each.active in BUSY for each in old)

    def _report(self, name: str, machine: str) -> Report | None:
        return self._known.machines.get(machine, NO_UNITS).reports.get(name)

    def _write_units(self, snapshot: Snapshot, names: set[str]) -> list[Action]:
        known, refusals = self._known, self._placements.refusals
        writes: list[Action] = []
        decided = {decision.unit: decision.places for decision in self._placements.decisions}
        self._open_units = decided.keys() | refusals.keys()
        for name in sorted(names):
            for unit in sorted(known.claims.get(name, {}).values(), key=lambda each: each.name):
                if unit.deleting or ("Unit", unit.name) in snapshot.busy:
                    continue
                where = self._find(name, unit)
                write = write_unit(unit, where, self._now)
                if write is None:
                    continue
                self._open_units.add(name)
                if name in decided and self._is_unsure(snapshot, unit):
                    continue
                writes.append(write)
                if where.rival is None and name in decided:
                    self._pending[name] = (unit.resource_version, decided[name])
        return writes

    def _find(self, name: str, unit: Unit) -> Whereabouts:
        known, first = self._known, self._known.valid[name]
        if first is not unit:
            return Whereabouts(rival=first.name)
        roles = self._placer.roles_of(name)
        return Whereabouts(
            roles=roles,
            refusal=self._placements.refusals.get(name),
            reports={m: told for m in sorted(known.held.get(name, ())) if (told := self._report(name, m)) is not None},
            uids={machine: uid for machine in roles if (uid := known.uids.get(machine))},
            lost=known.lost,
        )

    def _is_unsure(self, snapshot: Snapshot, unit: Unit) -> bool:
        """Whether nobody knows if a machine has the unit: put elsewhere now, it could come to run twice.

        The machine may just be told of it; or its Node was made again, and its agent has not said yet what it holds.
        """
        known = self._known
        for place in unit.placements or ():
            there, machine = known.machines.get(place.node), snapshot.machines.get(place.node)
            given_up = place.node in known.lost and not unit.spec.stays_single
            if there is None or given_up or there.holds(unit.full_name):
                continue
            if machine is None or not machine.reported or ("Node", place.node) in snapshot.busy:
                return True
        return False

    def _write_machines(self, snapshot: Snapshot, names: set[str]) -> list[Action]:
        writes: list[Action] = []
        self._open_machines = set()
        for name in sorted(names):
            machine = snapshot.machines.get(name)
            if machine is None or name not in self._known.targets:
                continue
            if not machine.reported:
                # Nothing is told to a machine that may hold what its Node, made again, does not know of yet.
                self._open_machines.add(name)
                continue
            seats = Seats(partial(self._stored_role, name), self._placer.seats_on(name))
            made = project(machine.units, seats, self._known.valid)
            if made != dict(machine.units.holdings):
                self._open_machines.add(name)
                writes.append(SetUnits(name, machine.uid, machine.resource_version, tuple(made.values())))
        return writes

    def _stored_role(self, machine: str, unit: str) -> Role | None:
        """What a unit is there for. Of a global unit nothing is stored: what is decided of it holds at once."""
        if self._is_global(unit):
            return self._placer.seats_on(machine).get(unit)
        places = self._known.stored.get(unit, ())
        return next((place.role for place in places if place.machine == machine), None)

    def _ask(self, machine: str, granted: tuple[str, ...]) -> Refusal | None:
        """Why a machine can't be activated, beside those that are being granted and those that are being left."""
        known, placer = self._known, self._placer
        if not any(self._must_go(name) for name, role in placer.seats_on(machine).items() if role in STANDING):
            return None
        key = (machine, granted)
        if key not in self._asked:
            leaving = (*granted, machine)
            found = placer.refuse_activation(
                known.specs, known.targets, known.current, self._now, leaving=leaving, rules=self._rules
            )
            fresh = [found[name] for name in sorted(found.keys() - self._placements.blocked.keys())]
            self._asked[key] = found.get(machine) or next(iter(fresh), None)
        return self._asked[key]

    def _is_global(self, name: str) -> bool:
        spec = self._known.specs.get(name)
        return spec is not None and spec.requirements.global_

    def _must_go(self, name: str) -> bool:
        spec = self._known.specs.get(name)
        return spec is not None and not spec.requirements.global_ and not spec.requirements.interruptible
