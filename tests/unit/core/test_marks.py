"""Cordon marks: taken back when no order needs them any more, whichever way the order went."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from careen.core.actions import SetOrder, Uncordon, WriteLock
from careen.core.snapshot import Step
from careen.core.wishes import Request

REBOOT = Request("Reboot", "r1")


@pytest.fixture
def replaced(cluster: Any) -> str:
    """m0 holds the lock and its cordon for a staged update, whose place a request took while the grant was on its way.

    The id of that update's order.
    """
    cluster.add("m0")
    cluster.set_policy()
    update = cluster.give("m0")
    cluster.set_lock("m0")
    cluster.change_core("m0", unschedulable=True, cordoned_for=update.id)
    (given,) = give_request(cluster)
    cluster.change("m0", order=given.order, step=Step(given.order.id, "Stage", "Staged"))
    return str(update.id)


def give_request(cluster: Any) -> list[SetOrder]:
    """The order for a reboot, from a plan that does not know of the grant."""
    cluster.change("m0", request=REBOOT)
    locks = dict(cluster.locks)
    cluster.set_lock()
    given = cluster.find(SetOrder)
    cluster.locks = locks
    return list(given)


def test_the_cordon_of_an_order_that_was_replaced_is_taken_back(cluster: Any, replaced: str) -> None:
    assert [(found.name, found.schedulable) for found in cluster.find(Uncordon)] == [("m0", True)]
    assert not cluster.find(WriteLock), "uncordoned first, then released"


def test_and_then_the_lock_is_free_for_the_next(cluster: Any, replaced: str) -> None:
    cluster.change_core("m0", unschedulable=False, cordoned_for=None)
    (write,) = cluster.find(WriteLock)
    assert write.freed == ("m0",)
    assert replaced not in [holder.order for holder in write.holders]


@pytest.mark.parametrize("unknown", ["no status yet", "on trial"])
def test_nothing_is_taken_back_from_a_machine_that_may_be_on_its_way(cluster: Any, replaced: str, unknown: str) -> None:
    if unknown == "no status yet":
        cluster.change("m0", boot_id="")
    else:
        cluster.change("m0", step=Step(replaced, "Activate", "Verifying"))
    assert not cluster.find(Uncordon)


def test_the_lock_waits_for_a_cordon_of_ours_that_is_on_its_way(cluster: Any, replaced: str) -> None:
    cluster.change_core("m0", unschedulable=False, cordoned_for=None)
    cluster.facts["busy"] = frozenset({("CoreNode", "m0")})
    assert not [write for write in cluster.find(WriteLock) if write.freed]


def test_of_two_clones_the_others_cordon_stays(cluster: Any, replaced: str) -> None:
    (holder,) = cluster.locks["default"].holders
    cluster.set_lock(holders=(replace(holder, id="m9"),))
    assert not cluster.find(Uncordon)
