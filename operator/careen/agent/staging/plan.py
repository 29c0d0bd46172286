"""Where each block of a release is to come from. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice

from .leaves import LEAF_BYTES, ZERO_LEAF, LeafIndex

_MAX_LOWER_CANDIDATES = 8


class Kind(IntEnum):
    """How a block gets its content."""

    KEEP = 0
    """It is there already."""
    ZERO = 1
    """Zeros are written."""
    BOOTED = 2
    """Copied from the booted slot."""
    PASSIVE = 3
    """Copied from another place of the passive slot, before that is overwritten."""
    FETCH = 4
    """Taken from the repository."""


@dataclass(frozen=True)
class Run:
    """Blocks that follow each other in the target, and in the source if they have one."""

    kind: Kind
    first: int
    source: int
    count: int


class BlockPlan:
    """What to do with each block of the target: first all but FETCH, in ascending order, then FETCH in any order."""

    def __init__(self, blocks: int) -> None:
        self.kinds = bytearray(blocks)
        self.sources = array("L", bytes(array("L").itemsize * blocks))

    def __len__(self) -> int:
        return len(self.kinds)

    def count(self, kind: Kind) -> int:
        """How many blocks get their content this way."""
        return self.kinds.count(kind)

    def demote(self, block: int) -> None:
        """Fetch a block whose source turned out not to hold it."""
        self.kinds[block] = Kind.FETCH

    def runs(self, first: int, end: int, longest: int) -> Iterator[Run]:
        """The blocks from `first` up to `end` as runs of at most `longest` blocks."""
        kinds, sources = self.kinds, self.sources
        while first < end:
            kind, source, count = kinds[first], sources[first], 1
            copied = kind in (Kind.BOOTED, Kind.PASSIVE)
            while first + count < end and count < longest and kinds[first + count] == kind:
                if copied and sources[first + count] != source + count:
                    break
                count += 1
            yield Run(Kind(kind), first, source, count)
            first += count


def plan_blocks(target: bytes, passive: bytes, booted: bytes) -> BlockPlan:
    """Decide for each block of the target.

    All arguments are leaves; those of the passive slot say what it holds now. A block of the passive slot serves as a
    source only while it surely has its old content: copies and zeros are written in ascending order, before anything
    that is fetched, so it does if it lies above the block to be written, or if it is kept or fetched itself.
    """
    blocks = len(target) // LEAF_BYTES
    plan = BlockPlan(blocks)
    if passive[: len(target)] == target:
        return plan
    booted_index, passive_index = LeafIndex(booted), LeafIndex(passive)
    for block in range(blocks):
        at = block * LEAF_BYTES
        leaf = target[at : at + LEAF_BYTES]
        if passive[at : at + LEAF_BYTES] == leaf:
            continue
        if leaf == ZERO_LEAF:
            plan.kinds[block] = Kind.ZERO
            continue
        kind, source = _find_source(plan, leaf, block, booted_index, passive_index)
        plan.kinds[block] = kind
        plan.sources[block] = source
    return plan


def _find_source(plan: BlockPlan, leaf: bytes, block: int, booted: LeafIndex, passive: LeafIndex) -> tuple[Kind, int]:
    before = plan.sources[block - 1] + 1 if block and plan.kinds[block - 1] == Kind.BOOTED else 0
    # The block behind the last one's source makes a longer run than any other.
    for source in booted.find(leaf, before):
        return Kind.BOOTED, source
    for source in booted.find(leaf):
        return Kind.BOOTED, source
    for source in passive.find(leaf, block + 1):
        return Kind.PASSIVE, source
    for source in islice(passive.find(leaf), _MAX_LOWER_CANDIDATES):
        if source < len(plan) and plan.kinds[source] in (Kind.KEEP, Kind.FETCH):
            return Kind.PASSIVE, source
    return Kind.FETCH, 0
