"""What the operator would do next under one policy: a plan that is read instead of carried out."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from .actions import (
    Action,
    Cordon,
    DeleteNode,
    Evict,
    Explanation,
    Plan,
    SetOrder,
    SetUnits,
    Uncordon,
    WriteLock,
    WritePolicy,
)
from .budgets import name_some
from .fleet import Fleet, survey
from .plan import make_plan
from .releases import Fault
from .rollouts import Progress, assess, is_done
from .snapshot import Policy, Rollout, Snapshot
from .waves import soak_of, wave_of

GOALS = {
    "Stage": "writes {version} to its passive slot",
    "Activate": "boots {version}",
    "Commit": "marks {version} good",
    "Abort": "goes back from {version}: {cause}",
}
"""What each goal of an order makes the machine do."""
REQUEST_GOALS = {
    "Stage": "is told that {subject} is asked for",
    "Activate": "{deed}",
    "Commit": "marks {subject} done",
    "Abort": "{subject} is called off: {cause}",
}
"""The same for an order that is a request."""


@dataclass(frozen=True, slots=True)
class Foreseen:
    """One step that would be taken now."""

    action: str
    machine: str
    message: str


@dataclass(frozen=True, slots=True)
class WaveOutlook:
    """One wave of the rollout."""

    name: str
    machines: tuple[str, ...]
    done: int
    """Machines that the rollout no longer waits for."""
    open: bool
    soak_seconds: int
    soaking_until: float | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """What would happen next under one policy, and why each of its machines is where it is."""

    policy: str
    channel: str | None
    """The channel that the policy follows, if it does."""
    rollout: Rollout | None
    begins: bool
    """Whether the rollout is not stored yet: the operator would begin it first."""
    unresolved: Fault | None
    """Why the release could not be resolved."""
    waves: tuple[WaveOutlook, ...]
    steps: tuple[Foreseen, ...]
    explanations: tuple[Explanation, ...]
    wake_at: float | None
    """Earliest instant at which time alone may change the plan."""


def foresee(snapshot: Snapshot, policy_name: str, now: float) -> Forecast:
    """Plan, and read the plan. KeyError for an unknown policy."""
    # A dry run has no term of its own: locks that this leader has not written yet are as good as written.
    locks = {name: replace(lock, term=snapshot.term) for name, lock in snapshot.locks.items()}
    snapshot = replace(snapshot, locks=locks)
    plan = make_plan(snapshot, now)
    begun = _find_begun(plan, snapshot.policies[policy_name])
    if begun is not None:
        # Orders wait for the stored rollout, which takes one write: look behind it.
        policies = {**snapshot.policies, policy_name: begun}
        snapshot = replace(snapshot, policies=policies)
        plan = make_plan(snapshot, now)
    fleet = survey(snapshot)
    policy = snapshot.policies[policy_name]
    progress = assess(fleet, policy, now)
    members = fleet.members[policy_name]
    return Forecast(
        policy=policy_name,
        channel=policy.channel,
        rollout=progress.rollout,
        begins=begun is not None,
        unresolved=progress.unresolved,
        waves=tuple(_look_at_waves(fleet, policy, progress)),
        steps=tuple(step for action in plan.actions for step in _read_action(action) if step.machine in members),
        explanations=tuple(each for each in plan.explanations if each.machine in members),
        wake_at=plan.wake_at,
    )


def _find_begun(plan: Plan, policy: Policy) -> Policy | None:
    """The policy with the rollout that the plan would begin, if it would."""
    for action in plan.actions:
        if not isinstance(action, WritePolicy) or action.name != policy.name or action.state.rollout is None:
            continue
        if policy.rollout is None or policy.rollout.id != action.state.rollout.id:
            return replace(policy, rollout=action.state.rollout)
    return None


def _look_at_waves(fleet: Fleet, policy: Policy, progress: Progress) -> Iterator[WaveOutlook]:
    rollout = progress.rollout
    if rollout is None:
        return
    members: list[list[str]] = [[] for _ in rollout.wave_names]
    for name in fleet.selected[policy.name]:
        machine = fleet.snapshot.machines[name]
        core = fleet.core_of(machine)
        if core is not None:
            members[wave_of(rollout, policy, machine, core)].append(name)
    for index, names in enumerate(members):
        yield WaveOutlook(
            name=rollout.wave_names[index],
            machines=tuple(sorted(names)),
            done=sum(is_done(fleet, rollout, fleet.snapshot.machines[name]) for name in names),
            open=index == rollout.wave,
            soak_seconds=soak_of(rollout, policy, index),
            soaking_until=progress.soaking_until if index == rollout.wave else None,
        )


def _read_action(action: Action) -> Iterator[Foreseen]:
    match action:
        case WriteLock():
            for name in action.freed:
                yield Foreseen("free", name, f"gives RebootLock {action.name} back")
            for name in action.granted:
                yield Foreseen("grant", name, f"is given RebootLock {action.name}, then cordoned and drained")
        case SetOrder():
            order = action.order
            goals = GOALS if order.request is None else REQUEST_GOALS
            sentence = goals[order.goal].format(
                version=order.release.version, subject=order.subject, deed=order.deed, cause=order.cause
            )
            yield Foreseen(order.goal.lower(), action.name, sentence)
        case Cordon():
            yield Foreseen("cordon", action.name, "is made unschedulable")
        case Uncordon():
            yield Foreseen("uncordon", action.name, "is made schedulable" if action.schedulable else "loses our mark")
        case Evict():
            yield Foreseen("evict", action.node, f"pod {action.namespace}/{action.name} is evicted")
        case SetUnits():
            left = [each.name for each in action.holdings if not each.kept]
            sentence = f"is to hold {len(action.holdings) - len(left)} units"
            yield Foreseen("units", action.name, f"{sentence}, and to give up {name_some(left)}" if left else sentence)
        case DeleteNode():
            yield Foreseen("forget", action.name, "is gone: its careen Node is deleted")
        case _:
            return
