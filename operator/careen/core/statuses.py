"""The policy's status: counts, conditions and the stored rollout, made from the machines' explanations."""

from collections import Counter
from collections.abc import Sequence

from careen.api.reasons import Reason

from .actions import Explanation, PolicyState, Turn, WritePolicy
from .budgets import name_some
from .notes import STUCK
from .resolution import RESOLVED_CONDITION, find_resolved, judge_resolution, tell_resolution
from .rollouts import Progress, find_unmade, has_failed
from .snapshot import Machine, Policy, Rollout
from .view import View

BUSY_STATES = frozenset({"Staging", "Draining", "Activating", "Verifying", "Returning"})


def is_waiting(explanation: Explanation) -> bool:
    """Whether the machine waits: before it may begin, or stuck in the middle of its way."""
    return explanation.state == "Waiting" or (explanation.state in BUSY_STATES and explanation.reason in STUCK)


def write_policy(view: View, progress: Progress, explanations: Sequence[Explanation]) -> WritePolicy | None:
    """The policy's status as it should be; None when it is so already."""
    policy = progress.policy
    rollout = progress.rollout if progress.rollout is not None else policy.rollout
    counts = _count(view, progress)
    conditions = _conditions(view, progress, counts, explanations)
    lookup = view.snapshot.releases.get(policy.release_key)
    resolved = find_resolved(policy, lookup)
    state = PolicyState(policy.generation, resolved, rollout, tuple(counts.items()), conditions)
    stored = PolicyState(
        policy.observed_generation,
        policy.resolved,
        policy.rollout,
        tuple((name, policy.counts.get(name, 0)) for name in counts),
        tuple(
            (name, known.status, known.reason, known.message)
            for name, *_ in conditions
            if (known := policy.conditions.get(name)) is not None
        ),
    )
    if state == stored:
        return None
    return WritePolicy(
        name=policy.name,
        uid=policy.uid,
        resource_version=policy.resource_version,
        state=state,
        urgent=_is_urgent(policy, rollout),
        turns=_tell_turns(policy, rollout, conditions),
    )


def _is_urgent(policy: Policy, rollout: Rollout | None) -> bool:
    before = policy.rollout
    if rollout is None:
        return False
    if before is None or before.id != rollout.id or policy.observed_generation != policy.generation:
        return True
    return (before.halted_at is None) != (rollout.halted_at is None)


def _tell_turns(
    policy: Policy, rollout: Rollout | None, conditions: tuple[tuple[str, str, str, str], ...]
) -> tuple[Turn, ...]:
    turns: list[Turn] = []
    before = policy.rollout
    if rollout is not None and (before is None or before.id != rollout.id):
        channel = f" (channel {policy.channel})" if policy.channel is not None else ""
        waves = ", ".join(rollout.wave_names)
        message = f"rollout {rollout.id} to {rollout.release.version}{channel}, waves {waves}"
        turns.append(Turn("UpdatePolicy", policy.name, policy.uid, "RolloutStarted", message))
    elif rollout is not None and before is not None:
        turns += _tell_progress(policy, before, rollout)
    for name, status, reason, message in conditions:
        known = policy.conditions.get(name)
        if name == RESOLVED_CONDITION:
            turns += tell_resolution(policy, reason, message)
            continue
        if status != "True" or (known is not None and known.status == "True"):
            continue
        if name == "Halted":
            turns.append(Turn("UpdatePolicy", policy.name, policy.uid, "RolloutHalted", message, warning=True))
        if name == "Complete":
            turns.append(Turn("UpdatePolicy", policy.name, policy.uid, "RolloutComplete", message))
    return tuple(turns)


def _tell_progress(policy: Policy, before: Rollout, rollout: Rollout) -> list[Turn]:
    """The turns within one rollout: people have lifted its halt, and its next wave has begun."""
    turns = []
    if before.halted_at is not None and rollout.halted_at is None:
        message = f"rollout {rollout.id} goes on: people have seen its failures"
        turns.append(Turn("UpdatePolicy", policy.name, policy.uid, "RolloutResumed", message))
    if rollout.wave > before.wave:
        message = f"rollout {rollout.id} is in wave {rollout.wave_names[rollout.wave]}"
        turns.append(Turn("UpdatePolicy", policy.name, policy.uid, "WaveStarted", message))
    return turns


def _count(view: View, progress: Progress) -> dict[str, int]:
    counts = {
        "selected": 0,
        "updated": 0,
        "staging": 0,
        "staged": 0,
        "inFlight": 0,
        "unavailable": 0,
        "failed": 0,
    }
    rollout = progress.rollout
    for name in view.fleet.selected[progress.policy.name]:
        machine = view.snapshot.machines[name]
        counts["selected"] += 1
        counts["unavailable"] += name in view.fleet.unavailable
        counts["inFlight"] += machine.in_flight
        if rollout is None:
            continue
        counts["updated"] += machine.runs(rollout.release) and (not machine.in_flight or _is_requested(machine))
        counts["failed"] += has_failed(rollout, machine)
        order = machine.order
        if order is not None and order.rollout == rollout.id and not machine.closed and not machine.in_flight:
            counts["staged" if machine.phase == "Staged" else "staging"] += 1
    return counts


