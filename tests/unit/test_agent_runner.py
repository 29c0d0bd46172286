"""The agent's loop against a machine in memory and an API server of one Node that can be made to fail."""

from __future__ import annotations

import asyncio
import copy
from dataclasses import replace
from typing import Any

import pytest

from careen.agent.host import RebootError
from careen.agent.record import Journal, OpenOrder, Stage
from careen.agent.settings import Exit
from careen.agent.staging.fault import StageError
from careen.disk.types import GIVEN_UP, Attributes, DiskBusyError, SlotName
from careen.kube.errors import Conflict, Invalid, Unreachable
from careen.sandbox.memory import MemoryFault
from one_node import NAME, NEW, SETTINGS, Host, OneNode, agent, make_host, until


@pytest.fixture
def api() -> OneNode:
    return OneNode()


@pytest.fixture
def host() -> Host:
    return make_host()


async def test_it_climbs_to_the_reboot_with_four_writes(host: Host, api: OneNode) -> None:
    async with agent(host, api) as task:
        await until(lambda: api.step.get("phase") == "Idle")
        api.give()
        await until(lambda: api.step["phase"] == "Staged")
        api.give("Activate", fromBootID=host.boot_id)
        assert await asyncio.wait_for(task, 5) == Exit("Kexec", "B")
    assert api.phases() == ["Idle", "Staging", "Staged", "Activating"]
    assert len(api.writes) == 4
    assert host.journal is not None
    assert host.journal.open is not None


async def test_idle_it_renews_its_lease_and_writes_nothing(host: Host, api: OneNode) -> None:
    async with agent(host, api):
        await until(lambda: api.leases >= 3)
        assert len(api.writes) == 1
        assert host.answered


async def test_a_hand_on_a_slot_is_reported_though_nothing_wakes_the_agent(host: Host, api: OneNode) -> None:
    async with agent(host, api, replace(SETTINGS, look_seconds=0.05)):
        await until(lambda: api.writes)
        host.slots[SlotName.B] = replace(host.slots[SlotName.B], attributes=Attributes(9, 0, True))
        await until(lambda: api.node["status"]["slots"]["B"]["priority"] == 9)
        written = len(api.writes)
        renewed = api.leases
        await until(lambda: api.leases >= renewed + 2)
        assert len(api.writes) == written, "to look is not to write"


async def test_the_lease_is_the_nodes_and_a_node_that_was_made_again_gets_it_at_once(host: Host, api: OneNode) -> None:
    async with agent(host, api, replace(SETTINGS, renew_seconds=60.0)):
        await until(lambda: api.owners == ["uid-1"])
        api.node["metadata"]["uid"] = "uid-2"
        api.changed()
        await until(lambda: api.owners == ["uid-1", "uid-2"])


async def test_without_a_node_there_is_no_lease_that_nobody_would_remove(host: Host, api: OneNode) -> None:
    node = copy.deepcopy(api.node)
    api.node["metadata"]["name"] = "another"
    async with agent(host, api):
        await asyncio.sleep(0.1)
        assert not api.leases
        api.node = node
        api.changed()
        await until(lambda: api.owners)


async def test_a_node_that_was_made_again_is_told_everything(host: Host, api: OneNode) -> None:
    def make_again(_: Any) -> None:
        api.before_patch = lambda _: None
        metadata = {"name": NAME, "uid": "uid-2", "resourceVersion": "0"}
        api.node = {"metadata": metadata, "spec": api.node["spec"], "status": {}}
        api.changed()

    async with agent(host, api):
        await until(lambda: api.writes)
        api.before_patch = make_again
        api.give()
        await until(lambda: api.step.get("phase") == "Staged")
    assert api.node["metadata"]["uid"] == "uid-2"
    assert {"bootID", "booted", "slots", "protocol"} <= set(api.node["status"])


