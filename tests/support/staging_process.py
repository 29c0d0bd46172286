"""One staging as a process of its own: `python staging_process.py JOB.json`. It tells its peak memory at the end.

With kills in the job, it first begins so many stagings, each in a fork, and kills each at a random point.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp

# What a whole agent has loaded once it has looked at a release's signatures, so that the peak is an agent's.
import careen.agent.app
import careen.agent.linux.host
import careen.release.client
from careen.agent.memory import limit_arenas
from careen.agent.staging.stage import Wanted, stage_release
from careen.disk.image import open_passive, open_slot
from careen.disk.types import SlotName
from careen.release.bootblock import BootBlock
from careen.release.manifest import Image

__all__ = ["careen"]


async def run(job: dict[str, Any]) -> None:
    """Stage what the job says into slot B of a disk image."""
    disk = Path(job["disk"])
    wanted = Wanted(Image.model_validate(job["image"]), BootBlock.model_validate(job["boot"]), [job["url"]])
    with ExitStack() as stack:
        target = stack.enter_context(open_passive(disk, SlotName.B, booted=SlotName.A))
        booted = stack.enter_context(open_slot(disk, SlotName.A)) if job["copy"] else None
        async with aiohttp.ClientSession() as http:
            await stage_release(http, wanted, target, booted, lambda _: None)


def peak_bytes() -> int:
    """Peak resident memory of this process. VmHWM: getrusage would tell of the parent's peak before the exec, too."""
    words = Path("/proc/self/status").read_text().split()
    return int(words[words.index("VmHWM:") + 1]) * 1024


def kill_some(job: dict[str, Any]) -> int:
    """Begin and kill stagings; how many were not done yet. A fork begins at once, a Python only after a while."""
    dice, unfinished = random.Random(job["seed"]), 0
    for _ in range(job["kills"]):
        child = os.fork()
        if child == 0:
            asyncio.run(run(job))
            os._exit(0)
        time.sleep(dice.random() * job["longest"])
        os.kill(child, signal.SIGKILL)
        unfinished += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    return unfinished


def main() -> None:
    """Do the job, and tell what came of it as JSON."""
    limit_arenas()
    job = json.loads(Path(sys.argv[1]).read_bytes())
    killed = kill_some(job) if job.get("kills") else 0
    began = time.monotonic()
    asyncio.run(run(job))
    print(json.dumps({"peak": peak_bytes(), "killed": killed, "seconds": time.monotonic() - began}))


if __name__ == "__main__":
    main()
