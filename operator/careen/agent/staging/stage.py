"""One staging, from a release that is trusted already to a slot that is proved to hold it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import aiohttp

from careen.agent.record import Moved
from careen.agent.threads import in_thread
from careen.disk.types import DiskError
from careen.release.bootblock import BootBlock
from careen.release.errors import VerityError
from careen.release.manifest import Image
from careen.release.verity import check_tree

from .fault import StageError
from .frames import FrameFetcher, FrameTable, unpack
from .kept import KeptIndex
from .leaves import BLOCK_BYTES
from .local import Copier, Sources
from .media import Source, Target
from .plan import BlockPlan, Kind, plan_blocks
from .slot import check_slot, read_leaves, require_room, write_boot_block
from .survey import SLICE_BLOCKS, Survey
from .transfer import Deadlines, Transfer
from .writer import SlotWriter

logger = logging.getLogger(__name__)

_COPY_BLOCKS = 4096
"""Blocks that are copied before the progress is told and a wish to stop is heard: 16 MiB."""


@dataclass(frozen=True)
class Wanted:
    """What a slot is to hold. image and boot: of a release whose document is trusted."""

    image: Image
    boot: BootBlock
    places: Sequence[str]
    """URLs of the repository and its mirrors."""
    bytes_per_second: int | None = None
    """Most that may be fetched in a second; None is no limit."""
    deadlines: Deadlines | None = None
    kept: KeptIndex | None = None
    """Where the index waits for the next try when this one is cut short; None: it is fetched again."""


async def stage_release(
    http: aiohttp.ClientSession,
    wanted: Wanted,
    target: Target,
    booted: Source | None,
    on_progress: Callable[[Moved], None],
) -> None:
    """Make the passive slot hold an image: what is there is kept, what either slot has is copied, the rest is fetched.

    booted: the slot that runs, if it may be read. on_progress: called now and then with what was done so far. Cancel
    or kill it at any time and begin again: blocks that are in place are found by their hash. Raises StageError: Size
    before anything is written; Transfer, Integrity; Disk for a slot that fails or does not read back as written.
    """
    try:
        await _Staging(http, wanted, target, booted, on_progress).run()
    except DiskError as error:
        raise StageError("Disk", str(error)) from error


class _Staging:
    def __init__(
        self,
        http: aiohttp.ClientSession,
        wanted: Wanted,
        target: Target,
        booted: Source | None,
        on_progress: Callable[[Moved], None],
    ) -> None:
        self._wanted = wanted
        self._image = wanted.image
        self._target = target
        self._booted = booted
        self._on_progress = on_progress
        self._transfer = Transfer(
            http, wanted.places, bytes_per_second=wanted.bytes_per_second, deadlines=wanted.deadlines
        )
        self._writer = SlotWriter(target)
        self._moved = Moved()

    async def run(self) -> None:
        """The whole of it."""
        image = self._image
        require_room(self._target, image)
        # Index and plan are let go of before the tree is read back: an agent has little memory.
        known = await self._fill()
        await in_thread(self._writer.finish)
        logger.info("staging %s: all is written, and is read back", self._wanted.boot.version)
        if fault := await in_thread(check_slot, self._target, image, known):
            raise StageError("Disk", fault)
        await in_thread(write_boot_block, self._target, self._wanted.boot)
        logger.info("staged %s: %s, %d bytes written", self._wanted.boot.version, self._moved, self._writer.written)

    async def _fill(self) -> str | None:
        """Bring the slot to hold the image; the hash of the whole image if it was there already."""
        tree = await self._fetch_unpacked_tree()
        leaves = check_tree_of(self._image, tree)
        survey = Survey(self._target, leaves)
        plan = await self._plan(leaves, survey)
        return await self._write(plan, leaves, tree, survey)

    async def _fetch_unpacked_tree(self) -> bytes:
        image, kept = self._image, self._wanted.kept
        data = await in_thread(kept.load, image.tree) if kept else None
        if data is None:
            data = await self._transfer.fetch_file(image.tree)
            if kept:
                await in_thread(kept.save, data)
        return unpack(data, image.tree_bytes, image.tree.path)

    async def _plan(self, leaves: bytes, survey: Survey) -> BlockPlan:
        blocks = self._image.data_blocks
        # As it is on the medium: a page cache may know better.
        for first in range(0, blocks, SLICE_BLOCKS):
            await in_thread(survey.read, first, min(SLICE_BLOCKS, blocks - first))
        passive = survey.take_leaves()
        booted = b""
        if self._booted is not None and passive != leaves:
            try:
                booted = await in_thread(read_leaves, self._booted)
            except DiskError as error:
                logger.warning("nothing is copied from the booted slot: %s", error)
        plan = await in_thread(plan_blocks, leaves, passive, booted)
        skipped, missing = plan.count(Kind.KEEP) + plan.count(Kind.ZERO), plan.count(Kind.FETCH)
        logger.info(
            "staging %s: of %d blocks, %d are in place, %d to be copied, %d to be fetched",
            self._wanted.boot.version, blocks, skipped, blocks - skipped - missing, missing,
        )  # fmt: skip
        self._note(replace(self._moved, skipped=skipped * BLOCK_BYTES))
        return plan

    async def _write(self, plan: BlockPlan, leaves: bytes, tree: bytes, survey: Survey) -> str | None:
        """Write what is missing; the hash of the whole image if nothing was."""
        tree_block = self._image.data_blocks
        same_tree = await in_thread(self._holds_tree, tree)
        if same_tree:
            self._note(replace(self._moved, skipped=self._moved.skipped + len(tree)))
        if same_tree and plan.count(Kind.KEEP) == len(plan):
            return survey.finish(tree)
        # From here on the slot holds neither the old release nor the new one.
        await in_thread(write_boot_block, self._target, None)
        await self._copy(plan, leaves)
        if plan.count(Kind.FETCH):
            table = FrameTable(self._image, await self._fetch_unpacked_table())
            fetcher = FrameFetcher(self._transfer, self._image, table, plan, leaves, self._writer, self._note_fetched)
            await fetcher.run()
        if not same_tree:
            # Last, since blocks of the old image in its place are sources for copies.
            await in_thread(self._writer.put, tree_block, tree)
            self._note(replace(self._moved, fetched=self._moved.fetched + len(tree)))
        return None

    async def _copy(self, plan: BlockPlan, leaves: bytes) -> None:
        copier = Copier(plan, leaves, Sources(self._target, self._booted), self._writer)
        for first in range(0, len(plan), _COPY_BLOCKS):
            await in_thread(copier.copy, first, min(first + _COPY_BLOCKS, len(plan)))
            self._note(replace(self._moved, reused=copier.reused * BLOCK_BYTES))

    async def _fetch_unpacked_table(self) -> bytes:
        image = self._image
        data = await self._transfer.fetch_file(image.table)
        return unpack(data, 4 * image.frame_count, image.table.path)

    def _holds_tree(self, tree: bytes) -> bool:
        return self._target.read_back(self._image.data_blocks * BLOCK_BYTES, len(tree)) == tree

    def _note_fetched(self, blocks: int) -> None:
        self._note(replace(self._moved, fetched=self._moved.fetched + blocks * BLOCK_BYTES))

    def _note(self, moved: Moved) -> None:
        self._moved = moved
        self._on_progress(moved)


def check_tree_of(image: Image, tree: bytes) -> bytes:
    """The leaves that a hash tree holds, once the signed root hash proves it. Raises StageError Integrity."""
    try:
        return check_tree(tree, image.data_blocks, bytes.fromhex(image.verity_root))
    except VerityError as error:
        raise StageError("Integrity", f"{image.tree.path}: {error}") from error