async def test_what_was_decided_on_an_older_node_is_not_written_but_decided_again(host: Host, api: OneNode) -> None:
    sent: list[Any] = []

    def change_meanwhile(body: Any) -> None:
        sent.append(body)
        if len(sent) == 1:
            # A write of the agent that ran before this one: it was long on its way.
            api.node["status"]["step"] = {"id": "order-0", "phase": "RolledBack", "cause": "Panic"}
            api.changed()

    async with agent(host, api):
        await until(lambda: api.writes)
        api.before_patch = change_meanwhile
        api.give()
        await until(lambda: api.step.get("phase") == "Staged")
    assert len(sent) > 1
    assert (api.step["id"], api.step.get("cause")) == ("order-1", None), "all of the older step was replaced"


async def test_a_refusal_that_brings_no_news_is_not_repeated_at_once(host: Host, api: OneNode) -> None:
    sent: list[Any] = []

    def refuse(body: Any) -> None:
        sent.append(body)
        raise Conflict(409, "Conflict", "the object has been modified")

    async with agent(host, api):
        await until(lambda: api.writes)
        api.before_patch = refuse
        api.give()
        await until(lambda: sent)
        await asyncio.sleep(0.3)
    assert len(sent) == 1


async def test_a_late_question_puts_no_activating_over_the_orders_end(host: Host, api: OneNode) -> None:
    asked: list[Any] = []

    def lose(body: Any) -> None:
        if isinstance(body, list):
            asked.append(copy.deepcopy(body))
            raise Unreachable("no answer within 10 s", method="PATCH", path="x")

    async with agent(host, api):
        api.give()
        await until(lambda: api.step.get("phase") == "Staged")
        api.before_patch = lose
        api.give("Activate", fromBootID=host.boot_id)
        await until(lambda: asked)
    api.before_patch = lambda _: None
    api.node["status"]["step"]["phase"] = "Failed"
    with pytest.raises(Invalid):
        await api.request("PATCH", f"/{NAME}/status", body=asked[0])
    assert api.step["phase"] == "Failed"


async def test_an_abort_that_comes_before_the_request_wins(host: Host, api: OneNode) -> None:
    def withdraw(body: Any) -> None:
        if isinstance(body, list):
            api.give("Abort", cause="Withdrawn", fromBootID=host.boot_id)

    async with agent(host, api):
        api.give()
        await until(lambda: api.step.get("phase") == "Staged")
        api.before_patch = withdraw
        api.give("Activate", fromBootID=host.boot_id)
        await until(lambda: api.step["phase"] == "Idle")
    assert "Activating" not in api.phases()
    assert host.slots[SlotName.B].attributes == GIVEN_UP


async def test_without_an_answer_it_does_not_activate_until_there_is_one(host: Host, api: OneNode) -> None:
    silent = True

    def refuse(body: Any) -> None:
        if silent and isinstance(body, list):
            raise Unreachable("no answer within 10 s", method="PATCH", path="x")

    async with agent(host, api) as task:
        api.give()
        await until(lambda: api.step.get("phase") == "Staged")
        api.before_patch = refuse
        api.give("Activate", fromBootID=host.boot_id)
        await asyncio.sleep(0.3)
        assert host.slots[SlotName.B].attributes == GIVEN_UP
        assert host.journal is not None
        assert host.journal.open is None
        silent = False
        assert await asyncio.wait_for(task, 5) == Exit("Kexec", "B")


async def test_a_failed_staging_is_shown_and_tried_again(host: Host, api: OneNode) -> None:
    host.stage_faults = [StageError("Integrity", "other contents")]
    async with agent(host, api):
        api.give()
        await until(lambda: api.step.get("phase") == "Failed")
        assert api.step["error"] == {"class": "Integrity", "message": "other contents"}
        await until(lambda: api.step["phase"] == "Staged")
        assert "error" not in api.step


