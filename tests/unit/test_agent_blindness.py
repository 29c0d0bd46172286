"""A machine that can't be looked at, and what the agent's log says of what it does."""

from __future__ import annotations

import asyncio
import logging

import pytest

from careen.agent import runner
from careen.disk.types import GptInvalidError
from one_node import Host, OneNode, agent, make_host, until


@pytest.fixture
def api() -> OneNode:
    return OneNode()


@pytest.fixture
def host() -> Host:
    return make_host()


async def test_a_disk_without_a_table_is_told_and_nothing_is_done_until_it_has_one(
    host: Host, api: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "BLIND_SECONDS", 0.02)
    async with agent(host, api) as task:
        await until(lambda: api.step.get("phase") == "Idle")
        host.look_fault = GptInvalidError("/dev/vda has no GPT: both copies are damaged")
        api.give()
        await until(lambda: api.step.get("error"))
        assert api.step["error"] == {"class": "Disk", "message": "/dev/vda has no GPT: both copies are damaged"}
        assert api.step["phase"] == "Idle"
        writes = len(api.writes)
        await asyncio.sleep(0.2)
        assert len(api.writes) == writes
        assert not task.done()
        host.look_fault = None
        await until(lambda: api.step["phase"] == "Staged")
        assert "error" not in api.step


async def test_a_machine_that_stays_blind_says_so_once_in_its_log(
    host: Host, api: OneNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runner, "BLIND_SECONDS", 0.01)
    host.look_fault = GptInvalidError("both copies are damaged")
    with caplog.at_level(logging.INFO, "careen.agent.runner"):
        async with agent(host, api):
            # Blind from its start: the Node learns it all the same.
            await until(lambda: api.step.get("error", {}).get("class") == "Disk")
            await asyncio.sleep(0.2)
            host.look_fault = None
            await until(lambda: "error" not in api.step)
    said = [record.message for record in caplog.records if "can't be looked at" in record.message]
    assert said == ["m: the machine can't be looked at, so nothing is done: both copies are damaged"]
    assert "the machine can be looked at again" in caplog.text


async def test_what_is_done_to_the_machine_is_logged_with_its_order(
    host: Host, api: OneNode, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "careen.agent.runner"):
        async with agent(host, api) as task:
            await until(lambda: api.step.get("phase") == "Idle")
            api.give()
            await until(lambda: api.step.get("phase") == "Staged")
            api.give("Activate", fromBootID=host.boot_id)
            await asyncio.wait_for(task, 5)
    done = [record.message for record in caplog.records if record.name == "careen.agent.runner"]
    for action in ("StageImage", "RequestActivation", "WriteJournal ARMED", "ArmSlot", "RequestReboot"):
        lines = [line for line in done if action.lower() in line.lower()]
        assert lines, (action, done)
        assert all(line.endswith(" for order-1") for line in lines), lines
