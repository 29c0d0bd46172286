"""A staging in a process of its own: killed a hundred times on its way, and its memory."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientConnectionResetError, web

from careen.agent.staging.frames import IN_FLIGHT
from careen.agent.staging.slot import check_slot, read_boot_block
from careen.disk.image import create_image, fill_slot, open_slot
from careen.disk.types import SlotName
from stagings import FRAME, Fault, FileServer, Made, make_blocks, make_release

Serve = Callable[..., Awaitable[FileServer]]
SUPPORT = Path(__file__).parents[2] / "support"
KILLS = 100
LONGEST_LIFE = 0.5
FRAME_SECONDS = 0.12
"""With 384 frames: 46 s without a kill, when all lives together last 25 s."""
MIB = 1 << 20


def write_job(folder: Path, made: Made, server: FileServer, slot_bytes: int, **more: Any) -> Path:
    """A disk with an empty slot B, and the order to stage the release into it."""
    disk = folder / "disk.img"
    create_image(disk, usr_bytes=slot_bytes, root_bytes=MIB)
    job = folder / "job.json"
    document = {
        "disk": str(disk),
        "image": made.image.model_dump(mode="json"),
        "boot": made.boot.model_dump(mode="json"),
        "url": server.url,
        "copy": False,
    }
    job.write_text(json.dumps(document | more))
    return job


async def run(job: Path) -> dict[str, int]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SUPPORT / "staging_process.py"),
        str(job),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    found: dict[str, int] = json.loads(out)
    return found


def drip() -> Fault:
    """One frame at a time over all requests, so slowly that the last kill comes before the last frame.

    A pace of each request alone would not do: each life begins several, and a quick machine would be done too soon.
    """
    turn = asyncio.Lock()

    async def answer(server: FileServer, request: web.Request, data: bytes, start: int, length: int) -> Any:
        if not request.path.endswith(".frames"):
            return None
        content_range = f"bytes {start}-{start + length - 1}/{len(data)}"
        headers = {"Content-Range": content_range, "Content-Length": str(length)}
        response = web.StreamResponse(status=206, headers=headers)
        await response.prepare(request)
        for at in range(start, start + length, FRAME):
            async with turn:
                if request.transport is None:  # killed meanwhile: the next life need not wait for its frames
                    return response
                await asyncio.sleep(FRAME_SECONDS)
            part = data[at : min(at + FRAME, start + length)]
            with suppress(ClientConnectionResetError):
                await response.write(part)
                server.sent += len(part)
        return response

    return answer


@pytest.mark.slow
async def test_killed_a_hundred_times(tmp_path: Path, serve: Serve) -> None:
    """SIGKILL at random points, and at last a run that may end. What was done is not fetched again."""
    made = make_release(make_blocks(24 * MIB // 4096, 11))
    server = await serve(made, drip())
    job = write_job(tmp_path, made, server, 32 * MIB, kills=KILLS, seed=12, longest=LONGEST_LIFE)
    found = await run(job)
    assert found["killed"] == KILLS, "the staging was done before its last kill: make FRAME_SECONDS longer"
    with open_slot(tmp_path / "disk.img", SlotName.B) as slot:
        assert check_slot(slot, made.image) is None
        assert read_boot_block(slot) == made.boot
    twice = server.sent - server.asked(".tree") - server.asked(".table") - made.image.frames.length
    per_kill = twice / KILLS / FRAME
    print(f"{KILLS} kills, {per_kill:.1f} frames fetched twice for each")
    # Frames in flight: those on their way in each of the requests, and those held back for BATCH_SECONDS.
    assert per_kill <= IN_FLIGHT * 4


@pytest.mark.parametrize("copy", [False, True])
async def test_memory(tmp_path: Path, serve: Serve, copy: bool) -> None:
    """The peak of a process that stages 96 MiB, with everything that an agent loads."""
    made = make_release(make_blocks(96 * MIB // 4096, 13))
    server = await serve(made)
    job = write_job(tmp_path, made, server, 104 * MIB, copy=copy)
    if copy:
        image = tmp_path / "image"
        image.write_bytes(made.whole)
        fill_slot(tmp_path / "disk.img", SlotName.A, image)
    found = await run(job)
    print(f"peak {found['peak'] / 1e6:.0f} MB")
    assert found["peak"] < 96 * 1000**2
