"""Waves: fixed bounds over hashes, drawn when the rollout begins."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from careen.core.releases import Release
from careen.core.snapshot import CoreNode, Machine, Policy, Rollout, Terms, Wave
from careen.core.waves import draw_waves, order_id, soak_of, wave_of

TERMS = Terms("default", 0, 600, 600, "Rollback", "Auto", 3600)
RELEASE = Release("http://r", "2.0.0", "sha256:" + "2" * 64, 1, "x")


def core(name: str) -> CoreNode:
    return CoreNode(name, f"uid-{name}", "1", {}, True, False, "b", "m")


def sizes(waves: tuple[Wave, ...], total: int) -> tuple[tuple[str, ...], list[int]]:
    cores = [core(f"n{i}") for i in range(total)]
    policy = Policy("os", "p", "1", 1, (), "http://r", "2.0.0", None, TERMS, waves=waves)
    names, bounds = draw_waves(waves, "1-2", cores)
    rollout = Rollout("1-2", 1, RELEASE, 1000.0, 0, names, bounds, policy_uid="p")
    counts = [0] * len(names)
    for node in cores:
        counts[wave_of(rollout, policy, Machine(node.name, "u", "1", 1, 10.0), node)] += 1
    return names, counts


@pytest.mark.parametrize(
    ("waves", "total", "expected"),
    [
        ((), 5, {"rest": 5}),
        ((Wave("canary", count=1),), 5, {"canary": 1, "rest": 4}),
        ((Wave("canary", count=1), Wave("half", percent=50)), 6, {"canary": 1, "half": 3, "rest": 2}),
        # A percentage is rounded down, and is at least one machine.
        ((Wave("some", percent=50),), 5, {"some": 2, "rest": 3}),
        ((Wave("some", percent=1),), 5, {"some": 1, "rest": 4}),
        ((Wave("all", percent=100),), 4, {"all": 4}),
        # More than there are: the last wave is there all the same, for machines that join later.
        ((Wave("canary", count=9),), 3, {"canary": 3, "rest": 0}),
        ((Wave("lab", node_names=("n0", "n3")), Wave("canary", count=1)), 6, {"lab": 2, "canary": 1, "rest": 3}),
        # Names of machines that are not there leave an empty wave.
        ((Wave("lab", node_names=("gone",)),), 3, {"lab": 0, "rest": 3}),
        ((Wave("canary", count=1),), 0, {"canary": 0, "rest": 0}),
    ],
)
def test_sizes(waves: tuple[Wave, ...], total: int, expected: dict[str, int]) -> None:
    names, counts = sizes(waves, total)
    assert dict(zip(names, counts, strict=True)) == expected


def setting(waves: tuple[Wave, ...], count: int) -> tuple[Policy, Rollout, list[CoreNode]]:
    cores = [core(f"n{i}") for i in range(count)]
    policy = Policy("os", "p", "1", 1, (), "http://r", "2.0.0", None, TERMS, waves=waves)
    return policy, Rollout("1-2", 1, RELEASE, 1000.0, 0, *draw_waves(waves, "1-2", cores), policy_uid="p"), cores


def test_a_machine_that_joined_later_is_in_the_last_wave() -> None:
    policy, rollout, cores = setting((Wave("canary", count=3),), 4)
    for node in cores:
        assert wave_of(rollout, policy, Machine(node.name, "u", "1", 1, 1000.5), node) == 1


def test_a_node_or_a_core_node_that_is_made_again_stays_in_its_wave() -> None:
    policy, rollout, cores = setting((Wave("canary", count=1),), 4)
    before = {node.name: wave_of(rollout, policy, Machine(node.name, "u", "1", 1, 1.0), node) for node in cores}
    for node in cores:
        old = replace(node, created=1.0)
        assert wave_of(rollout, policy, Machine(node.name, "v", "9", 1, 2000.0), old) == before[node.name]
        new = replace(node, created=2000.0)
        assert wave_of(rollout, policy, Machine(node.name, "u", "1", 1, 1.0), new) == before[node.name]


def test_a_machine_stays_in_its_wave_when_others_come_and_go() -> None:
    policy, rollout, cores = setting((Wave("canary", count=2), Wave("half", percent=50)), 8)
    before = {node.name: wave_of(rollout, policy, Machine(node.name, "u", "1", 1, 1.0), node) for node in cores}
    # Neither a new careen Node of the same core Node, nor other machines, can change the hash or the bounds.
    after = {node.name: wave_of(rollout, policy, Machine(node.name, "v", "9", 1, 1.0), node) for node in cores[:3]}
    assert after == {name: before[name] for name in after}


def test_another_rollout_has_other_canaries() -> None:
    cores = [core(f"n{i}") for i in range(40)]
    waves = (Wave("canary", count=1),)
    policy = Policy("os", "p", "1", 1, (), "http://r", "2.0.0", None, TERMS, waves=waves)
    canaries = set()
    for number in range(12):
        rollout = Rollout(f"{number}-2", 1, RELEASE, 1000.0, 0, *draw_waves(waves, f"{number}-2", cores))
        canaries |= {n.name for n in cores if wave_of(rollout, policy, Machine(n.name, "u", "1", 1, 1.0), n) == 0}
    assert len(canaries) > 6


def test_soak_is_read_from_the_policy_as_it_is() -> None:
    policy, rollout, _ = setting((Wave("canary", count=1, soak_seconds=60),), 3)
    assert soak_of(rollout, policy, 0) == 60
    assert soak_of(rollout, policy, 1) == 0
    assert soak_of(rollout, replace(policy, waves=()), 0) == 0


@pytest.mark.parametrize("other", [{"core": "y"}, {"policy_uid": "q"}, {"id": "2-2"}, {"attempt": 1}])
def test_an_order_id_depends_on_machine_policy_rollout_and_attempt(other: dict[str, Any]) -> None:
    _, rollout, _ = setting((), 1)
    changes = {key: value for key, value in other.items() if key in ("policy_uid", "id")}
    mine = order_id("x", rollout, 0)
    assert order_id("x", rollout, 0) == mine
    assert order_id(other.get("core", "x"), replace(rollout, **changes), other.get("attempt", 0)) != mine
