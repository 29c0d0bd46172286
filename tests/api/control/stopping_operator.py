"""`careen operator` that stops itself (SIGSTOP) once in the middle of a grant, when a file says where.

Run as a script: `stopping_operator.py FILE OPTIONS…`. The file's word is `plan`: stop when a plan with a grant is made
and nothing of it has been written; or `write`: stop when the lock's write has passed every check of this process. The
file is removed before the stop, so that one process stops once.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from careen.cli.main import run
from careen.control import app, execute, loop
from careen.core.actions import WriteLock


def stop_at(place: str) -> None:
    """Stop here if the file says so; SIGCONT goes on."""
    try:
        if FILE.read_text() != place:
            return
        FILE.unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGSTOP)


def make_plan(snapshot, now, roster):
    plan = MAKE_PLAN(snapshot, now, roster)
    if any(isinstance(action, WriteLock) and action.granted for action in plan.actions):
        stop_at("plan")
    return plan


async def write_lock(executor, action):
    if action.granted:
        stop_at("write")
    # As if it had left the process before the stop: the leader's end, on waking up, must not call it back.
    return await asyncio.shield(asyncio.create_task(WRITE_LOCK(executor, action)))


FILE = Path(sys.argv[1])
MAKE_PLAN, loop.make_plan = loop.make_plan, make_plan
WRITE_LOCK, execute._DOERS[WriteLock] = execute._DOERS[WriteLock], write_lock
# So that the audit log tells the processes apart.
app.__version__ = sys.argv[sys.argv.index("--identity") + 1]
sys.exit(run("careen", ["operator", *sys.argv[2:]]))
