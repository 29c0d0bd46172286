"""The blocks that come from the repository, as independent zstd frames, several requests at a time."""

from __future__ import annotations

import asyncio
import sys
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate

import zstandard

from careen.agent.threads import in_thread
from careen.release.manifest import Image, longest_packed

from .fault import StageError
from .leaves import BLOCK_BYTES, LEAF_BYTES, hash_blocks
from .plan import BlockPlan, Kind
from .transfer import Body, Transfer
from .writer import Gather, SlotWriter

MAX_REQUEST_BYTES = 4 << 20
"""Longest range asked for at once."""
IN_FLIGHT = 4
"""Requests under way at a time."""
BATCH_BYTES = 1 << 20
"""How much is unpacked, checked and written together."""
BATCH_SECONDS = 0.05
"""How long frames that came are held back for more to be written with them: a slow line would else lose them all when
the power goes."""


class FrameTable:
    """Where each frame lies in the file of frames."""

    def __init__(self, image: Image, data: bytes) -> None:
        """data: the unpacked table file. Raises StageError Integrity if it does not fit the image."""
        if len(data) != 4 * image.frame_count:
            raise StageError("Integrity", f"the frame table has {len(data)} bytes; allowed: {4 * image.frame_count}")
        self.lengths = array("I", data)
        if sys.byteorder == "big":
            self.lengths.byteswap()
        self.offsets = array("L", accumulate(self.lengths, initial=0))
        longest = longest_packed(image.frame_blocks * BLOCK_BYTES)
        if self.offsets[-1] != image.frames.length or not all(0 < length <= longest for length in self.lengths):
            raise StageError(
                "Integrity",
                f"the frame table tells of {self.offsets[-1]} bytes in frames of up to {max(self.lengths)}; "
                f"allowed: {image.frames.length} bytes, none longer than {longest}",
            )

    def span(self, first: int, end: int) -> tuple[int, int]:
        """First byte and length of the frames from `first` up to `end`."""
        return self.offsets[first], self.offsets[end] - self.offsets[first]


@dataclass
class Job:
    """Frames that are asked for together. next: the first one that is not stored yet; blocks: how many are."""

    next: int
    end: int
    blocks: int = 0


def plan_jobs(plan: BlockPlan, table: FrameTable, frame_blocks: int) -> Iterator[Job]:
    """The frames with blocks to fetch, adjacent ones together as far as a request may reach."""
    job: Job | None = None
    for frame in range(len(table.lengths)):
        first = frame * frame_blocks
        if plan.kinds.find(Kind.FETCH, first, first + frame_blocks) < 0:
            continue
        if job and job.end == frame and table.span(job.next, frame + 1)[1] <= MAX_REQUEST_BYTES:
            job.end += 1
            continue
        if job:
            yield job
        job = Job(frame, frame + 1)
    if job:
        yield job


def unpack(data: bytes, size: int, what: str) -> bytes:
    """What a zstd frame of exactly `size` bytes holds. Raises StageError Integrity.

    The frame's own word on its size is checked first: memory would be taken for it, and without it for its window.
    """
    try:
        told = zstandard.frame_content_size(data)
        if told != size:
            known = f"{told} bytes" if told >= 0 else "it does not say how much"
            raise StageError("Integrity", f"{what} unpacks to {known}; expected: {size} bytes")
        raw = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompress(data, max_output_size=size)
    except zstandard.ZstdError as error:
        raise StageError("Integrity", f"{what} can't be unpacked: {error}") from error
    if len(raw) != size:
        raise StageError("Integrity", f"{what} unpacks to {len(raw)} bytes; expected: {size}")
    return raw


@dataclass(frozen=True)
class FrameFetcher:
    """Fetches what a plan leaves to fetch, and writes it."""

    transfer: Transfer
    image: Image
    table: FrameTable
    plan: BlockPlan
    leaves: bytes
    """Leaves of the image: every frame is checked against them."""
    writer: SlotWriter
    on_blocks: Callable[[int], None]
    """Called with the number of blocks just written."""
    storing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One batch at a time is unpacked and written: this is faster than networks, and an agent has little memory."""

    @property
    def _batch_frames(self) -> int:
        return max(1, BATCH_BYTES // (self.image.frame_blocks * BLOCK_BYTES))

    async def run(self) -> None:
        """Fetch everything. Raises StageError; what was stored by then stays, and is found by the next staging."""
        jobs = iter(list(plan_jobs(self.plan, self.table, self.image.frame_blocks)))
        workers = [asyncio.create_task(self._work(jobs)) for _ in range(IN_FLIGHT)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            await self.transfer.persist(partial(self._attempt, job))

    async def _attempt(self, job: Job, place: str) -> bool:
        """Ask one place for what is left of a job; False if it failed but some of it came."""
        began = job.next
        start, length = self.table.span(job.next, job.end)
        try:
            async with self.transfer.open_range(place, self.image.frames, start, length) as body:
                while job.next < job.end:
                    await self._take(job, body, place)
        except StageError as error:
            if job.next > began and error.fault.class_ != "Disk":
                return False
            raise
        return True

    async def _take(self, job: Job, body: Body, place: str) -> None:
        """The next few frames of an answer; those that came whole are stored, also when the next one fails."""
        batch: list[bytes] = []
        deadline = time.monotonic() + BATCH_SECONDS
        try:
            for frame in range(job.next, min(job.end, job.next + self._batch_frames)):
                batch.append(await body.read(self.table.lengths[frame]))
                if time.monotonic() >= deadline:
                    break
        finally:
            if batch:
                before = job.blocks
                try:
                    async with self.storing:
                        await in_thread(self._store, job, batch, place)
                finally:
                    self.on_blocks(job.blocks - before)

    def _store(self, job: Job, batch: list[bytes], place: str) -> None:
        """Check the frames and write their missing blocks; raises StageError after the good ones are stored."""
        gather, blocks, frame = Gather(self.writer), 0, job.next
        try:
            for data in batch:
                blocks += self._unpack_into(gather, frame, data, place)
                frame += 1
        finally:
            gather.flush()
            job.next = frame
            job.blocks += blocks

    def _unpack_into(self, gather: Gather, frame: int, data: bytes, place: str) -> int:
        image = self.image
        first = frame * image.frame_blocks
        count = min(image.frame_blocks, image.data_blocks - first)
        what = f"frame {frame} of {place}/{image.frames.path}"
        raw = unpack(data, count * BLOCK_BYTES, what)
        if hash_blocks(raw) != self.leaves[first * LEAF_BYTES : (first + count) * LEAF_BYTES]:
            raise StageError("Integrity", f"{what} does not hold the blocks that the signed hash tree names")
        view, written = memoryview(raw), 0
        for run in self.plan.runs(first, first + count, count):
            if run.kind is Kind.FETCH:
                at = (run.first - first) * BLOCK_BYTES
                gather.add(run.first, view[at : at + run.count * BLOCK_BYTES])
                written += run.count
        return written
