"""From goal Stage to a slot that holds the release, one table for each rule of the ladder."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent_views import (
    GOOD,
    IMAGE,
    NEW,
    OLD,
    PLACE,
    STAGED,
    TRIAL,
    A,
    B,
    failed,
    node,
    old_boot,
    order_document,
    progress,
    quiet,
    settle,
    shown,
    slot_a,
    slot_b,
)
from careen.agent.record import Fault, Journal, Rejection
from careen.agent.step import (
    Disarm,
    DiskView,
    InvalidateSlot,
    Moved,
    SlotView,
    StageImage,
    VerifySlot,
    Wait,
    WriteJournal,
    WriteStatus,
    next_step,
    next_trouble,
    report_progress,
    still_wanted,
)
from careen.disk.types import Attributes


def test_staging_reports_then_fetches_into_the_empty_slot() -> None:
    view = old_boot(order_document())
    assert shown(view) == {
        "id": "order-1", "observedGoal": "Stage", "phase": "Staging",
        "progress": progress(0),
    }  # fmt: skip
    assert settle(view)[1] == IMAGE


@pytest.mark.parametrize("passive", [slot_b(attributes=GOOD, digest="sha256:" + "0" * 64), slot_b(digest="x")])
def test_the_passive_slot_is_given_up_before_its_first_byte(passive: SlotView) -> None:
    view = old_boot(order_document(), disk=DiskView(A, slot_a(), passive))
    assert settle(view)[1] == InvalidateSlot(B, IMAGE)


def test_an_armed_slot_that_no_journal_knows_is_disarmed_first() -> None:
    view = old_boot(order_document(), disk=DiskView(A, slot_a(), replace(STAGED, attributes=Attributes(2, 1, False))))
    assert next_step(view) == Disarm(B)


def test_the_passive_slot_is_left_alone_while_the_booted_one_is_not_good() -> None:
    view = old_boot(order_document(), disk=DiskView(A, slot_a(attributes=TRIAL), slot_b()))
    assert settle(view)[1] == Wait()
    assert shown(view)["error"]["class"] == "Disk"


def test_what_is_there_already_is_staged_without_a_fetch() -> None:
    unchecked = replace(STAGED, checked=None)
    view = old_boot(order_document(), disk=DiskView(A, slot_a(), unchecked))
    assert settle(view)[1] == VerifySlot(B, NEW, 100, "2.0.0", "stage", *PLACE)
    view = replace(view, disk=DiskView(A, slot_a(), STAGED))
    assert (shown(view)["phase"], settle(view)[1]) == ("Staged", Wait())


@pytest.mark.parametrize("goal", ["Stage", "Activate"])
@pytest.mark.parametrize("checked", ["stage", "order-1"])
def test_an_older_release_that_is_there_already_needs_leave_too(goal: str, checked: str) -> None:
    """The slot was filled by an installer, or for an order that allowed it."""
    older = slot_b(digest=NEW, version="0.5.0", checked=checked)
    release = {"version": "0.5.0"}
    view = old_boot(order_document(goal, release=release), disk=DiskView(A, slot_a(), older), granted="order-1")
    step = settle(view)[1]
    if isinstance(step, WriteJournal):
        end = step.journal.find_ended("order-1")
        assert end is not None
        assert (end.phase, end.fault.class_ if end.fault else "") == ("Failed", "Refused")
    else:
        assert (goal, shown(view)["error"]["class"], step) == ("Stage", "Refused", Wait())
    allowed = order_document(goal, release=release)
    allowed["terms"]["allowDowngrade"] = True
    again = replace(view, node=node(allowed))
    if goal == "Stage":
        assert shown(again)["phase"] == "Staged"
    elif checked == "order-1":
        step = settle(again)[1]
        assert isinstance(step, WriteJournal)
        assert step.journal.open is not None
    else:
        assert settle(again)[1] == VerifySlot(B, NEW, 100, "0.5.0", "order-1", *PLACE, allow_downgrade=True)


def test_the_release_that_runs_and_is_good_is_committed_at_once() -> None:
    view = old_boot(order_document(release={"digest": OLD, "version": "1.0.0"}))
    assert (shown(view)["phase"], shown(view)["verdict"], settle(view)[1]) == ("Committed", "COMMIT", Wait())


def test_a_running_slot_without_a_record_is_hashed_if_its_version_fits() -> None:
    same = order_document(release={"digest": OLD, "version": "1.0.0"})
    view = old_boot(same, disk=DiskView(A, slot_a(digest=None), slot_b()))
    assert settle(view)[1] == VerifySlot(A, OLD, 100, "1.0.0", "booted", *PLACE)
    other = old_boot(order_document(), disk=DiskView(A, slot_a(digest=None), slot_b()))
    assert isinstance(settle(other)[1], StageImage)


def test_an_image_that_does_not_fit_is_refused_before_anything_is_written() -> None:
    view = old_boot(order_document(release={"sizeBytes": 4097}), disk=DiskView(A, slot_a(), slot_b(attributes=GOOD)))
    assert shown(view)["error"]["class"] == "Size"
    assert settle(view)[1] == Wait()


def test_a_failed_staging_says_so_and_is_tried_again_in_time() -> None:
    view = old_boot(order_document(), trouble=failed(3))
    assert shown(view) == {
        "id": "order-1", "observedGoal": "Stage", "phase": "Failed",
        "error": {"class": "Transfer", "message": "short"},
    }  # fmt: skip
    assert settle(view)[1] == Wait(1004.0)
    later = replace(quiet(view), boot=replace(view.boot, uptime=1004.0))
    assert isinstance(next_step(later), StageImage), "no status write between Failed and the next try"


def test_the_first_bytes_of_the_next_try_end_the_phase_failed() -> None:
    view = replace(quiet(old_boot(order_document(), trouble=failed(3))), trouble=failed(3, retrying=True))
    write = report_progress(view, IMAGE, Moved(fetched=50))
    assert write is not None
    assert write.status["step"]["phase"] == "Staging"
    assert write.status["step"]["error"] is None
    assert write.status["step"]["progress"] == progress(50)


def test_progress_alone_never_causes_another_write() -> None:
    view = quiet(old_boot(order_document()))
    assert isinstance(next_step(replace(view, moved=Moved(fetched=60))), StageImage)
    write = report_progress(view, IMAGE, Moved(fetched=60))
    assert write == WriteStatus("uid-1", {"step": {"progress": progress(60)}}, "7")


def test_a_new_order_forgets_the_trouble_of_the_old_one() -> None:
    view = old_boot(order_document(id="order-2"), trouble=failed(9, not_before=9999.0))
    assert isinstance(settle(view)[1], StageImage)


def test_the_back_off_doubles_up_to_five_minutes() -> None:
    trouble, pauses = None, []
    for _ in range(12):
        trouble = next_trouble(trouble, "o", "StageImage", Fault("Transfer", ""), now=0.0)
        pauses.append(trouble.not_before)
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert next_trouble(trouble, "o2", "StageImage", Fault("Transfer", ""), now=0.0).failures == 1
    assert next_trouble(None, "o", "StageImage", Fault("Transfer", ""), now=0.0, jitter=-1.0).not_before == 0.8


@pytest.mark.parametrize(
    ("assignment", "wanted"),
    [
        (order_document(), True),
        (order_document("Activate"), True),
        (order_document("Abort"), False),
        (order_document(id="order-2"), False),
        (None, False),
    ],
)
def test_a_staging_ends_when_nobody_wants_it(assignment: Any, wanted: bool) -> None:
    assert still_wanted(old_boot(assignment), IMAGE) is wanted


@pytest.mark.parametrize(("retry", "refused"), [(0, True), (2, True), (3, False)])
def test_a_rejected_digest_is_refused_until_people_retry(retry: int, refused: bool) -> None:
    journal = Journal("m-id", boots=("boot-1",), rejected=(Rejection(NEW, "Panic", 2),))
    view = replace(old_boot(journal=journal), node=node(order_document(), retry=retry))
    step = shown(view)
    assert (step["phase"] == "Failed") is refused
    if refused:
        assert step["error"]["class"] == "Refused"
        assert "Panic" in step["error"]["message"]
        assert settle(view)[1] == Wait()
