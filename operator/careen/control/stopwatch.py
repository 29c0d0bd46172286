"""How long each phase of an update takes, from one plan's snapshot to the next.

Only a phase whose beginning this process has seen is timed: a new leader times nothing that it found under way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from careen.api.reasons import Reason
from careen.core.actions import Explanation
from careen.core.budgets import CAPACITY
from careen.core.snapshot import TERMINAL, Machine, Snapshot

from .figures import Sight


@dataclass(frozen=True, slots=True)
class PhasePassed:
    """A phase of an update is over."""

    phase: str
    seconds: float


@dataclass(frozen=True, slots=True)
class DrainEnded:
    """A drain is over: done, or given up (givenBack)."""

    outcome: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Rebooted:
    """A machine came up again: from the word Activate to its agent's first report."""

    method: str
    seconds: float


@dataclass(frozen=True, slots=True)
class LockWaited:
    """A staged machine has got its place in a lock."""

    lock: str
    seconds: float


@dataclass(frozen=True, slots=True)
class HandedOver:
    """A place in a lock went to the next machine: from the end of the one before."""

    lock: str
    seconds: float


@dataclass(frozen=True, slots=True)
class UpdateEnded:
    """A machine's order has ended: committed, or rolled back with a cause."""

    policy: str
    cause: str | None


Lap = PhasePassed | DrainEnded | Rebooted | LockWaited | HandedOver | UpdateEnded


@dataclass(slots=True)
class Stand:
    """Where a machine is on its way through an order."""

    order: str
    phase: str
    lock: str
    policy: str
    update: bool
    """False for a reboot or a reset that people asked for."""
    ended: bool
    began: float | None
    """When the phase was first seen; None where it had begun before."""


class Stopwatch:
    """Compares each plan's snapshot with the one before. `now` is monotonic, in seconds."""

    def __init__(self) -> None:
        self._stands: dict[str, Stand] | None = None
        self._free: dict[str, list[float]] = {}
        """Places that have become free, by lock: since when nobody needs them any more."""

    def look(self, sight: Sight, now: float) -> list[Lap]:
        """What has ended since the last look."""
        first, before = self._stands is None, self._stands or {}
        held = {
            holder.id: (lock.name, holder.order)
            for lock in sight.snapshot.locks.values()
            for holder in lock.holders
            if holder.order
        }
        stands: dict[str, Stand] = {}
        for name, machine in sight.snapshot.machines.items():
            stand = read_stand(machine, held.get(name))
            if stand is None:
                continue
            known = before.get(name)
            same = known is not None and (known.order, known.phase) == (stand.order, stand.phase)
            stand.began = known.began if known is not None and same else None if first else now
            stands[name] = stand
        self._stands = stands
        laps = [lap for name, stand in before.items() for lap in _compare(stand, stands.get(name), now)]
        laps += _find_ends(before, stands, sight.snapshot)
        return laps + self._hand_over(before, stands, sight.plan.explanations, now)

    def _hand_over(
        self,
        before: Mapping[str, Stand],
        stands: Mapping[str, Stand],
        explanations: tuple[Explanation, ...],
        now: float,
    ) -> list[Lap]:
        """Pair places that became free with the machines that got them.

        A place is kept in mind only while somebody waits for room: one that nobody may take is not handed over.
        """
        laps: list[Lap] = []
        for name, stand in before.items():
            left = stands.get(name)
            if stand.phase == "returning" and stand.began is not None and (left is None or left.phase != "returning"):
                self._free.setdefault(stand.lock, []).append(stand.began)
        for name, stand in stands.items():
            known = before.get(name)
            if known is not None and known.phase == "waiting" and stand.phase == "draining":
                places = self._free.get(stand.lock)
                if places:
                    laps.append(HandedOver(stand.lock, now - places.pop(0)))
        wanted = {stands[e.machine].lock for e in explanations if _waits_for_room(e) and e.machine in stands}
        self._free = {lock: places for lock, places in self._free.items() if lock in wanted}
        return laps


def read_stand(machine: Machine, held: tuple[str, str | None] | None) -> Stand | None:
    """Where the machine is; None when no order is open. held: the lock it holds, and the order it holds it for."""
    order = machine.order
    if order is None:
        return None
    holds = held is not None and held[1] == order.id
    lock = held[0] if held is not None and holds else order.terms.lock
    if machine.closed and not holds:
        return None
    return Stand(
        order=order.id,
        phase=_name_phase(machine, holds),
        lock=lock,
        policy=order.policy,
        update=order.request is None,
        ended=machine.phase in TERMINAL,
        began=None,
    )


def _name_phase(machine: Machine, holds: bool) -> str:
    order = machine.order
    assert order is not None
    if machine.closed:
        return "returning"
    if order.from_boot_id is None:
        if holds:
            return "draining"
        return "waiting" if machine.phase == "Staged" else "staging"
    if order.goal == "Abort":
        return "rollingBack"
    return "verifying" if machine.phase == "Verifying" else "activating"


def _compare(old: Stand, new: Stand | None, now: float) -> Iterator[Lap]:
    same = new is not None and new.order == old.order
    if same and new is not None and new.phase == old.phase:
        return
    if old.began is None:
        return
    seconds = now - old.began
    after = new.phase if new is not None and same else None
    if old.update:
        yield PhasePassed(old.phase, seconds)
    if old.phase == "waiting" and after == "draining":
        yield LockWaited(old.lock, seconds)
    if old.phase == "draining":
        yield DrainEnded("done" if after in ("activating", "verifying") else "givenBack", seconds)


def _find_ends(before: Mapping[str, Stand], stands: Mapping[str, Stand], snapshot: Snapshot) -> Iterator[Lap]:
    for name, old in before.items():
        machine, new = snapshot.machines.get(name), stands.get(name)
        if machine is None or machine.step.id != old.order:
            continue
        if old.phase == "activating" and old.began is not None and new is not None and new.phase == "verifying":
            # The stand of the new phase begins with this very look.
            yield Rebooted(machine.last_boot or "unknown", (new.began or old.began) - old.began)
        if old.update and not old.ended and machine.step.phase in TERMINAL and old.policy in snapshot.policies:
            yield UpdateEnded(
                old.policy, None if machine.step.phase == "Committed" else machine.step.cause or "unknown"
            )


def _waits_for_room(explanation: Explanation) -> bool:
    return explanation.state == "Waiting" and Reason(explanation.reason) in CAPACITY
