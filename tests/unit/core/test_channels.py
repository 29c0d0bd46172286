"""Channels: a rollout follows one that moves, and what cannot be trusted starts nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from careen.core.actions import SetOrder, WritePolicy
from careen.core.decode import decode_order, decode_policy
from careen.core.encode import encode_order, encode_policy_status
from careen.core.releases import Fault, Lookup, Release, ReleaseKey, Resolved
from careen.core.resolution import recall_lookup
from careen.core.snapshot import Policy, Wave

KEY = ReleaseKey("http://r", "channel", "stable")
CANARY = (Wave("canary", node_names=("m0",), soak_seconds=60),)
HOURS = 3600.0


def release_of(version: str, **changes: Any) -> Release:
    return replace(
        Release("http://r", version, "sha256:" + version[0] * 64, 4096, f"releases/{version}.json"), **changes
    )


def point(cluster: Any, version: str | None, *, fault: Fault | None = None, expires_in: float = 48 * HOURS) -> None:
    """What the last lookup of the channel has come to."""
    release = release_of(version) if version is not None else None
    cluster.facts["releases"] = {KEY: Lookup(release, cluster.at, fault, cluster.at + expires_in)}


def follow(cluster: Any, version: str = "2.0.0", **changes: Any) -> Policy:
    """A policy that follows a channel, with the rollout and outcome stored that its first plan would have written."""
    point(cluster, version)
    cluster.set_lock()
    cluster.set_policy(version=None, channel="stable", **changes)
    resolved = Resolved("http://r", "stable", version, release_of(version).digest, cluster.at)
    cluster.policies["os"] = replace(cluster.policies["os"], resolved=resolved)
    return cluster.policies["os"]


def status(cluster: Any) -> dict[str, tuple[str, str, str]]:
    """Conditions of the policy in the plan of now: (status, reason, message) by type."""
    return {name: rest for name, *rest in written(cluster).state.conditions}


def written(cluster: Any) -> WritePolicy:
    (write,) = cluster.find(WritePolicy, "os")
    return write


def keep(cluster: Any) -> None:
    """Store what the plan of now writes about the policy, as the API server would give it back."""
    policy, write = cluster.policies["os"], written(cluster)
    body = encode_policy_status(policy, write.state, cluster.at)
    document = {
        "metadata": {"name": "os", "uid": policy.uid, "resourceVersion": "2", "generation": policy.generation},
        "spec": {"release": {"repository": policy.repository, "channel": policy.channel}},
        "status": body,
    }
    again = decode_policy(document)
    fields = ("resolved", "rollout", "conditions", "counts", "observed_generation")
    cluster.policies["os"] = replace(policy, **{name: getattr(again, name) for name in fields})


def test_a_channel_begins_a_rollout_of_what_it_is(cluster: Any) -> None:
    cluster.add("m0")
    point(cluster, "2.0.0")
    cluster.set_policy(version=None, channel="stable", stored=False)
    state = written(cluster).state
    assert state.rollout.release.version == "2.0.0"
    assert state.resolved == Resolved("http://r", "stable", "2.0.0", "sha256:" + "2" * 64, cluster.at)
    (turn,) = written(cluster).turns
    assert turn.reason == "RolloutStarted"
    assert "2.0.0 (channel stable)" in turn.message


def test_a_channel_that_moves_begins_a_new_rollout_at_the_first_wave(cluster: Any) -> None:
    cluster.add("m0", "m1")
    follow(cluster, waves=CANARY)
    cluster.store_rollout(wave=1)
    order = cluster.give("m1", phase="Staging")
    point(cluster, "3.0.0")
    rollout = written(cluster).state.rollout
    assert (rollout.number, rollout.release.version, rollout.wave) == (2, "3.0.0", 0)
    assert written(cluster).urgent
    assert written(cluster).state.resolved.version == "3.0.0"
    assert status(cluster)["Complete"][0] == "False"
    (abort,) = cluster.find(SetOrder, "m1")
    assert (abort.order.id, abort.order.goal, abort.order.cause) == (order.id, "Abort", "Withdrawn")


def test_machines_in_flight_finish_when_the_channel_moves(cluster: Any) -> None:
    cluster.add("m0")
    follow(cluster)
    cluster.give("m0", "Activate", "Verifying")
    cluster.set_lock("m0")
    cluster.change_core("m0", boot_id=cluster.machines["m0"].boot_id)
    point(cluster, "3.0.0")
    (commit,) = cluster.find(SetOrder, "m0")
    assert (commit.order.goal, commit.order.release.version) == ("Commit", "2.0.0")


def test_a_channel_that_moves_back_counts_on(cluster: Any) -> None:
    cluster.add("m0")
    follow(cluster)
    for version, number in (("3.0.0", 2), ("2.0.0", 3)):
        point(cluster, version)
        keep(cluster)
        rollout = cluster.policies["os"].rollout
        assert (rollout.number, rollout.release.version) == (number, version)


def test_a_new_leader_goes_on_with_what_is_stored_until_it_has_looked(cluster: Any) -> None:
    cluster.add("m0")
    follow(cluster)
    keep(cluster)
    cluster.facts["releases"] = {}
    assert cluster.assess().stored
    assert [action.order.release.version for action in cluster.find(SetOrder, "m0")] == ["2.0.0"]
    assert cluster.find(WritePolicy) == [], "nothing that was said before becomes untrue"


def test_another_channel_is_looked_up_first(cluster: Any) -> None:
    cluster.add("m0")
    follow(cluster)
    cluster.policies["os"] = replace(cluster.policies["os"], channel="beta")
    assert cluster.assess().unresolved.message == "the release is being looked up"
    assert cluster.find(SetOrder) == []
    assert written(cluster).state.resolved is None, "what another channel is says nothing about this one"


@pytest.mark.parametrize("stored", [True, False])
def test_what_can_not_be_trusted_starts_nothing(cluster: Any, stored: bool) -> None:
    cluster.add("m0", "m1")
    follow(cluster)
    cluster.set_lock(limit=2)
    if stored:
        cluster.give("m0", phase="Staged")
    else:
        cluster.policies["os"] = replace(cluster.policies["os"], rollout=None, resolved=None)
    point(cluster, "2.0.0" if stored else None, fault=Fault("TrustFailed", "timestamp.json expired"))
    plan = cluster.plan()
    assert not [action for action in plan.actions if not isinstance(action, WritePolicy) and hasattr(action, "order")]
    assert not [action for action in plan.actions if getattr(action, "granted", ())]
    assert {each.reason for each in plan.explanations if each.machine == "m1"} == {"TrustFailed"}
    for name in ("Waiting", "Stalled"):
        assert status(cluster)[name] == ["True", "TrustFailed", "timestamp.json expired"]
    assert status(cluster)["ReleaseResolved"] == ["False", "TrustFailed", "timestamp.json expired"]


def test_a_holder_gives_the_lock_back_when_trust_is_lost(cluster: Any) -> None:
    cluster.add("m0")
    follow(cluster)
    cluster.give("m0", phase="Staged")
    cluster.set_lock("m0")
    point(cluster, "2.0.0", fault=Fault("TrustFailed", "bad signature"))
    (abort,) = cluster.find(SetOrder, "m0")
    assert (abort.order.goal, abort.order.cause) == ("Abort", "Withdrawn")


def test_a_repository_that_is_away_stops_no_rollout_under_way(cluster: Any) -> None:
    cluster.add("m0")
    follow(cluster)
    point(cluster, "2.0.0", fault=Fault("ReleaseUnavailable", "no connection"))
    (order,) = cluster.find(SetOrder, "m0")
    assert order.order.goal == "Stage"
    assert status(cluster)["ReleaseResolved"] == ["False", "ReleaseUnavailable", "no connection"]
    assert status(cluster)["Stalled"][0] == "False"


def test_a_channel_that_can_not_be_found_stalls_its_policy(cluster: Any) -> None:
    cluster.add("m0")
    point(cluster, None, fault=Fault("ReleaseUnavailable", "http://r has no channel stable; it has beta"))
    cluster.set_policy(version=None, channel="stable", stored=False)
    for name in ("Waiting", "Stalled"):
        assert status(cluster)[name][1:] == ["ReleaseUnavailable", "http://r has no channel stable; it has beta"]


def test_trust_that_comes_back_is_told_and_orders_go_on(cluster: Any) -> None:
    cluster.add("m0")
    follow(cluster)
    point(cluster, "2.0.0", fault=Fault("TrustFailed", "expired"))
    assert [turn.reason for turn in written(cluster).turns] == ["TrustFailed"]
    keep(cluster)
    point(cluster, "2.0.0")
    assert [turn.reason for turn in written(cluster).turns] == ["ReleaseResolved"]
    assert [action.order.goal for action in cluster.find(SetOrder, "m0")] == ["Stage"]


def test_metadata_that_will_expire_is_told_ahead(cluster: Any) -> None:
    cluster.add("m0")
    follow(cluster)
    point(cluster, "2.0.0", expires_in=13 * HOURS)
    assert status(cluster)["ReleaseResolved"] == ["True", "Resolved", "stable → 2.0.0 (sha256:222222222222)"]
    assert cluster.plan().wake_at == cluster.at + 1 * HOURS
    keep(cluster)
    cluster.at += 1 * HOURS
    holds, reason, message = status(cluster)["ReleaseResolved"]
    assert (holds, reason) == ("True", "MetadataExpiring")
    assert "expires at 20" in message
    assert [turn.reason for turn in written(cluster).turns] == ["MetadataExpiring"]


def test_a_lookup_that_only_confirms_costs_a_write_an_hour(cluster: Any) -> None:
    cluster.add("m0", version="2.0.0")
    follow(cluster)
    keep(cluster)
    cluster.at += 300
    point(cluster, "2.0.0")
    assert cluster.find(WritePolicy) == []
    cluster.at += 1 * HOURS
    point(cluster, "2.0.0")
    assert written(cluster).state.resolved.resolved_at == cluster.at


def test_an_order_carries_mirrors_and_terms_of_the_policy(cluster: Any) -> None:
    cluster.add("m0")
    policy = follow(cluster, mirrors=("http://m",))
    terms = replace(policy.terms, allow_downgrade=True, allow_no_deadman=True, bytes_per_second=5000)
    cluster.policies["os"] = replace(policy, terms=terms)
    (given,) = cluster.find(SetOrder, "m0")
    body = encode_order(given.order)
    assert (body["release"]["mirrors"], body["terms"]["bytesPerSecond"]) == (["http://m"], 5000)
    assert body["terms"]["allowDowngrade"]
    assert body["terms"]["allowNoDeadman"]
    assert decode_order(body) == given.order


def test_an_order_is_not_withdrawn_for_facts_that_it_does_not_carry(cluster: Any) -> None:
    cluster.add("m0")
    follow(cluster, mirrors=("http://m",))
    facts = release_of("2.0.0", min_version="1.0.0", capabilities=("trial-timer",), architectures=("x86_64",))
    cluster.store_rollout(release=facts)
    (given,) = cluster.find(SetOrder, "m0")
    cluster.change("m0", order=decode_order(encode_order(given.order)))
    assert cluster.find(SetOrder, "m0") == []
    keep(cluster)
    assert cluster.policies["os"].rollout.release == facts, "the gates' facts outlive the leader that looked them up"


@pytest.mark.parametrize(
    ("running", "changes", "machine", "reason"),
    [
        ("1.0.0", {"architectures": ("aarch64",)}, {"architecture": "x86_64"}, "NoImage"),
        ("1.0.0", {"architectures": ("aarch64", "x86_64")}, {"architecture": "x86_64"}, None),
        ("1.0.0", {"architectures": ("aarch64",)}, {"architecture": None}, None),
        ("1.0.0", {"min_version": "1.5.0"}, {}, "BelowFloor"),
        ("1.5.0", {"min_version": "1.5.0"}, {}, None),
        ("1.10.0", {"min_version": "1.9.0"}, {}, None),
        ("3.0.0", {}, {}, "DowngradeRefused"),
        ("3.0.0", {}, {"allowed": True}, None),
        ("1.5.0~rc1", {"min_version": "1.5.0"}, {}, "BelowFloor"),
    ],
)
def test_what_a_machine_may_be_moved_to(
    cluster: Any, running: str, changes: dict[str, Any], machine: dict[str, Any], reason: str | None
) -> None:
    cluster.add("m0", version=running)
    policy = follow(cluster)
    cluster.store_rollout(release=release_of("2.0.0", **changes))
    allowed = machine.pop("allowed", False)
    cluster.policies["os"] = replace(cluster.policies["os"], terms=replace(policy.terms, allow_downgrade=allowed))
    cluster.change("m0", **machine)
    orders = cluster.find(SetOrder, "m0")
    if reason is None:
        assert [order.order.goal for order in orders] == ["Stage"]
        return
    assert orders == []
    assert cluster.reason("m0") == ("Waiting", reason)
    assert status(cluster)["Waiting"][:2] == ["True", reason]


def test_a_machine_of_unknown_version_is_below_every_floor(cluster: Any) -> None:
    cluster.add("m0")
    follow(cluster)
    cluster.store_rollout(release=release_of("2.0.0", min_version="1.0.0"))
    cluster.change("m0", slots={"A": replace(cluster.machines["m0"].slots["A"], version=None, digest=None)})
    assert cluster.reason("m0") == ("Waiting", "BelowFloor")


def test_a_move_that_was_seen_before_trust_was_lost_begins_nothing(cluster: Any) -> None:
    cluster.add("m0")
    follow(cluster)
    point(cluster, "3.0.0", fault=Fault("TrustFailed", "bad signature"))
    assert cluster.assess().unresolved == Fault("TrustFailed", "bad signature")
    assert written(cluster).state.rollout.release.version == "2.0.0"
    assert cluster.find(SetOrder) == []
    point(cluster, "3.0.0", fault=Fault("ReleaseUnavailable", "no answer"))
    assert written(cluster).state.rollout.release.version == "3.0.0", "what was found once is signed"


@pytest.mark.parametrize("fault", [None, Fault("TrustFailed", "bad signature"), Fault("ReleaseUnavailable", "away")])
def test_a_dry_run_knows_what_the_operator_found(cluster: Any, fault: Fault | None) -> None:
    cluster.add("m0")
    follow(cluster)
    point(cluster, "2.0.0", fault=fault)
    keep(cluster)
    lookup = recall_lookup(cluster.policies["os"])
    assert lookup is not None
    assert (lookup.release, lookup.fault) == (release_of("2.0.0"), fault)
    cluster.policies["os"] = replace(cluster.policies["os"], channel="beta", generation=2)
    assert recall_lookup(cluster.policies["os"]) is None
