"""Rollouts: when a new one begins, which wave is open, what failed, and when it halts."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from careen.api.reasons import Cause, Reason, counts
from careen.api.rollout import MOST_FAILURES

from .budgets import name_some
from .fleet import Fleet
from .refusal import Refusal
from .releases import Fault, Lookup, Release, ReleaseKey, Resolved
from .selectors import matches
from .snapshot import Failure, Machine, Policy, Rollout, Snapshot
from .waves import draw_waves, soak_of, wave_of

LOOKING_UP = "the release is being looked up"
"""Why a release is not resolved as long as its first lookup has not ended."""
RECORDING = "the rollout is being recorded"
"""Why a machine waits for the one write that begins its rollout."""
LOCK_WRITING = "a reboot lock is being written"
"""Why a machine waits for a place that the answer of a write under way may leave it."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a policy's rollout stands now: what is stored, brought up to what the snapshot shows."""

    policy: Policy
    rollout: Rollout | None
    """None while the release is not resolved, or not all machines are known that the rollout would begin with."""
    stored: bool
    """Whether the rollout's identity is stored; no order is given before."""
    unresolved: Fault | None = None
    """Why the release could not be resolved, so that there is nothing to order."""
    distrust: Fault | None = None
    """Why nothing new may be started although the release is known: its repository can't be trusted any more."""
    soaking_until: float | None = None
    """When the open wave's soak ends."""
    pending: tuple[str, ...] = ()
    """Machines of the open wave that are not done."""

    @property
    def halted(self) -> bool:
        """Whether the failure budget is spent."""
        return self.rollout is not None and self.rollout.halted_at is not None


def needed_releases(snapshot: Snapshot) -> dict[ReleaseKey, frozenset[tuple[str, int]]]:
    """Release keys that have to be looked up, each with the versions (uid, generation) of the policies that ask."""
    wanted: dict[ReleaseKey, set[tuple[str, int]]] = {}
    for policy in snapshot.policies.values():
        wanted.setdefault(policy.release_key, set()).add((policy.uid, policy.generation))
    return {key: frozenset(askers) for key, askers in wanted.items()}


def count_failures(failed: int) -> str:
    """The number of failures for a sentence."""
    return "1 failure" if failed == 1 else f"{failed} failures"


def is_current(policy: Policy, rollout: Rollout, lookup: Lookup | None) -> bool:
    """Whether the rollout is of what the policy asks for.

    A version stays what it was resolved to at its start. A channel is what it was last found to be: a new leader that
    has not looked yet, or can't, goes on with what is stored.
    """
    release = rollout.release
    if policy.repository != release.repository:
        return False
    if policy.channel is None:
        return policy.digest == release.digest if policy.digest else policy.version == release.version
    if lookup is not None and lookup.release is not None:
        return lookup.release.digest == release.digest
    return policy.resolved is not None and answers(policy.resolved, policy) and policy.resolved.digest == release.digest


def answers(resolved: Resolved, policy: Policy) -> bool:
    """Whether a stored outcome is of what the policy asks for now."""
    if (resolved.repository, resolved.channel) != (policy.repository, policy.channel):
        return False
    return policy.digest in (None, resolved.digest) and policy.version in (None, resolved.version)


def assess(fleet: Fleet, policy: Policy, now: float) -> Progress:
    """Bring a policy's rollout up to date with the snapshot."""
    rollout, lookup = policy.rollout, fleet.snapshot.releases.get(policy.release_key)
    distrust = _find_distrust(lookup)
    if rollout is None or not is_current(policy, rollout, lookup):
        found = _find_release(lookup)
        if isinstance(found, Fault):
            # What was begun goes on being counted, but no new order is given for a release that nobody wants.
            return Progress(policy, None, stored=False, unresolved=found)
        if rollout is None or rollout.release.digest != found.digest:
            if not _may_begin(fleet, policy):
                return Progress(policy, None, stored=False)
            return Progress(policy, _begin(fleet, policy, found, now), stored=False)
        rollout = replace(rollout, release=found)
    rollout = _count_failures(fleet, policy, rollout, now)
    return replace(_advance(fleet, policy, rollout, now), distrust=distrust)


def _find_distrust(lookup: Lookup | None) -> Fault | None:
    """What is wrong with keys, signatures or expiry. A repository that is only away stops nothing that is known."""
    fault = lookup.fault if lookup is not None else None
    return fault if fault is not None and fault.reason == Reason.TRUST_FAILED else None


def _find_release(lookup: Lookup | None) -> Release | Fault:
    """The release that a rollout may begin with, or why there is none."""
    if lookup is None:
        return Fault(str(Reason.RELEASE_UNRESOLVED), LOOKING_UP)
    if lookup.release is None or _find_distrust(lookup) is not None:
        return lookup.fault or Fault(str(Reason.RELEASE_UNRESOLVED), LOOKING_UP)
    return lookup.release


def find_unmade(fleet: Fleet, policy: Policy) -> tuple[str, ...]:
    """Core Nodes that the policy selects and whose careen Node the operator has yet to make."""
    snapshot = fleet.snapshot
    return tuple(
        name
        for name, core in snapshot.core_nodes.items()
        if name not in snapshot.machines
        and matches(snapshot.node_selector, core.labels, {})
        and matches(policy.selector, core.labels, {})
    )


def _may_begin(fleet: Fleet, policy: Policy) -> bool:
    """Whether the waves can be drawn: over an empty or half known fleet the canary would be everybody."""
    return bool(fleet.selected[policy.name]) and not find_unmade(fleet, policy)


