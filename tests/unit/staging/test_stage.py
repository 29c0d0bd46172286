"""A staging as a user sees it: what is in the slot afterwards, what was fetched, copied, and left alone."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from careen.agent.staging.fault import StageError
from careen.agent.staging.kept import KeptIndex
from careen.agent.staging.slot import read_boot_block
from careen.agent.staging.transfer import Transfer
from careen.disk.types import DiskIoError
from careen.release.verity import BLOCK_BYTES
from stagings import FRAME, FileServer, Made, MemorySlot, make_blocks, make_release, stage

Serve = Callable[..., Awaitable[FileServer]]
BLOCKS = 512
OLD = make_blocks(BLOCKS, 1)
NEW = make_release(make_blocks(BLOCKS, 2))


def holds(slot: MemorySlot, made: Made) -> bool:
    """Whether the release is on the medium, all of it."""
    return slot.medium[: len(made.whole)] == made.whole and read_boot_block(slot) == made.boot


async def test_an_empty_slot_gets_all_of_it(http: aiohttp.ClientSession, serve: Serve) -> None:
    server, target = await serve(NEW), MemorySlot(size=4 << 20)
    moved = await stage(http, NEW, target, server.url)
    assert holds(target, NEW)
    assert (moved.fetched, moved.reused, moved.skipped) == (NEW.image.size, 0, 0)
    assert server.asked(".frames") == NEW.image.frames.length
    assert max(length for _, length in target.writes) == 1 << 20


async def test_blocks_in_place_are_not_written(http: aiohttp.ClientSession, serve: Serve) -> None:
    changed = bytearray(OLD)
    changed[100 * BLOCK_BYTES : 103 * BLOCK_BYTES] = make_blocks(3, 3)
    made = make_release(bytes(changed))
    server, target = await serve(made), MemorySlot(OLD)
    moved = await stage(http, made, target, server.url)
    assert holds(target, made)
    tree = set(range(BLOCKS, BLOCKS + made.image.tree_bytes // BLOCK_BYTES))
    assert target.written() == {100, 101, 102} | tree
    assert (moved.skipped, moved.reused) == ((BLOCKS - 3) * BLOCK_BYTES, 0)
    assert moved.done == made.image.size


async def test_a_slot_that_holds_it_already_is_not_touched(http: aiohttp.ClientSession, serve: Serve) -> None:
    server, target = await serve(NEW), MemorySlot(NEW.whole, boot=NEW.boot)
    moved = await stage(http, NEW, target, server.url)
    assert (target.writes, moved.skipped) == ([], NEW.image.size)
    assert server.asked(".frames") == 0


async def test_blocks_of_the_booted_slot_are_not_fetched(http: aiohttp.ClientSession, serve: Serve) -> None:
    """All blocks moved about: the copies come from the booted slot's own hash tree, without hashing it."""
    order = list(range(BLOCKS))
    random.Random(5).shuffle(order)
    first = make_release(OLD, "1.0.0")
    made = make_release(b"".join(OLD[at * BLOCK_BYTES : (at + 1) * BLOCK_BYTES] for at in order))
    server, target = await serve(made), MemorySlot(size=4 << 20)
    booted = MemorySlot(first.whole, boot=first.boot)
    moved = await stage(http, made, target, server.url, booted=booted)
    assert holds(target, made)
    assert server.asked(".frames") == 0
    assert moved.reused == BLOCKS * BLOCK_BYTES


async def test_without_a_boot_block_the_booted_slot_is_hashed(http: aiohttp.ClientSession, serve: Serve) -> None:
    server, target = await serve(NEW), MemorySlot(size=4 << 20)
    await stage(http, NEW, target, server.url, booted=MemorySlot(NEW.whole))
    assert holds(target, NEW)
    assert server.asked(".frames") == 0


async def test_a_booted_slot_that_is_not_what_it_says_is_found_out(http: aiohttp.ClientSession, serve: Serve) -> None:
    """Its hash tree names blocks that have rotted: they are hashed when read, and fetched."""
    rotten = bytearray(NEW.whole)
    rotten[7 * BLOCK_BYTES] ^= 1
    server, target = await serve(NEW), MemorySlot(size=4 << 20)
    moved = await stage(http, NEW, target, server.url, booted=MemorySlot(bytes(rotten), boot=NEW.boot))
    assert holds(target, NEW)
    assert moved.fetched == BLOCK_BYTES + NEW.image.tree_bytes
    assert server.asked(".frames") == NEW.frame_bytes(range(1))


async def test_a_block_that_cannot_be_read_is_fetched(http: aiohttp.ClientSession, serve: Serve) -> None:
    booted = MemorySlot(NEW.whole, boot=NEW.boot)
    booted.bad_reads = {40, 41}
    server, target = await serve(NEW), MemorySlot(size=4 << 20)
    moved = await stage(http, NEW, target, server.url, booted=booted)
    assert holds(target, NEW)
    assert moved.reused == (BLOCKS - 2) * BLOCK_BYTES
    assert server.asked(".frames") == NEW.frame_bytes(range(2, 3))


async def test_a_read_that_fails_once_does_not_spoil_the_proof(http: aiohttp.ClientSession, serve: Serve) -> None:
    class Blinking(MemorySlot):
        failed = False

        def read_back(self, offset: int, length: int) -> bytes:
            if length > BLOCK_BYTES and not self.failed:
                self.failed = True
                raise DiskIoError(f"reading slot at byte {offset}: Input/output error")
            return super().read_back(offset, length)

    target = Blinking(NEW.whole)
    await stage(http, NEW, target, (await serve(NEW)).url)
    assert target.failed
    assert holds(target, NEW)
    assert target.written() == set()


