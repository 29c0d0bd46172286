"""The blocks that need no network: copied from either slot and hashed again, or zeros."""

from __future__ import annotations

from dataclasses import dataclass

from careen.disk.types import DiskIoError

from .leaves import BLOCK_BYTES, LEAF_BYTES, ZERO_BLOCK, hash_blocks
from .media import Source, Target
from .plan import BlockPlan, Kind, Run
from .writer import PIECE_BYTES, Gather, SlotWriter

_LONGEST_RUN = PIECE_BYTES // BLOCK_BYTES
DROP_BYTES = 64 << 20


@dataclass
class Sources:
    """Where copies come from. booted: None if there is nothing to copy from."""

    target: Target
    booted: Source | None


class Copier:
    """Carries out the part of a plan that is not fetched, in ascending order of blocks.

    A source that can't be read, or no longer holds what its leaf said, turns its block into one to fetch.
    """

    def __init__(self, plan: BlockPlan, leaves: bytes, sources: Sources, writer: SlotWriter) -> None:
        self._plan = plan
        self._leaves = leaves
        self._sources = sources
        self._gather = Gather(writer)
        self._cached = 0
        self.reused = 0
        """Blocks copied so far."""

    def copy(self, first: int, end: int) -> None:
        """The blocks from `first` up to `end`. Raises StageError Disk when the slot can't be written."""
        for run in self._plan.runs(first, end, _LONGEST_RUN):
            if run.kind is Kind.ZERO:
                self._gather.add(run.first, ZERO_BLOCK * run.count)
            elif run.kind in (Kind.BOOTED, Kind.PASSIVE):
                self._copy_run(run)
        self._gather.flush()

    def _copy_run(self, run: Run) -> None:
        data = self._read(run)
        if data is None and run.count > 1:
            # One block of the run can't be read: only that one is fetched.
            for block in range(run.count):
                self._copy_run(Run(run.kind, run.first + block, run.source + block, 1))
            return
        if data is None or len(data) < run.count * BLOCK_BYTES:
            for block in range(run.first, run.first + run.count):
                self._plan.demote(block)
            return
        found = hash_blocks(data)
        view = memoryview(data)
        for number in range(run.count):
            block, at = run.first + number, number * LEAF_BYTES
            if found[at : at + LEAF_BYTES] == self._leaves[block * LEAF_BYTES : (block + 1) * LEAF_BYTES]:
                self._gather.add(block, view[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES])
                self.reused += 1
            else:
                self._plan.demote(block)

    def _read(self, run: Run) -> bytes | None:
        source: Source | None = self._sources.target if run.kind is Kind.PASSIVE else self._sources.booted
        if source is None:
            return None
        length = run.count * BLOCK_BYTES
        try:
            data = source.read(run.source * BLOCK_BYTES, length)
        except DiskIoError:
            return None
        self._cached += length
        if self._cached >= DROP_BYTES:
            # Blocks of the booted slot are read once; they would drive more useful ones out of memory.
            self._cached = 0
            source.drop_cached()
        return data