def _is_requested(machine: Machine) -> bool:
    """Whether the machine is under a request's order, which leaves its release as it is."""
    return machine.order is not None and machine.order.request is not None


def _conditions(
    view: View, progress: Progress, counts: dict[str, int], explanations: Sequence[Explanation]
) -> tuple[tuple[str, str, str, str], ...]:
    complete, why, sentence = _judge_complete(view, progress, counts)
    busy = [e for e in explanations if e.state in BUSY_STATES and not is_waiting(e)]
    waiting = Counter(e.reason for e in explanations if is_waiting(e))
    progressing = not complete and bool(busy)
    halted = progress.halted
    conflict = [e for e in explanations if e.reason == Reason.POLICY_CONFLICT]
    blocked = _find_blocker(progress, explanations, waiting, complete, progressing)
    stalled = halted or bool(conflict) or progress.unresolved is not None or progress.distrust is not None
    resolution = judge_resolution(progress, view.snapshot.releases.get(progress.policy.release_key), view.now)
    rollout = progress.rollout
    halt_message = ""
    if halted and rollout is not None:
        names = [f"{failure.node} ({failure.cause})" for failure in rollout.failures]
        halt_message = f"{rollout.release.version} failed on {name_some(names)}"
    moving = (str(Reason.ROLLING_OUT), f"{counts['updated']} of {counts['selected']} machines run the release")
    rows = {
        "Complete": (complete, why, sentence),
        "Progressing": (progressing, *(moving if progressing else (why, ""))),
        "Waiting": (blocked is not None, *(blocked or (moving[0] if progressing else why, ""))),
        "Halted": (halted, Reason.FAILURE_BUDGET if halted else Reason.ROLLING_OUT, halt_message),
        "PolicyConflict": (
            bool(conflict),
            Reason.POLICY_CONFLICT if conflict else Reason.ROLLING_OUT,
            conflict[0].message if conflict else "",
        ),
        RESOLVED_CONDITION: resolution,
        "Ready": (complete, why, sentence),
        "Reconciling": (not complete and not stalled, why, sentence),
        "Stalled": (stalled, *_stall_reason(progress, conflict, halt_message)),
    }
    return tuple(
        (name, "True" if status else "False", str(reason), message[:1024])
        for name, (status, reason, message) in rows.items()
    )


def _stall_reason(progress: Progress, conflict: list[Explanation], halt_message: str) -> tuple[str, str]:
    if progress.halted:
        return str(Reason.FAILURE_BUDGET), halt_message
    if conflict:
        return str(Reason.POLICY_CONFLICT), conflict[0].message
    fault = progress.unresolved or progress.distrust
    return (fault.reason, fault.message) if fault is not None else (str(Reason.ROLLING_OUT), "")


def _judge_complete(view: View, progress: Progress, counts: dict[str, int]) -> tuple[bool, str, str]:
    rollout = progress.rollout
    if rollout is None and progress.unresolved is not None:
        return False, progress.unresolved.reason, progress.unresolved.message
    if rollout is None and (unmade := find_unmade(view.fleet, progress.policy)):
        sentence = (
            f"the rollout begins when the Nodes of all machines are made; still missing: {name_some(list(unmade))}"
        )
        return False, str(Reason.ROLLING_OUT), sentence
    if rollout is None or counts["selected"] == 0:
        return False, str(Reason.NO_MACHINES), "the selector matches no machine"
    left = counts["selected"] - counts["updated"]
    returning = any(
        view.fleet.own_holder(view.snapshot.machines[name]) is not None
        and not _is_requested(view.snapshot.machines[name])
        for name in view.fleet.selected[progress.policy.name]
    )
    if left == 0 and not returning and progress.stored:
        return True, str(Reason.COMPLETE), f"all {counts['selected']} machines run {rollout.release.version}"
    if progress.halted:
        return False, str(Reason.ROLLOUT_HALTED), f"{left} of {counts['selected']} machines do not run the release"
    if left and left == counts["failed"] and not returning:
        return False, str(Reason.MACHINES_FAILED), f"the release failed on {left} machines"
    return False, str(Reason.ROLLING_OUT), f"rollout {rollout.id}, wave {rollout.wave_names[rollout.wave]}"


def _find_blocker(
    progress: Progress,
    explanations: Sequence[Explanation],
    waiting: Counter[str],
    complete: bool,
    progressing: bool,
) -> tuple[str, str] | None:
    """What the whole rollout waits for when nothing moves: the reason of most machines that could go now."""
    if complete or progressing:
        return None
    fault = progress.unresolved or progress.distrust
    if fault is not None:
        return fault.reason, fault.message
    # Later waves wait for the open one, which is no answer while the open one waits for something itself.
    direct = Counter({reason: n for reason, n in waiting.items() if reason != Reason.WAVE_PENDING}) or waiting
    if not direct:
        return None
    reason = max(sorted(direct), key=lambda word: direct[word])
    return reason, next(e.message for e in explanations if is_waiting(e) and e.reason == reason)
