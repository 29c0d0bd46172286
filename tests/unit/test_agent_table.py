"""A damaged copy of the partition table: told, and put right while nothing else is to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent_views import STAGED, A, old_boot, order_document, quiet, settle, slot_a, slot_b, trial_boot
from careen.agent.record import Fault, TableRepair
from careen.agent.step import AgentView, DiskView, RepairTable, StageImage, Trouble, Wait, WriteStatus, next_step

FAULT = "the backup copy is not valid: no GPT signature at LBA 2047"
REPAIR = TableRepair("2026-01-01T00:00:00Z", (FAULT,))


def damaged(view: AgentView, **changes: Any) -> AgentView:
    return replace(view, disk=replace(view.disk, faults=(FAULT,), **changes))


def gpt(view: AgentView) -> Any:
    node = settle(view)[0].node
    assert node is not None
    return node.status.get("gpt")


def test_an_idle_machine_tells_of_the_fault_then_repairs_it_and_tells_that() -> None:
    view = damaged(old_boot())
    assert gpt(view) == {"faults": [FAULT]}
    assert settle(view)[1] == RepairTable()
    repaired = replace(quiet(view), disk=replace(view.disk, faults=(), repair=REPAIR))
    step = next_step(repaired)
    assert isinstance(step, WriteStatus)
    assert gpt(repaired) == {"repairedAt": "2026-01-01T00:00:00Z", "repaired": [FAULT]}
    assert next_step(quiet(repaired)) == Wait()


def test_a_machine_that_the_api_server_does_not_know_repairs_too() -> None:
    assert next_step(replace(damaged(old_boot()), node=None)) == RepairTable()


@pytest.mark.parametrize(
    "view",
    [
        old_boot(order_document()),
        old_boot(order_document(), disk=DiskView(A, slot_a(), STAGED)),
        trial_boot(order_document("Activate")),
    ],
    ids=["staging", "staged", "on trial"],
)
def test_an_order_goes_first(view: AgentView) -> None:
    assert settle(damaged(view))[1] == settle(view)[1]


def test_a_repair_that_fails_is_tried_again_in_time_and_does_not_stop_an_order() -> None:
    trouble = Trouble("", "RepairTable", Fault("Disk", "EIO"), 5, 1100.0)
    view = damaged(old_boot(), repair=None)
    view = replace(view, trouble=trouble)
    assert settle(view)[1] == Wait(1100.0)
    assert gpt(view) == {"faults": [FAULT]}
    ordered = damaged(old_boot(order_document(), disk=DiskView(A, slot_a(), slot_b())))
    assert isinstance(settle(replace(ordered, trouble=trouble))[1], StageImage)