async def test_an_abort_ends_a_staging_under_way(host: Host, api: OneNode) -> None:
    host.hold = asyncio.Event()
    async with agent(host, api):
        api.give()
        await until(lambda: api.step.get("progress", {}).get("bytesFetched"))
        api.give("Abort", cause="People")
        await until(lambda: api.step["phase"] == "Idle")
        assert api.step["cause"] == "People"
        assert host.slots[SlotName.B].digest is None


async def test_a_refused_reboot_is_undone_and_does_not_spoil_the_next_order(host: Host, api: OneNode) -> None:
    host.reboot_faults = [RebootError("kexec_load: EPERM")]
    async with agent(host, api) as task:
        api.give()
        await until(lambda: api.step.get("phase") == "Staged")
        api.give("Activate", fromBootID=host.boot_id)
        await until(lambda: api.step["phase"] == "Failed")
        assert api.step["error"] == {"class": "Boot", "message": "kexec_load: EPERM"}
        assert host.slots[SlotName.B].attributes == GIVEN_UP
        api.give(order="order-2")
        await until(lambda: (api.step["id"], api.step["phase"]) == ("order-2", "Staged"))
        api.give("Activate", order="order-2", fromBootID=host.boot_id)
        assert await asyncio.wait_for(task, 5) == Exit("Kexec", "B")


async def test_a_disk_that_is_busy_for_a_moment_does_not_end_the_order(host: Host, api: OneNode) -> None:
    host.arm_faults = [DiskBusyError("disk.img is locked by another process")]
    async with agent(host, api) as task:
        api.give()
        await until(lambda: api.step.get("phase") == "Staged")
        api.give("Activate", fromBootID=host.boot_id)
        assert await asyncio.wait_for(task, 5) == Exit("Kexec", "B")


async def test_a_bug_is_shown_and_does_not_end_the_agent(host: Host, api: OneNode) -> None:
    host.stage_faults = [ZeroDivisionError("division by zero")]
    async with agent(host, api):
        api.give()
        await until(lambda: api.step.get("phase") == "Failed")
        assert api.step["error"] == {"class": "Internal", "message": "ZeroDivisionError: division by zero"}
        await until(lambda: api.step["phase"] == "Staged")


async def test_how_much_was_fetched_reused_and_skipped_is_in_the_status(host: Host, api: OneNode) -> None:
    host.hold = asyncio.Event()
    async with agent(host, api):
        api.give()
        await until(lambda: api.step.get("progress", {}).get("bytesFetched") == 1)
        assert api.step["progress"] == {"bytesTotal": 100, "bytesReused": 0, "bytesFetched": 1, "bytesSkipped": 0}
        host.hold.set()
        await until(lambda: api.step["phase"] == "Staged")
        assert api.step["progress"] == {"bytesTotal": 100, "bytesReused": 0, "bytesFetched": 100, "bytesSkipped": 0}


async def test_a_trial_that_was_well_goes_back_only_if_it_stays_unwell(
    host: Host, api: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("careen.agent.trial.GATE_POLL_SECONDS", 0.02)
    b = host.slots[SlotName.B]
    host.slots[SlotName.B] = replace(b, attributes=Attributes(2, 0, False), digest=NEW, version="2.0.0")
    # It came up late, and has not asked the API server before.
    host.booted, host.booted_at = SlotName.B, host.booted_at - 1000
    opened = OpenOrder(
        "order-1", NEW, "2.0.0", SlotName.A, SlotName.B, "before", "Kexec", 0, 300, "Rollback", Stage.REQUESTED
    )
    host.journal = Journal("m-id", boots=("before",), open=opened)
    api.give("Activate", fromBootID="before")
    async with agent(host, api):
        await until(lambda: api.step.get("phase") == "Verifying")
        host.faults = {"2.0.0": MemoryFault.UNHEALTHY}
        await until(lambda: "error" in api.step)
        await asyncio.sleep(0.1)
        assert host.journal.open is not None
        assert host.journal.open.verdict is None
        host.booted_at -= 60
        await until(lambda: host.journal and host.journal.open and host.journal.open.cause == "LocalGate")
