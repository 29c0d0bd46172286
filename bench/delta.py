"""What a machine fetches to go from a Debian base system to its security update, beside casync and xdelta3.

Both images are built from pinned package versions (tools/testos), and every figure is of one run on one machine. The
staging is the agent's own, from a real disk image, over HTTP; the server counts what it sends.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web

from careen.agent.staging.frames import FrameTable, unpack
from careen.agent.staging.stage import Wanted, stage_release
from careen.disk.image import create_image, fill_slot, open_passive, open_slot
from careen.disk.table import read_slots
from careen.disk.types import SlotName
from careen.release.bootblock import BootBlock
from careen.release.manifest import Image
from careen.release.verity import BLOCK_BYTES, check_tree, hash_block
from testos.debian import PackageSet
from testos.image import OsImage, build_image
from testos.tree import Flavor
from testos.variant import Variant

MIB = 1 << 20


@dataclass
class Sent:
    """What the server was asked for."""

    files: dict[str, int] = field(default_factory=dict)
    """Bytes of bodies by path."""
    parts: list[tuple[int, int]] = field(default_factory=list)
    """First byte and length of each part of the frames file."""


@dataclass(frozen=True)
class Delta:
    """The figures. All sizes in bytes."""

    image: int
    full: int
    """The whole image, compressed by zstd at the level of the frames."""
    index: int
    """Tree and frame table as fetched."""
    frames: int
    """Frames as fetched."""
    exact: bool
    """Whether the frames fetched are those that hold a missing block, and no other."""
    missing: int
    """Blocks that are nowhere on the machine."""
    blocks: int
    seconds: float
    """How long the staging took."""
    casync: int
    """New chunks and the index, as `casync make` stores them."""
    xdelta: int
    """The patch that `xdelta3 -9` makes for this very pair."""

    @property
    def share(self) -> float:
        """Index and frames as a share of the full image."""
        return (self.index + self.frames) / self.full


def measure() -> Delta:
    """Build what is not in the cache, stage, and let the others have their turn. Needs root for the build."""
    one = build_image(Variant("1"), packages=PackageSet.BASE, flavor=Flavor.FULL)
    two = build_image(Variant("2"), packages=PackageSet.SECURITY, flavor=Flavor.FULL)
    image = two.document.images["x86_64"]
    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:
        folder = Path(scratch)
        began = time.monotonic()
        sent = asyncio.run(_stage(one, two, folder))
        seconds = time.monotonic() - began
        wanted, missing = _find_missing(one, two)
        return Delta(
            image=image.size,
            full=_compress(two.image, level=9),
            index=sent.files[image.tree.path] + sent.files[image.table.path],
            frames=sent.files[image.frames.path],
            exact=_frames_of(two, sent.parts) == wanted,
            missing=missing,
            blocks=image.data_blocks,
            seconds=seconds,
            casync=_try_casync(one.image, two.image, folder),
            xdelta=_try_xdelta(one.image, two.image, folder),
        )


async def _stage(one: OsImage, two: OsImage, folder: Path) -> Sent:
    image, disk = two.document.images["x86_64"], folder / "disk.img"
    slot_bytes = -(-(image.size + BLOCK_BYTES) // MIB) * MIB
    create_image(disk, usr_bytes=slot_bytes, root_bytes=MIB)
    fill_slot(disk, SlotName.A, one.image)
    _write_boot_block(disk, one.block)
    sent = Sent()
    async with _serve(two.folder, image, sent) as url, aiohttp.ClientSession() as http:
        with open_passive(disk, SlotName.B, booted=SlotName.A) as passive, open_slot(disk, SlotName.A) as booted:
            await stage_release(http, Wanted(image, two.block, [url]), passive, booted, lambda _: None)
    return sent


def _write_boot_block(disk: Path, block: BootBlock) -> None:
    slot = read_slots(disk)[SlotName.A]
    place = slot.start + slot.size - BLOCK_BYTES
    with disk.open("r+b") as file:
        file.seek(place)
        file.write(block.encode())


@asynccontextmanager
async def _serve(folder: Path, image: Image, sent: Sent) -> AsyncIterator[str]:
    """The built release over HTTP, on a free port of the loopback."""

    async def answer(request: web.Request) -> web.StreamResponse:
        path = request.path.lstrip("/")
        part = request.http_range
        length = (folder / path).stat().st_size
        if part.start is not None:
            length = part.stop - part.start
            if path == image.frames.path:
                sent.parts.append((part.start, length))
        sent.files[path] = sent.files.get(path, 0) + length
        return web.FileResponse(folder / path)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def _leaves(built: OsImage) -> bytes:
    image = built.document.images["x86_64"]
    tree = unpack((built.folder / image.tree.path).read_bytes(), image.tree_bytes, image.tree.path)
    return check_tree(tree, image.data_blocks, bytes.fromhex(image.verity_root))


def _blocks(leaves: bytes) -> Iterator[bytes]:
    return (leaves[at : at + 32] for at in range(0, len(leaves), 32))


def _find_missing(one: OsImage, two: OsImage) -> tuple[set[int], int]:
    """Frames that hold a block which is nowhere in image one, and the number of such blocks."""
    known = {*_blocks(_leaves(one)), hash_block(bytes(BLOCK_BYTES))}
    missing = [at for at, leaf in enumerate(_blocks(_leaves(two))) if leaf not in known]
    return {at // two.document.images["x86_64"].frame_blocks for at in missing}, len(missing)


def _frames_of(two: OsImage, parts: list[tuple[int, int]]) -> set[int]:
    """The frames that the parts asked for are made of."""
    image = two.document.images["x86_64"]
    table = FrameTable(image, unpack((two.folder / image.table.path).read_bytes(), 4 * image.frame_count, "table"))
    starts = {start: frame for frame, start in enumerate(table.offsets)}
    return {frame for first, length in parts for frame in range(starts[first], starts[first + length])}


def _compress(image: Path, *, level: int) -> int:
    command = f"zstd -T2 -q -{level} -c {image} | wc -c"
    return int(subprocess.run(["bash", "-c", command], check=True, capture_output=True).stdout)


def _try_casync(one: Path, two: Path, folder: Path) -> int:
    sizes = []
    for name, image in (("one", one), ("two", two)):
        store = folder / "store"
        index = folder / f"{name}.caibx"
        subprocess.run(["casync", "make", f"--store={store}", index, image], check=True, capture_output=True)
        sizes.append(sum(path.stat().st_size for path in store.rglob("*.cacnk")))
    return sizes[1] - sizes[0] + (folder / "two.caibx").stat().st_size


def _try_xdelta(one: Path, two: Path, folder: Path) -> int:
    patch = folder / "patch.xdelta"
    subprocess.run(["xdelta3", "-e", "-9", "-B", str(1 << 29), "-s", one, two, patch], check=True)
    return patch.stat().st_size
