"""Waves: which machine belongs to which part of a rollout, fixed when the rollout begins."""

import hashlib
from collections.abc import Iterable
from functools import lru_cache

from .snapshot import CoreNode, Machine, Policy, Rollout, Wave

REST = "rest"
"""Name of the last wave, of all machines that no other wave takes."""
LAST_BOUND = "g"
"""Above every hexadecimal hash."""


def order_id(core_uid: str, rollout: Rollout, attempt: int) -> str:
    """Identity of an order: nothing in it is random, so a new leader gives the same order the same id."""
    return hashlib.sha256(f"{core_uid}/{rollout.policy_uid}/{rollout.id}/{attempt}".encode()).hexdigest()[:20]


@lru_cache(maxsize=65_536)
def rank(core_uid: str, rollout: str) -> str:
    """Place of a machine in a rollout: a hash, so that no machine is the canary every time."""
    return hashlib.sha256(f"{core_uid}/{rollout}".encode()).hexdigest()[:16]


def draw_waves(
    waves: tuple[Wave, ...], rollout: str, cores: Iterable[CoreNode]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and upper bounds of a new rollout's waves over the machines selected now.

    A wave by names has the bound "" (its members are looked up by name); counts and percentages take the next
    machines in the order of their ranks; what is left, or comes later, forms the last wave.
    """
    named = {name for wave in waves for name in wave.node_names}
    cores = list(cores)
    total = len(cores)
    ranks = sorted(rank(core.uid, rollout) for core in cores if core.name not in named)
    names, bounds, taken = [], [], 0
    for wave in waves:
        names.append(wave.name)
        if wave.node_names:
            bounds.append("")
            continue
        size = wave.count if wave.count is not None else max(1, total * (wave.percent or 0) // 100)
        taken = min(len(ranks), taken + size)
        bounds.append(ranks[taken - 1] if taken else "0")
    # Only percentages can promise to take everybody. After counts there is a last wave even if nobody is left for it
    # now: machines that join later must not join the canary.
    everybody = sum(wave.percent or 0 for wave in waves) >= 100
    if everybody and taken == len(ranks):
        bounds[max(i for i, bound in enumerate(bounds) if bound)] = LAST_BOUND
    else:
        names.append(REST)
        bounds.append(LAST_BOUND)
    return tuple(names), tuple(bounds)


def wave_of(rollout: Rollout, policy: Policy, machine: Machine, core: CoreNode) -> int:
    """Index of the machine's wave. Machines that joined after the rollout began are in the last one."""
    if len(rollout.wave_bounds) == 1:
        return 0
    for index, (name, bound) in enumerate(zip(rollout.wave_names, rollout.wave_bounds, strict=True)):
        if not bound and any(wave.name == name and machine.name in wave.node_names for wave in policy.waves):
            return index
    last = max(index for index, bound in enumerate(rollout.wave_bounds) if bound)
    # Either object may be made again while the machine stays what it is, and stays in its wave.
    if min(machine.created, core.created) > rollout.started_at:
        return last
    place = rank(core.uid, rollout.id)
    return next(index for index, bound in enumerate(rollout.wave_bounds) if bound and place <= bound)


def soak_of(rollout: Rollout, policy: Policy, index: int) -> int:
    """Seconds that a wave must soak; 0 when the policy no longer names it."""
    return next((wave.soak_seconds for wave in policy.waves if wave.name == rollout.wave_names[index]), 0)
