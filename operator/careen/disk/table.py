"""A disk's table, open under its lock: read, repair, change. The one place where slots are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from careen.disk.block import LOCK_WAIT_SECONDS, BlockFile
from careen.disk.gpt import Table, parse
from careen.disk.rehearsal import Medium, Rehearsal
from careen.disk.slots import Slots, find_slots
from careen.disk.types import DiskError, SlotName
from careen.disk.writes import Plan, plan_change, plan_repair

_REPAIR_STEPS = 4


class OpenTable:
    """The table of a disk that is open and locked. `table` is the last state read.

    done: the plans that were carried out so far; in a rehearsal, that would have been.
    """

    def __init__(self, block: Medium) -> None:
        self.block = block
        self.done: Plan = ()
        self.table = self._read()

    def repair(self) -> tuple[str, ...]:
        """Bring both copies in step, durably, and return the faults that were put right; empty if none.

        Raises DiskError if they remain.
        """
        found = self.table.faults
        for _ in range(_REPAIR_STEPS):
            plan = plan_repair(self.table)
            if not plan:
                return found
            self._execute(plan)
        raise DiskError(f"{self.block.path}: still not sound after repair: {'; '.join(self.table.faults)}")

    def set_words(self, words: Mapping[int, int]) -> tuple[str, ...]:
        """Set attribute words (partition number → 64-bit word) in one durable table write.

        A broken copy is repaired first, as a durable write of its own; returns the faults put right.
        """
        repaired = self.repair()
        self._execute(plan_change(self.table, words))
        return repaired

    def _execute(self, plan: Plan) -> None:
        self.block.execute(plan)
        self.done += plan
        self.table = self._read()

    def _read(self) -> Table:
        return parse(self.block.read, self.block.size, self.block.sector_size)


@dataclass(frozen=True)
class Change:
    """What a change did. repaired: sentences for the faults of the table that were put right before it."""

    before: Slots
    after: Slots
    repaired: tuple[str, ...]


@contextmanager
def open_table(
    path: Path,
    *,
    writable: bool = False,
    rehearsed: bool = False,
    sector_size: int | None = None,
    wait_seconds: float = LOCK_WAIT_SECONDS,
) -> Iterator[OpenTable]:
    """Open a disk or image, lock it (shared for reading, exclusive for writing) and read its table.

    rehearsed: open it for reading, and let changes happen in memory only (writable is then without effect).
    Raises GptInvalidError, DiskBusyError (lock not free within wait_seconds), DiskError, OSError.
    """
    writable = writable and not rehearsed
    with BlockFile.open(path, writable=writable, sector_size=sector_size, wait_seconds=wait_seconds) as block:
        yield OpenTable(Rehearsal(block) if rehearsed else block)


def read_slots(path: Path, *, wait_seconds: float = LOCK_WAIT_SECONDS) -> Slots:
    """Both slots as the disk has them now. Raises AmbiguousSlotsError and what open_table raises."""
    with open_table(path, wait_seconds=wait_seconds) as opened:
        return find_slots(opened.table)


@dataclass(frozen=True)
class Inspection:
    """What the table says. faults: a sentence for each thing that a repair would put right; empty if all is sound."""

    slots: Slots
    faults: tuple[str, ...]


def inspect_slots(path: Path, *, wait_seconds: float = LOCK_WAIT_SECONDS) -> Inspection:
    """Both slots as the disk has them now, and how its table is. Raises what read_slots raises."""
    with open_table(path, wait_seconds=wait_seconds) as opened:
        return Inspection(find_slots(opened.table), opened.table.faults)


def change_slots(path: Path, change: Callable[[Slots], Slots], *, wait_seconds: float = LOCK_WAIT_SECONDS) -> Change:
    """Read the slots, apply a pure change of `careen.disk.slots`, and make it durable in one table write.

    Idempotent: a change that is already there writes nothing (but a needed repair). Refusals of `change` pass
    through with no byte written. Raises also what open_table raises, ReadBackError and DiskIoError.
    """
    with open_table(path, writable=True, wait_seconds=wait_seconds) as opened:
        before = find_slots(opened.table)
        after = change(before)
        words = {after[name].partition: after[name].entry.word for name in SlotName}
        repaired = opened.set_words(words)
        return Change(before=before, after=find_slots(opened.table), repaired=repaired)


def repair(path: Path, *, wait_seconds: float = LOCK_WAIT_SECONDS) -> tuple[str, ...]:
    """Bring both copies of the table in step; returns the faults that were put right, empty if none."""
    with open_table(path, writable=True, wait_seconds=wait_seconds) as opened:
        return opened.repair()
