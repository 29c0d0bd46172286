"""The executor: what it leaves alone, and for how long."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from careen.control import execute
from careen.control.execute import Executor
from careen.core.actions import DeleteNode, Evict
from careen.kube import write
from careen.kube.errors import ServerError


def build(monkeypatch: pytest.MonkeyPatch) -> tuple[Executor, SimpleNamespace]:
    """An executor without an API server; the clock is `at`."""
    state = SimpleNamespace(at=1000.0, deletes=0, forgotten=[])
    store = SimpleNamespace(objects={}, forget=lambda *key: state.forgotten.append(key))
    world = SimpleNamespace(machines=store, cores=store, policies=store, locks=store, now=lambda: state.at)
    monkeypatch.setattr(execute.time, "monotonic", lambda: state.at)
    made: Any = Executor(None, world, "me", wake=lambda: None, may_write=lambda: True)  # type: ignore[arg-type]
    return made, state


async def settle(executor: Executor) -> None:
    await asyncio.gather(*executor._running.values())


async def test_a_node_that_a_finalizer_keeps_is_not_deleted_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    executor, state = build(monkeypatch)

    async def delete(*_: Any, **__: Any) -> write.Deletion:
        return write.Deletion.TERMINATING

    monkeypatch.setattr(execute.write, "delete", delete)
    executor.submit(DeleteNode("m0", "uid-m0"))
    await settle(executor)
    assert executor.busy() == {("Node", "m0")}
    assert not state.forgotten
    state.at += execute.LAST_BACKOFF + 1
    assert not executor.busy()


@pytest.mark.parametrize("error", [ServerError(500, "", "boom"), KeyError("spec")])
async def test_what_fails_is_tried_again_later_and_forgotten_in_the_end(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    executor, state = build(monkeypatch)

    async def evict(*_: Any) -> None:
        raise error

    monkeypatch.setattr(execute, "evict", evict)
    for pause in (execute.FIRST_BACKOFF, 2 * execute.FIRST_BACKOFF):
        executor.submit(Evict("ns", "p", "uid-p", "m0"))
        await settle(executor)
        state.at += pause * 0.9
        assert executor.busy() == {("Pod", "uid-p")}
        state.at += pause * 0.2
        assert not executor.busy()
    state.at += execute.FAILURE_MEMORY + 1
    executor.busy()
    assert not executor._holds
