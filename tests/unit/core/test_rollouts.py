"""Rollouts: when one begins, what it counts, when it halts, and when its waves open."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from careen.core.actions import SetOrder, WritePolicy
from careen.core.budgets import resolve_limit
from careen.core.releases import Fault, Lookup, ReleaseKey
from careen.core.snapshot import Failure, Wave

CANARY = (Wave("canary", node_names=("m0",), soak_seconds=60),)


def test_the_first_rollout_is_not_stored_yet(cluster: Any) -> None:
    cluster.add("m0")
    cluster.set_policy(stored=False)
    progress = cluster.assess()
    assert not progress.stored
    assert progress.rollout.id == "1-222222222222"
    assert progress.rollout.wave_names == ("rest",)


def test_a_new_release_begins_a_new_rollout_at_the_first_wave(cluster: Any) -> None:
    cluster.add("m0", "m1")
    cluster.set_policy(waves=CANARY)
    cluster.store_rollout(wave=1, failed=1, halted_at=cluster.at, failures=(Failure("m1", "core-m1", "o", "Panic"),))
    cluster.policies["os"] = replace(cluster.policies["os"], version="3.0.0")
    progress = cluster.assess()
    assert not progress.stored
    rollout = progress.rollout
    assert (rollout.id, rollout.wave, rollout.failed, rollout.halted_at) == ("2-333333333333", 0, 0, None)


def test_another_name_for_the_same_digest_goes_on_with_the_rollout(cluster: Any) -> None:
    cluster.add("m0")
    cluster.set_policy()
    cluster.policies["os"] = replace(cluster.policies["os"], version=None, digest="sha256:" + "2" * 64)
    assert cluster.assess().stored
    assert cluster.assess().rollout.number == 1


def test_a_release_is_looked_up_once_for_a_rollout(cluster: Any) -> None:
    cluster.add("m0")
    rollout = cluster.set_policy().rollout
    other = replace(rollout.release, digest="sha256:" + "9" * 64)
    cluster.facts["releases"] = {ReleaseKey("http://r", "version", "2.0.0"): Lookup(other)}
    assert cluster.assess().rollout == rollout


def test_an_unknown_release_says_so_and_begins_nothing(cluster: Any) -> None:
    cluster.add("m0")
    cluster.set_policy(stored=False)
    fault = Fault("ReleaseUnavailable", "http://r has no release 2.0.0")
    cluster.facts["releases"] = {ReleaseKey("http://r", "version", "2.0.0"): Lookup(fault=fault)}
    progress = cluster.assess()
    assert progress.rollout is None
    assert progress.unresolved == fault


@pytest.mark.parametrize(
    ("cause", "lost", "counted"),
    [
        ("Panic", 0, True),
        ("Watchdog", 0, True),
        ("LocalGate", 0, True),
        ("GateFailed", 0, True),
        ("Silence", 0, True),
        ("People", 0, False),
        ("Withdrawn", 0, False),
        ("Interrupted", 0, False),
        ("TrialLost", 0, False),
        ("TrialLost", 1, True),
        ("JournalLost", 0, False),
        ("JournalLost", 1, True),
    ],
)
def test_which_rollbacks_count(cluster: Any, cause: str, lost: int, counted: bool) -> None:
    cluster.add("m0")
    cluster.set_policy()
    cluster.give("m0", "Activate", "RolledBack", step_cause=cause, lost_attempts=lost)
    rollout = cluster.assess().rollout
    assert rollout.failed == (1 if counted else 0)
    assert (rollout.halted_at is not None) == counted


def test_a_failure_is_counted_once(cluster: Any) -> None:
    cluster.add("m0")
    cluster.set_policy(max_failed=3)
    cluster.give("m0", "Activate", "RolledBack", step_cause="Panic")
    first = cluster.assess().rollout
    cluster.policies["os"] = replace(cluster.policies["os"], rollout=first)
    assert cluster.assess().rollout == first


def test_failures_of_a_policy_that_was_made_again_are_not_counted(cluster: Any) -> None:
    cluster.add("m0")
    cluster.set_policy()
    cluster.give("m0", "Activate", "RolledBack", step_cause="Panic")
    cluster.set_policy(uid="another")
    assert cluster.assess().rollout.id == cluster.machines["m0"].order.rollout
    assert cluster.assess().rollout.failed == 0


@pytest.mark.parametrize(("tolerated", "failed", "halts"), [(0, 1, True), (1, 1, False), (1, 2, True), (5, 5, False)])
def test_the_failure_budget(cluster: Any, tolerated: int, failed: int, halts: bool) -> None:
    names = [f"m{n}" for n in range(6)]
    cluster.add(*names)
    cluster.set_policy(max_failed=tolerated)
    for name in names[:failed]:
        cluster.give(name, "Activate", "RolledBack", step_cause="Panic")
    assert cluster.assess().halted == halts


def test_failures_beyond_what_can_be_recorded_halt_for_good(cluster: Any) -> None:
    cluster.add("m0", "m1")
    cluster.set_policy(max_failed=999)
    known = tuple(Failure(f"x{n}", f"u{n}", f"o{n}", "Panic") for n in range(999))
    cluster.store_rollout(failures=known, failed=999, forgiven=999)
    for name in ("m0", "m1"):
        cluster.give(name, "Activate", "RolledBack", step_cause="Panic")
    rollout = cluster.assess().rollout
    assert (len(rollout.failures), rollout.failed, rollout.halted_at) == (1000, 1000, cluster.at)
    cluster.policies["os"] = replace(cluster.policies["os"], rollout=rollout, resume=(rollout.id, 1000))
    again = cluster.assess().rollout
    assert again.halted_at is not None
    cluster.policies["os"] = replace(cluster.policies["os"], rollout=again)
    assert cluster.assess().rollout == again, "nothing is counted twice, plan after plan"


def test_resume_forgives_what_was_seen_and_no_more(cluster: Any) -> None:
    cluster.add("m0", "m1", "m2")
    cluster.set_policy()
    cluster.give("m0", "Activate", "RolledBack", step_cause="Panic")
    cluster.policies["os"] = replace(cluster.policies["os"], rollout=cluster.assess().rollout)
    assert cluster.assess().halted
    rollout = cluster.policies["os"].rollout
    cluster.policies["os"] = replace(cluster.policies["os"], resume=(rollout.id, 1))
    assert not cluster.assess().halted
    cluster.policies["os"] = replace(cluster.policies["os"], rollout=cluster.assess().rollout)
    cluster.give("m1", "Activate", "RolledBack", step_cause="Panic")
    assert cluster.assess().halted, "the second failure halts again: people have seen only one"


@pytest.mark.parametrize("resume", [("other-rollout", 9), ("1-222222222222", 0)])
def test_resume_of_something_else_lifts_nothing(cluster: Any, resume: tuple[str, int]) -> None:
    cluster.add("m0")
    cluster.set_policy(resume=resume)
    cluster.give("m0", "Activate", "RolledBack", step_cause="Panic")
    assert cluster.assess().halted


def updated(cluster: Any, *names: str) -> None:
    for name in names:
        cluster.add(name, version="2.0.0")


def test_the_next_wave_opens_when_the_soak_is_over(cluster: Any) -> None:
    cluster.add("m0", "m1")
    cluster.set_policy(waves=CANARY)
    updated(cluster, "m0")
    begun = cluster.assess()
    assert (begun.rollout.wave, begun.rollout.wave_done_at, begun.soaking_until) == (0, cluster.at, cluster.at + 60)
    cluster.store_rollout(wave_done_at=cluster.at)
    cluster.at += 59.9
    assert cluster.assess().rollout.wave == 0
    cluster.at += 0.2
    assert cluster.assess().rollout.wave == 1
    assert cluster.assess().rollout.wave_done_at is None


def test_the_soak_begins_again_when_a_machine_becomes_unavailable(cluster: Any) -> None:
    cluster.add("m0", "m1")
    cluster.set_policy(waves=CANARY)
    updated(cluster, "m0")
    cluster.store_rollout(wave_done_at=cluster.at)
    cluster.at += 30
    cluster.change_core("m0", ready=False)
    broken = cluster.assess()
    assert (broken.rollout.wave, broken.rollout.wave_done_at, broken.pending) == (0, None, ("m0",))
    cluster.store_rollout(wave_done_at=None)
    cluster.change_core("m0", ready=True)
    cluster.at += 40
    assert cluster.assess().soaking_until == cluster.at + 60


def test_an_empty_wave_does_not_soak(cluster: Any) -> None:
    cluster.add("m0", "m1")
    cluster.set_policy(waves=(Wave("lab", node_names=("gone",), soak_seconds=60), Wave("one", count=1)))
    assert cluster.assess().rollout.wave == 1


def test_waves_do_not_open_in_a_halted_rollout(cluster: Any) -> None:
    cluster.add("m0", "m1")
    cluster.set_policy(waves=(Wave("canary", node_names=("m0",)),))
    updated(cluster, "m0")
    cluster.store_rollout(halted_at=cluster.at, failed=1)
    assert cluster.assess().rollout.wave == 0


def test_a_wave_does_not_wait_for_paused_or_failed_machines(cluster: Any) -> None:
    cluster.add("m0", "m1", "m2")
    cluster.set_policy(waves=(Wave("two", node_names=("m0", "m1")),), max_failed=5)
    cluster.change("m0", paused=True)
    cluster.change("m1", rejected=(("sha256:" + "2" * 64, 0),))
    assert cluster.assess().rollout.wave == 1


def test_a_wave_waits_for_a_machine_that_has_not_given_the_lock_back(cluster: Any) -> None:
    cluster.add("m0", "m1")
    cluster.set_policy(waves=(Wave("canary", node_names=("m0",)),))
    updated(cluster, "m0")
    cluster.give("m0", "Commit", "Committed")
    cluster.set_lock("m0")
    assert cluster.assess().pending == ("m0",)


@pytest.mark.parametrize(
    ("limit", "total", "expected"),
    [(1, 10, 1), (3, 2, 3), ("10%", 25, 2), ("10%", 9, 1), ("50%", 5, 2), ("100%", 7, 7), ("1%", 0, 1)],
)
def test_percentages_round_down_but_never_below_one(limit: int | str, total: int, expected: int) -> None:
    assert resolve_limit(limit, total) == expected


def test_no_rollout_begins_while_the_fleet_is_not_known(cluster: Any) -> None:
    cluster.add("m0", "m1", "m2")
    cluster.set_policy(stored=False, waves=(Wave("canary", count=1, soak_seconds=600),))
    made = cluster.machines.pop("m2")
    assert cluster.assess().rollout is None
    assert not cluster.find(SetOrder)
    (write,) = cluster.find(WritePolicy)
    conditions = {name: (status, message) for name, status, _, message in write.state.conditions}
    assert conditions["Complete"] == (
        "False",
        "the rollout begins when the Nodes of all machines are made; still missing: m2",
    )
    cluster.machines["m2"] = made
    assert cluster.assess().rollout.wave_names == ("canary", "rest")


def test_no_rollout_begins_over_nothing(cluster: Any) -> None:
    cluster.set_policy(stored=False, waves=(Wave("canary", count=1),))
    assert cluster.assess().rollout is None
    (write,) = cluster.find(WritePolicy)
    assert ("Complete", "False", "NoMachines", "the selector matches no machine") in write.state.conditions


def test_a_machine_that_joins_later_is_never_a_canary(cluster: Any) -> None:
    cluster.add("m0")
    cluster.set_policy(waves=(Wave("canary", count=1, soak_seconds=600),))
    cluster.set_lock()
    cluster.add("m1")
    cluster.change("m1", created=cluster.at)
    cluster.change_core("m1", created=cluster.at)
    assert cluster.reason("m1") == ("Waiting", "WavePending")
