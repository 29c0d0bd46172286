"""Work in threads is never left behind."""

from __future__ import annotations

import asyncio
import threading

import pytest

from careen.agent.threads import in_thread


async def test_cancelled_it_waits_for_the_thread_that_writes() -> None:
    may_end, ended = threading.Event(), threading.Event()

    def work() -> None:
        may_end.wait(5)
        ended.set()

    task = asyncio.create_task(in_thread(work))
    await asyncio.sleep(0.05)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0.05)
        assert not task.done(), "the caller would close the file that the thread writes to"
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