async def test_zeros_are_not_fetched(http: aiohttp.ClientSession, serve: Serve) -> None:
    content = OLD[:FRAME] + bytes(4 * FRAME) + OLD[FRAME : 2 * FRAME]
    made = make_release(content)
    server, target = await serve(made), MemorySlot(make_blocks(BLOCKS, 9))
    await stage(http, made, target, server.url)
    assert holds(target, made)
    assert server.asked(".frames") == made.frame_bytes(range(1)) + made.frame_bytes(range(5, 6))


async def test_frames_next_to_each_other_are_asked_for_together(http: aiohttp.ClientSession, serve: Serve) -> None:
    made = make_release(make_blocks(3200, 4))
    server, target = await serve(made), MemorySlot(size=16 << 20)
    await stage(http, made, target, server.url)
    lengths = [length for path, _, length in server.requests if path.endswith(".frames")]
    assert len(lengths) == 4
    assert max(lengths) <= 4 << 20


async def test_what_an_interrupted_staging_wrote_is_not_fetched_again(
    http: aiohttp.ClientSession, serve: Serve
) -> None:
    half = make_blocks(BLOCKS, 2)[: 128 * BLOCK_BYTES]
    server, target = await serve(NEW), MemorySlot(half, size=4 << 20)
    await stage(http, NEW, target, server.url)
    assert holds(target, NEW)
    assert server.asked(".frames") == NEW.frame_bytes(range(8, 32))


async def test_the_index_of_an_interrupted_staging_is_not_fetched_again(
    http: aiohttp.ClientSession, serve: Serve, tmp_path: Path
) -> None:
    made = make_release(make_blocks(256))
    server, target = await serve(made), MemorySlot(size=2 << 20)
    kept = KeptIndex(tmp_path / "index")
    target.write_error = (BLOCK_BYTES * 100, "Input/output error")
    for _ in range(2):
        with pytest.raises(StageError):
            await stage(http, made, target, server.url, kept=kept)
    assert [path for path, *_ in server.requests if path.endswith(".tree")] == [made.image.tree.path]
    (tmp_path / "index").write_bytes(b"rotten")
    target.write_error = None
    await stage(http, made, target, server.url, kept=kept)
    assert holds(target, made)
    # Another release takes its place.
    other = make_release(make_blocks(256, 5))
    await stage(http, other, target, (await serve(other)).url, kept=kept)
    assert holds(target, other)
    assert kept.load(made.image.tree) is None


async def test_a_slot_that_is_too_small_is_not_touched(http: aiohttp.ClientSession, serve: Serve) -> None:
    """The image alone would fit; with the boot block it does not."""
    server, target = await serve(NEW), MemorySlot(size=NEW.image.size)
    with pytest.raises(StageError) as error:
        await stage(http, NEW, target, server.url)
    assert error.value.fault.class_ == "Size"
    assert (target.writes, server.requests) == ([], [])


@pytest.mark.parametrize("words", ["Input/output error", "No space left on device"])
async def test_a_slot_that_cannot_be_written(http: aiohttp.ClientSession, serve: Serve, words: str) -> None:
    server, target = await serve(NEW), MemorySlot(size=4 << 20)
    target.write_error = (300 * BLOCK_BYTES, words)
    with pytest.raises(StageError) as error:
        await stage(http, NEW, target, server.url)
    assert error.value.fault.class_ == "Disk"
    assert f"byte {300 * BLOCK_BYTES}: {words}" in error.value.fault.message
    assert len(server.requests) <= 6, "a disk that fails is no reason to ask again"
    assert read_boot_block(target) is None


async def test_a_medium_that_loses_a_write_is_found_out(http: aiohttp.ClientSession, serve: Serve) -> None:
    server, target = await serve(NEW), MemorySlot(size=4 << 20)
    target.lie_at = 300 * BLOCK_BYTES
    with pytest.raises(StageError) as error:
        await stage(http, NEW, target, server.url)
    assert (error.value.fault.class_, "reads back" in error.value.fault.message) == ("Disk", True)
    assert read_boot_block(target) is None


async def test_the_boot_block_of_the_old_release_goes_first(http: aiohttp.ClientSession, serve: Serve) -> None:
    """A slot that is half written must not say that it holds the release it held before."""
    old = make_release(OLD, "1.0.0")
    server, target = await serve(NEW), MemorySlot(old.whole, boot=old.boot)
    target.write_error = (300 * BLOCK_BYTES, "Input/output error")
    with pytest.raises(StageError):
        await stage(http, NEW, target, server.url)
    assert target.writes[0] == (target.size - BLOCK_BYTES, BLOCK_BYTES)
    assert read_boot_block(target) is None


@pytest.mark.parametrize("rate", [400_000, 1_000_000])
async def test_the_bandwidth_limit_holds(http: aiohttp.ClientSession, serve: Serve, rate: int) -> None:
    server = await serve(NEW)
    transfer = Transfer(http, [server.url], bytes_per_second=rate)
    began = time.monotonic()
    await asyncio.gather(*(transfer.fetch_file(file) for file in (NEW.image.tree, NEW.image.frames)))
    assert server.sent / (time.monotonic() - began) == pytest.approx(rate, rel=0.1)
