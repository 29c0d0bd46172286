"""What ready seconds run from, and what may boot at all (invariant 11)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from careen.core.actions import SetOrder, WriteLock, WriteNote
from careen.core.requests import DEFAULT_TERMS
from reboots import asked, holding, under_order


def test_a_word_that_ready_seconds_run_from_is_bound_to_the_version_it_was_made_from(cluster: Any) -> None:
    """A deposed leader's late word on an earlier boot would count for this one."""
    asked(cluster, "m0")
    under_order(cluster, "Activate", "Verifying", terms=replace(DEFAULT_TERMS, ready_seconds=30))
    holding(cluster)
    (note,) = cluster.find(WriteNote)
    assert (note.note.settled_since, note.resource_version) == (cluster.at, cluster.machines["m0"].resource_version)


def test_ready_seconds_run_anew_after_another_boot(cluster: Any) -> None:
    """A machine that went down and up again before anybody looked has not been Ready for that long."""
    asked(cluster, "m0")
    under_order(cluster, "Activate", "Verifying", terms=replace(DEFAULT_TERMS, ready_seconds=30))
    holding(cluster)
    (first,) = cluster.find(WriteNote)
    cluster.change("m0", note=first.note)
    cluster.at += 30
    assert [action.order.goal for action in cluster.find(SetOrder)] == ["Commit"]
    cluster.change("m0", boot_id="boot-again")
    cluster.change_core("m0", boot_id="boot-again")
    assert cluster.find(SetOrder) == []
    (again,) = cluster.find(WriteNote)
    assert (again.note.settled_since, again.note.settled_boot) == (cluster.at, "boot-again")


@pytest.mark.parametrize(
    ("deadman", "allowed", "granted"),
    [
        ("HardwareWatchdog", False, True), ("TrialTimer", False, True), ("Missing", False, False),
        (None, False, False), ("Missing", True, True), (None, True, True),
    ],
)  # fmt: skip
def test_what_nothing_would_undo_is_not_booted(cluster: Any, deadman: str | None, allowed: bool, granted: bool) -> None:
    cluster.add("m0")
    cluster.set_policy(terms=replace(DEFAULT_TERMS, allow_no_deadman=allowed))
    cluster.give("m0")
    cluster.set_lock()
    cluster.change("m0", deadman=deadman)
    assert bool(cluster.find(WriteLock)) is granted
    if not granted:
        assert cluster.reason("m0") == ("Waiting", "NoDeadman")


def test_a_holder_whose_deadman_is_lost_gives_the_lock_back(cluster: Any) -> None:
    cluster.add("m0")
    cluster.set_policy()
    cluster.give("m0")
    holding(cluster)
    cluster.change("m0", deadman="Missing")
    (given,) = cluster.find(SetOrder)
    assert (given.order.goal, given.order.cause) == ("Abort", "Withdrawn")


def test_staging_does_not_wait_for_a_deadman(cluster: Any) -> None:
    cluster.add("m0")
    cluster.set_policy()
    cluster.set_lock()
    cluster.change("m0", deadman="Missing")
    assert cluster.find(SetOrder)[0].order.goal == "Stage"


def test_a_permission_reaches_a_staged_machine_by_another_order(cluster: Any) -> None:
    cluster.add("m0")
    cluster.set_policy()
    cluster.give("m0")
    cluster.set_lock()
    cluster.change("m0", deadman="Missing")
    cluster.policies["os"] = replace(cluster.policies["os"], terms=replace(DEFAULT_TERMS, allow_no_deadman=True))
    (given,) = cluster.find(SetOrder)
    assert (given.order.goal, given.order.cause) == ("Abort", "Withdrawn")
    cluster.change("m0", order=given.order)
    (given,) = cluster.find(SetOrder)
    assert (given.order.goal, given.order.terms.allow_no_deadman) == ("Stage", True)