def _begin(fleet: Fleet, policy: Policy, release: Release, now: float) -> Rollout:
    number = policy.rollout.number + 1 if policy.rollout else 1
    rollout_id = f"{number}-{release.digest.removeprefix('sha256:')[:12]}"
    cores = [fleet.snapshot.core_nodes[name] for name in fleet.selected[policy.name]]
    names, bounds = draw_waves(policy.waves, rollout_id, cores)
    return Rollout(
        id=rollout_id,
        number=number,
        release=release,
        started_at=now,
        wave=0,
        wave_names=names,
        wave_bounds=bounds,
        policy_uid=policy.uid,
    )


def find_failure(machine: Machine, rollout: Rollout) -> Failure | None:
    """The failure of this rollout that the machine's last order shows, if it failed."""
    order = machine.order
    if order is None or not rollout.gave(order) or not machine.closed or not machine.owns_step:
        return None
    cause = machine.step.cause
    if machine.phase == "RolledBack" and counts(cause, order.lost_attempts):
        return Failure(machine.name, machine.core_uid, order.id, cause or Cause.TRIAL_LOST)
    if machine.phase == "Failed" and order.goal != "Abort":
        return Failure(machine.name, machine.core_uid, order.id, cause or Cause.LOCAL_GATE)
    return None


def _count_failures(fleet: Fleet, policy: Policy, rollout: Rollout, now: float) -> Rollout:
    known = {failure.order for failure in rollout.failures}
    found = [
        failure
        for name in sorted(fleet.members[policy.name])
        if (failure := find_failure(fleet.snapshot.machines[name], rollout)) and failure.order not in known
    ]
    # No more than the list has room for: a failure that it forgot would be counted again in each plan.
    found = found[: max(0, MOST_FAILURES - len(rollout.failures))]
    failures = (*rollout.failures, *found)
    failed = rollout.failed + len(found)
    forgiven, halted_at = rollout.forgiven, rollout.halted_at
    if policy.resume is not None and policy.resume[0] == rollout.id:
        seen = min(policy.resume[1], failed)
        if seen > forgiven:
            forgiven, halted_at = seen, None
    if halted_at is None and (failed - forgiven > policy.max_failed or len(failures) >= MOST_FAILURES):
        halted_at = now
    return replace(rollout, failures=failures, failed=failed, forgiven=forgiven, halted_at=halted_at)


def _advance(fleet: Fleet, policy: Policy, rollout: Rollout, now: float) -> Progress:
    """Open the next wave when the open one is done, healthy and soaked; start the soak again when it is not."""
    members: list[list[Machine]] = [[] for _ in rollout.wave_names]
    for name in fleet.selected[policy.name]:
        machine = fleet.snapshot.machines[name]
        core = fleet.core_of(machine)
        if core is not None:
            members[wave_of(rollout, policy, machine, core)].append(machine)
    last = len(rollout.wave_names) - 1
    wave, done_at = min(rollout.wave, last), rollout.wave_done_at
    while True:
        reached = [machine for group in members[: wave + 1] for machine in group]
        pending = tuple(machine.name for machine in reached if not is_done(fleet, rollout, machine))
        if pending or wave == last or rollout.halted_at is not None:
            break
        soak = soak_of(rollout, policy, wave) if members[wave] else 0
        if soak and any(machine.name in fleet.unavailable for machine in reached):
            return Progress(
                policy,
                replace(rollout, wave=wave, wave_done_at=None),
                stored=True,
                pending=_unhealthy(fleet, reached),
            )
        done_at = done_at if done_at is not None else now
        if now < done_at + soak:
            return Progress(
                policy, replace(rollout, wave=wave, wave_done_at=done_at), stored=True, soaking_until=done_at + soak
            )
        wave, done_at = wave + 1, None
    if pending or wave == last:
        done_at = None
    return Progress(policy, replace(rollout, wave=wave, wave_done_at=done_at), stored=True, pending=pending)


def _unhealthy(fleet: Fleet, machines: Iterable[Machine]) -> tuple[str, ...]:
    return tuple(machine.name for machine in machines if machine.name in fleet.unavailable)


def is_done(fleet: Fleet, rollout: Rollout, machine: Machine) -> bool:
    """Whether the rollout has nothing more to wait for on this machine: it runs the release, or people must act."""
    if fleet.own_holder(machine) is not None or machine.in_flight:
        return False
    return machine.runs(rollout.release) or machine.paused or has_failed(rollout, machine)


def has_failed(rollout: Rollout, machine: Machine) -> bool:
    """Whether the machine is not tried again in this rollout until people say so."""
    if machine.rejects(rollout.release.digest):
        return True
    failure = find_failure(machine, rollout)
    if failure is None or machine.order is None or machine.phase != "Failed":
        return False
    forgiven = {known.order for known in rollout.failures[: rollout.forgiven]}
    return machine.retry <= machine.order.retry and failure.order not in forgiven


def refuse_wave(progress: Progress, machine: Machine, fleet: Fleet) -> Refusal | None:
    """Why the machine's wave is not open yet."""
    rollout, core = progress.rollout, fleet.core_of(machine)
    if rollout is None or core is None:
        return None
    wave = wave_of(rollout, progress.policy, machine, core)
    if wave <= rollout.wave:
        return None
    mine, open_wave = rollout.wave_names[wave], rollout.wave_names[rollout.wave]
    if progress.soaking_until is not None:
        return Refusal(
            Reason.WAVE_SOAKING, f"wave {mine} begins when wave {open_wave} has soaked", progress.soaking_until
        )
    waits_for = f": {name_some(list(progress.pending))}" if progress.pending else ""
    return Refusal(Reason.WAVE_PENDING, f"wave {mine} begins when wave {open_wave} is done{waits_for}")
