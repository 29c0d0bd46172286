"""In-place staging: whatever lies where, no block is copied from a place that was overwritten before."""

from __future__ import annotations

import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st

from careen.agent.staging.leaves import BLOCK_BYTES, LeafIndex, hash_blocks
from careen.agent.staging.local import Copier, Sources
from careen.agent.staging.plan import Kind, plan_blocks
from careen.agent.staging.writer import SlotWriter

CONTENTS = [bytes(BLOCK_BYTES)] + [hashlib.sha256(bytes([number])).digest() * 128 for number in range(1, 12)]
# Few different contents in many places, zeros among them.
slots = st.lists(st.sampled_from(CONTENTS), max_size=40).map(b"".join)


class Slot:
    """A slot in memory that forgets nothing and fails never."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        self.written: list[int] = []

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.data[offset : offset + length])

    read_back = read

    def write(self, offset: int, data: bytes) -> None:
        self.written += range(offset // BLOCK_BYTES, (offset + len(data)) // BLOCK_BYTES)
        self.data[offset : offset + len(data)] = data

    def sync(self) -> None:
        pass

    def drop_cached(self) -> None:
        pass


@settings(max_examples=400, deadline=None)
@given(slots.filter(bool), slots, slots, st.integers(1, 50))
def test_copies_give_what_the_target_wants(target: bytes, passive: bytes, booted: bytes, step: int) -> None:
    leaves = hash_blocks(target)
    slot = Slot(passive.ljust(len(target), b"\1"))
    plan = plan_blocks(leaves, hash_blocks(passive), hash_blocks(booted))
    planned = bytes(plan.kinds)
    copier = Copier(plan, leaves, Sources(slot, Slot(booted)), SlotWriter(slot))
    for first in range(0, len(plan), step):
        copier.copy(first, min(first + step, len(plan)))
    assert bytes(plan.kinds) == planned, "a copy's source no longer held what the plan was made for"
    for block, kind in enumerate(plan.kinds):
        place = slice(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES)
        if kind == Kind.FETCH:
            known = passive + booted
            assert block not in slot.written
            assert target[place] not in [booted[at : at + BLOCK_BYTES] for at in range(0, len(booted), BLOCK_BYTES)]
            assert target[place] != bytes(BLOCK_BYTES), known
        else:
            assert slot.data[place] == target[place]
        assert (block in slot.written) == (kind in (Kind.ZERO, Kind.BOOTED, Kind.PASSIVE))


@settings(max_examples=100, deadline=None)
@given(slots.filter(bool), st.integers(0, 45))
def test_the_index_finds_every_block_but_zeros(data: bytes, at_least: int) -> None:
    leaves = hash_blocks(data)
    index = LeafIndex(leaves)
    for content in CONTENTS:
        blocks = range(len(data) // BLOCK_BYTES)
        there = [at for at in blocks if data[at * BLOCK_BYTES : (at + 1) * BLOCK_BYTES] == content and at >= at_least]
        expected = [] if content == CONTENTS[0] else there
        assert list(index.find(hashlib.sha256(content).digest(), at_least)) == expected


def test_a_rotation_by_one_fetches_nothing() -> None:
    """Everything moves one block down: each source is read before it is overwritten."""
    blocks = [hashlib.sha256(bytes([1, number])).digest() * 128 for number in range(100)]
    plan = plan_blocks(hash_blocks(b"".join(blocks[1:])), hash_blocks(b"".join(blocks)), b"")
    assert set(plan.kinds) == {Kind.PASSIVE}
    up = plan_blocks(hash_blocks(b"".join([blocks[0], *blocks])), hash_blocks(b"".join(blocks)), b"")
    assert plan.count(Kind.PASSIVE) == 99
    assert up.count(Kind.FETCH) > 0, "sources below the cursor are gone"
