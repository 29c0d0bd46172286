"""One pass over a board: what can't stay leaves, and what has no place gets one.

Whatever a unit does in a pass, those that are looked at later in the same pass see. All go by name, so that the same
board gives the same places, whichever of its units are looked at because something has changed around them.
"""

from collections.abc import Callable, Container, Iterable
from heapq import heappop, heappush

from careen.api.reasons import Reason

from .board import Board
from .fitness import (
    METADATA,
    choose,
    choose_gently,
    explain,
    explain_all,
    explain_stuck,
    find_replaced,
    group_reasons,
)
from .patterns import CONFLICT
from .places import STANDING, NoPlace, Role, Rules
from .refusal import Refusal


class Queue:
    """Names to be looked at: each once at a time, the first by name first."""

    def __init__(self) -> None:
        self._heap: list[str] = []
        self._in: set[str] = set()

    def push(self, names: Iterable[str]) -> None:
        """Have these looked at."""
        for name in names:
            if name not in self._in:
                self._in.add(name)
                heappush(self._heap, name)

    def drain(self, look: Callable[[str], None]) -> None:
        """Look at all, and at those that are pushed meanwhile."""
        while self._heap:
            name = heappop(self._heap)
            self._in.discard(name)
            look(name)


class Seating:
    """One pass."""

    def __init__(self, board: Board, ready: Callable[[str, str], bool], now: float, rules: Rules) -> None:
        self.board = board
        self.rules = rules
        self.refusals: dict[str, NoPlace] = {}
        self.blocked: dict[str, Refusal] = {}
        self._ready = ready
        self._checks, self._wanting = Queue(), Queue()
        self._pushed: set[str] = set()
        self._given_up: set[tuple[object, ...]] = set()
        silent = (t for t in board.targets.values() if t.silent_since is not None)
        self._lost = {t.name for t in silent if now >= (t.silent_since or 0.0) + rules.grace_seconds}
        self._leaving = sorted(t.name for t in board.targets.values() if t.leaving and t.name not in self._lost)

    def run(self, dirty: Iterable[str]) -> None:
        """Do it all. dirty: units that, or around which, something has changed since the last pass."""
        board = self.board
        names = sorted(dirty)
        for name in names:
            self._settle(name)
        self._checks.push(names)
        self._checks.drain(self._check)
        self._spread_globals(board.renewed)
        for machine in sorted(self._lost):
            self._leave_silent(machine)
        for machine in self._leaving:
            self._leave(machine)
        self._checks.drain(self._check)
        self._place_all()
        self._rebalance()
        self._spread_globals(frozenset())
        for name in sorted(board.unsettled & board.homeless):
            self._turn(name, Role.YIELD, Role.LEAVE)  # There is no new place to wait for.
        self._explain()

    def _settle(self, name: str) -> None:
        """Take in what has happened to a unit's places since they were decided."""
        board = self.board
        places, unit = board.places.get(name), board.units.get(name)
        if not places:
            return
        if unit is None:
            self._withdraw(name, places)
            return
        if unit.pinned:
            return
        if unit.requirements.global_:
            self._turn(name, Role.YIELD, Role.RUN)
            self._turn(name, Role.WAIT, Role.RUN)
            return
        standing = sorted((role is Role.WAIT, machine) for machine, role in places.items() if role in STANDING)
        if not standing:
            # Where it was to go is gone: it stays where it still runs.
            standing = sorted((False, machine) for machine, role in places.items() if role is Role.YIELD)[:1]
            for _, machine in standing:
                board.set_role(name, machine, Role.RUN)
        self._withdraw(name, [machine for _, machine in standing[1:]])
        if not standing:
            return
        waits, machine = standing[0]
        if waits and self._role_for(name) is Role.RUN:
            board.set_role(name, machine, Role.RUN)
        if self._ready(name, machine) and board.places[name][machine] is Role.RUN:
            self._turn(name, Role.YIELD, Role.LEAVE)

    def _withdraw(self, name: str, machines: Iterable[str]) -> None:
        for machine in list(machines):
            if self.board.places[name][machine] is Role.WAIT:
                self.board.unseat(name, machine)
            elif self.board.places[name][machine] is not Role.LEAVE:
                self.board.set_role(name, machine, Role.LEAVE)

    def _turn(self, name: str, before: Role, after: Role) -> None:
        for machine, role in list(self.board.places.get(name, {}).items()):
            if role is before:
                self.board.set_role(name, machine, after)

    def _role_for(self, name: str) -> Role:
        """A new place waits for the old one to be left, unless nobody can tell and the unit may run twice."""
        places, unit = self.board.places.get(name, {}).items(), self.board.units.get(name)
        doubted = self._lost if unit is None or not unit.stays_single else ()
        left = any(role is Role.LEAVE and machine not in doubted for machine, role in places)
        return Role.WAIT if left else Role.RUN

    def _check(self, name: str) -> None:
        """Whether what stands may go on standing."""
        if self.board.is_pinned(name):
            return
        for machine, role in sorted(self.board.places.get(name, {}).items()):
            if role in STANDING and name in self.board.units:
                fault = explain(self.board, name, machine)
                if fault is not None:
                    # A conflict is not prolonged for a surge.
                    self._evict(name, machine, surge=fault.kind != CONFLICT)

    def _evict(self, name: str, machine: str, *, surge: bool) -> None:
        self._release(name, machine, surge=surge)
        self._checks.push(self.board.followers.get(name, ()))

    def _release(self, name: str, machine: str, *, surge: bool) -> None:
        board, wanted = self.board, self.board.asks(name)
        if board.places[name][machine] is Role.WAIT:
            board.unseat(name, machine)
            return
        # A new place that is left before it took over is not surged once more: the first one still runs.
        surge = surge and wanted.surge and not wanted.global_ and machine not in self._lost
        surge = surge and Role.YIELD not in board.places[name].values()
        board.set_role(name, machine, Role.YIELD if surge else Role.LEAVE)
        self._given_up.clear()

    def _seat(self, name: str, machine: str) -> None:
        board = self.board
        replaced = find_replaced(board, name, machine)
        board.seat(name, machine, self._role_for(name))
        for other in replaced:
            self._pushed.add(other)
            self._evict(other, machine, surge=True)
        self._wanting.push(board.followers.get(name, ()))
        if name in board.followers or replaced:
            self._given_up.clear()

    def _place_all(self) -> None:
        """Give places until nobody is left who could have one."""
        while True:
            before = len(self._pushed)
            self._wanting.push(self.board.homeless)
            self._wanting.drain(self._place)
            if len(self._pushed) == before:
                return
            self._checks.drain(self._check)

    def _place(self, name: str) -> None:
        board = self.board
        if name not in board.homeless:
            return
        if self._given_up and self._likeness(name) in self._given_up:
            return
        machine = choose(board, name)
        if machine is None:
            self._given_up.add(self._likeness(name))
            return
        if self._pushed.intersection(find_replaced(board, name, machine)):
            return  # Once a pass is enough: it has its turn in the next one.
        self._seat(name, machine)
        self._checks.drain(self._check)

    def _likeness(self, name: str) -> tuple[object, ...]:
        """Units for which this is the same have the same chances everywhere, but for machines they still leave."""
        board = self.board
        own = frozenset(board.places.get(name, ()))
        hits = frozenset(pattern.text for pattern in board.index.hits(name))
        return board.asks(name), hits, board.limit_of(name), own

    def _leave(self, machine: str) -> None:
        """Move all away from a machine that is about to be activated; or none, if one can't go that must."""
        board = self.board
        stuck = self._move_away(machine, self._list_movable(machine), strict=True)
        if not stuck:
            return
        told = [f"unit {found.unit} can't leave {machine}: {found.message}" for found in stuck]
        more = f"; and {len(told) - 1} more" if len(told) > 1 else ""
        self.blocked[machine] = Refusal(Reason.UNIT_NOT_MOVABLE, told[0] + more)
        for found in stuck:
            if found.unit in board.units:
                self.refusals[found.unit] = found

    def _leave_silent(self, machine: str) -> None:
        """Put elsewhere what can go, from a machine that has been silent for too long."""
        names = [n for n in self._list_movable(machine) if self.board.units[n].on_silence != "Keep"]
        for found in self._move_away(machine, names, strict=False):
            # Nobody knows whether it runs, so it keeps its place: an order to stop it would help nobody.
            self.refusals[found.unit] = found

    def _list_movable(self, machine: str) -> list[str]:
        board = self.board
        seats = sorted(board.seats[machine].items())
        return [name for name, role in seats if role in STANDING and not board.asks(name).global_]

    def _move_away(self, machine: str, names: list[str], *, strict: bool) -> list[NoPlace]:
        """Who can't move, and stays. strict: then nobody does, unless those are interruptible."""
        board = self.board
        before = {name: board.places[name][machine] for name in names}
        for name in names:
            self._release(name, machine, surge=True)
        moved = self._move_batch(names)
        failed = [name for name in names if name not in moved]
        if strict:
            stuck = [explain_stuck(board, name) for name in failed if not board.asks(name).interruptible]
            back = names if stuck else failed
        else:
            stuck, back = [explain_stuck(board, name) for name in failed], failed
        for name in back:
            if name in moved:
                board.unseat(name, moved[name])
        for name in back:
            if machine in board.places.get(name, ()):
                board.set_role(name, machine, before[name])
            else:
                board.seat(name, machine, before[name])
        for name in set(names).difference(back):
            self._checks.push(board.followers.get(name, ()))
        self._given_up.clear()
        return stuck

    def _move_batch(self, names: list[str]) -> dict[str, str]:
        board, batch = self.board, frozenset(names)
        moved: dict[str, str] = {}
        queue = Queue()

        def move(name: str) -> None:
            if name in moved:
                return
            machine = choose_gently(board, name, batch)
            if machine is None:
                return
            board.seat(name, machine, self._role_for(name))
            moved[name] = machine
            queue.push(board.followers.get(name, set()) & batch)

        queue.push(names)
        queue.drain(move)
        return moved

    def _spread_globals(self, renewed: Container[str]) -> None:
        """Put global units on all machines that are able: renewed ones on any, others where something has changed."""
        board = self.board
        for name in sorted(board.globals):
            for machine in sorted(board.targets if name in renewed else board.touched):
                off = board.kept_off.setdefault(name, {})
                off.pop(machine, None)
                role = board.places.get(name, {}).get(machine)
                if role in STANDING:
                    continue
                fault = explain(board, name, machine)
                if fault is None:
                    board.seat(name, machine, Role.RUN)
                    self._wanting.push(board.followers.get(name, ()))
                elif fault.kind != METADATA:
                    off[machine] = fault.text

    def _rebalance(self) -> None:
        """Even out the load, by moves that make the most loaded machine of the two less loaded than it was."""
        board = self.board
        left = self.rules.rebalance_budget - len(board.unsettled - board.homeless)
        while left > 0 and self._move_one():
            left -= 1

    def _move_one(self) -> bool:
        board = self.board
        for load, _, machine in list(reversed(board.order)):
            if load <= board.order[0][0] + 1:
                return False
            for name in sorted(board.seats[machine]):
                if self._may_rebalance(name, machine) and self._relieve(name, machine, load):
                    return True
        return False

    def _may_rebalance(self, name: str, machine: str) -> bool:
        """Only what stands still, is free to go, and moves alone."""
        board, wanted = self.board, self.board.asks(name)
        tied = wanted.global_ or wanted.machine_of or wanted.machine_id is not None or name in board.followers
        return board.places[name] == {machine: Role.RUN} and name in board.units and not tied and wanted.weight > 0

    def _relieve(self, name: str, machine: str, load: int) -> bool:
        board, wanted = self.board, self.board.asks(name)
        self._release(name, machine, surge=True)
        better = choose_gently(board, name, frozenset())
        if better is None or board.load[better] + wanted.weight >= load:
            board.set_role(name, machine, Role.RUN)
            return False
        board.seat(name, better, self._role_for(name))
        return True

    def _explain(self) -> None:
        board = self.board
        known: dict[tuple[object, ...], NoPlace] = {}
        for name in sorted(board.homeless):
            key = self._likeness(name)
            found = known.get(key) or explain_all(board, name)
            known[key] = found
            self.refusals[name] = NoPlace(name, found.reasons)
        for name, off in board.kept_off.items():
            if off:
                self.refusals[name] = group_reasons(name, off.values())
