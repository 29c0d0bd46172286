"""Gates: the ordered chain of named checks that may refuse to start something on a machine; the first no counts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from careen.api.meta import PROTOCOL
from careen.api.reasons import Cause, Reason
from careen.release.versions import compare_versions

from .budgets import Budgets
from .fleet import Fleet, speaks_protocol
from .movement import STILL, Movement
from .refusal import Refusal
from .releases import Release
from .rollouts import Progress, count_failures, has_failed, refuse_wave
from .semaphore import Refused, acquire
from .snapshot import Holder, Lock, Machine, Policy


@dataclass(frozen=True, slots=True)
class Candidate:
    """A machine that something could be started on."""

    fleet: Fleet
    machine: Machine
    policy: Policy
    progress: Progress
    now: float
    lock_name: str
    """The lock that the machine is activated under: the one in its order's terms, or the policy's before it has one."""
    lock: Lock | None = None
    """That lock with all grants of this plan in it."""
    budgets: Budgets | None = None
    units: Movement = STILL
    granted: tuple[str, ...] = ()
    """Machines that this plan has granted a lock to already: they are left, too."""


Gate = Callable[[Candidate], Refusal | None]


def check_switch(candidate: Candidate) -> Refusal | None:
    """The cluster-wide switch stops everything new."""
    if candidate.fleet.snapshot.paused:
        return Refusal(Reason.CLUSTER_PAUSED, "the cluster-wide switch (ConfigMap careen-switch) is on")
    return None


def check_conflict(candidate: Candidate) -> Refusal | None:
    """A machine that two policies select is left alone by both."""
    owners = candidate.fleet.owners.get(candidate.machine.name, ())
    if len(owners) > 1:
        return Refusal(Reason.POLICY_CONFLICT, f"selected by more than one policy: {', '.join(owners)}")
    return None


def check_paused(candidate: Candidate) -> Refusal | None:
    """Pausing a policy or a machine stops everything new there."""
    if candidate.policy.paused:
        return Refusal(Reason.PAUSED, f"policy {candidate.policy.name} is paused")
    if candidate.machine.paused:
        return Refusal(Reason.PAUSED, "the machine is paused (spec.paused)")
    return None


def check_release(candidate: Candidate) -> Refusal | None:
    """The release must be known, stored as a rollout, and not rejected by this machine."""
    progress = candidate.progress
    fault = progress.unresolved or progress.distrust
    if fault is not None:
        return Refusal(Reason(fault.reason), fault.message)
    if progress.rollout is not None and has_failed(progress.rollout, candidate.machine):
        version = progress.rollout.release.version
        step = candidate.machine.step
        cause = step.cause or "an earlier rollback"
        if candidate.machine.phase == "Failed":
            cause = f"{step.error_class}: {step.error_message}"
        return Refusal(
            Reason.RELEASE_REJECTED,
            f"{version} failed here ({cause}); `careen retry {candidate.machine.name}` tries it again",
        )
    return None


def check_halt(candidate: Candidate) -> Refusal | None:
    """A halted rollout starts nothing until people resume it."""
    rollout = candidate.progress.rollout
    if rollout is None or rollout.halted_at is None:
        return None
    names = ", ".join(f"{failure.node} ({failure.cause})" for failure in rollout.failures[-3:])
    return Refusal(
        Reason.ROLLOUT_HALTED,
        f"rollout {rollout.id} is halted after {count_failures(rollout.failed)}: {names}; "
        f"`careen resume {candidate.policy.name}` goes on",
    )


def check_agent(candidate: Candidate) -> Refusal | None:
    """Only a machine whose agent talks, in a protocol that this operator knows, is told anything."""
    machine, core = candidate.machine, candidate.fleet.core_of(candidate.machine)
    if not machine.reported:
        return Refusal(Reason.AGENT_MISSING, "no agent has reported for this machine yet")
    if machine.name in candidate.fleet.snapshot.silent:
        if core is not None and not core.ready:
            return Refusal(Reason.NODE_NOT_READY, "the core Node is not Ready and the agent is silent")
        return Refusal(Reason.AGENT_SILENT, f"the agent has not renewed its Lease agent-{machine.name}")
    if not speaks_protocol(machine):
        return Refusal(
            Reason.PROTOCOL_SKEW, f"the agent speaks protocol {machine.protocol}, this operator up to {PROTOCOL}"
        )
    return None


def check_image(candidate: Candidate) -> Refusal | None:
    """The release must have an image for the machine's architecture."""
    machine, release = candidate.machine, _release(candidate)
    if release is None or not release.architectures or machine.architecture in (None, *release.architectures):
        return None
    there = ", ".join(release.architectures)
    return Refusal(Reason.NO_IMAGE, f"{release.version} has no image for {machine.architecture}; it has {there}")


def check_floor(candidate: Candidate) -> Refusal | None:
    """What runs on the machine must be at least the release's floor: older systems can't be updated to it directly."""
    machine, release = candidate.machine, _release(candidate)
    if release is None or release.min_version is None:
        return None
    wanted = f"{release.version} can be reached from {release.min_version} on"
    if machine.version is None:
        return Refusal(Reason.BELOW_FLOOR, f"{wanted}, and the version that runs here is not known")
    if _is_older(machine.version, release.min_version):
        return Refusal(
            Reason.BELOW_FLOOR,
            f"{wanted}, and {machine.version} runs here; update it to a release in between first",
        )
    return None


def check_downgrade(candidate: Candidate) -> Refusal | None:
    """An older release is refused unless people allow it: data in /var may be newer than it can read."""
    machine, release = candidate.machine, _release(candidate)
    if release is None or machine.version is None or candidate.policy.terms.allow_downgrade:
        return None
    if not _is_older(release.version, machine.version):
        return None
    return Refusal(
        Reason.DOWNGRADE_REFUSED,
        f"{release.version} is older than {machine.version}, which runs here; "
        f"spec.release.allowDowngrade of policy {candidate.policy.name} allows it",
    )


@lru_cache(maxsize=4096)
def _is_older(left: str, right: str) -> bool:
    """Remembered: every plan asks for every machine, and a fleet has few versions."""
    return compare_versions(left, right) < 0


def _release(candidate: Candidate) -> Release | None:
    rollout = candidate.progress.rollout
    return rollout.release if rollout is not None else None


def check_wave(candidate: Candidate) -> Refusal | None:
    """Waves open one after the other."""
    return refuse_wave(candidate.progress, candidate.machine, candidate.fleet)


def check_drain_pause(candidate: Candidate) -> Refusal | None:
    """After a drain that was given up the machine waits, so that another one may use the lock."""
    machine, note = candidate.machine, candidate.machine.note
    if note is None:
        return None
    if note.reason == Reason.DRAIN_TIMEOUT:
        until = note.since + candidate.policy.drain_retry_seconds
        return Refusal(Reason.DRAIN_TIMEOUT, note.message, until) if candidate.now < until else None
    order = machine.order
    if note.state != "Draining" or order is None or order.cause != Cause.WITHDRAWN or order.from_boot_id is not None:
        return None
    # The order was withdrawn, and the leader may have died before it could say why: the stored instant tells.
    if candidate.now < note.since + order.terms.drain_timeout_seconds:
        return None
    message = f"the drain did not end in {order.terms.drain_timeout_seconds} s; {note.message}"
    return Refusal(Reason.DRAIN_TIMEOUT, message, candidate.now + candidate.policy.drain_retry_seconds)


def check_lock(candidate: Candidate) -> Refusal | None:
    """The lock must be there, not paused, and written by this leader's term."""
    name = candidate.lock_name
    if candidate.lock is None:
        return Refusal(Reason.LOCK_MISSING, f"RebootLock {name} does not exist")
    if candidate.lock.paused:
        return Refusal(Reason.LOCK_PAUSED, f"RebootLock {name} is paused")
    return None


def check_budgets(candidate: Candidate) -> Refusal | None:
    """No more machines down than the budgets allow, whatever took them down."""
    return candidate.budgets.refuse(candidate.machine) if candidate.budgets is not None else None


def check_free(candidate: Candidate) -> Refusal | None:
    """The lock must have room, and nobody may hold it under the machine's own name."""
    if candidate.lock is None:
        return None
    for holder in candidate.lock.holders:
        if holder.id == candidate.machine.name:
            # To lock again would succeed and change nothing: the machine would wait for ever without a reason.
            lock, by = candidate.lock.name, holder.by or "somebody else"
            return Refusal(Reason.LOCK_FULL, f"{by} holds RebootLock {lock} in the name of {holder.id}")
    outcome = acquire(candidate.lock, Holder(id=candidate.machine.name, since=candidate.now))
    return Refusal(outcome.reason, outcome.message) if isinstance(outcome, Refused) else None


def check_deadman(candidate: Candidate) -> Refusal | None:
    """What undoes a trial must not depend on the trial's user space (invariant 11)."""
    machine = candidate.machine
    if candidate.policy.terms.allow_no_deadman or machine.phase == "Verifying":
        return None  # A trial that runs already can only be taken over.
    if machine.deadman is None:
        return Refusal(Reason.NO_DEADMAN, "the agent has not told yet what would undo a trial that hangs")
    if machine.deadman == "Missing":
        return Refusal(
            Reason.NO_DEADMAN,
            "nothing would undo a trial that hangs: no hardware watchdog survives the boot, and the release declares "
            f"no trial timer; spec.boot.allowNoDeadman of policy {candidate.policy.name} permits it all the same",
        )
    return None


def check_units(candidate: Candidate) -> Refusal | None:
    """A machine that is being left must have no unit that can go nowhere else."""
    return candidate.units.blocked.get(candidate.machine.name) if candidate.machine.phase != "Verifying" else None


def check_movable(candidate: Candidate) -> Refusal | None:
    """Asked last, for it is the costliest question: could all units that must leave the machine go elsewhere?"""
    if candidate.machine.phase == "Verifying":
        return None  # The machine runs its trial already; nothing goes down any more.
    return candidate.units.ask(candidate.machine.name, candidate.granted)


HOLD_GATES: tuple[Gate, ...] = (
    check_conflict,
    check_switch,
    check_paused,
    check_release,
    check_halt,
    check_agent,
    check_image,
    check_floor,
    check_downgrade,
    check_lock,
    check_wave,
)
"""What must hold to start."""
HELD_GATES: tuple[Gate, ...] = (*HOLD_GATES, check_deadman, check_units)
"""What must hold to go on as a holder that is not activated yet: a no gives the lock back."""
STAGE_GATES: tuple[Gate, ...] = (*HOLD_GATES, check_drain_pause)
ACTIVATE_GATES: tuple[Gate, ...] = (*HELD_GATES, check_drain_pause, check_budgets, check_free, check_movable)
REQUEST_GATES: tuple[Gate, ...] = (check_conflict, check_switch, check_paused, check_agent, check_lock, check_units)
"""What must hold for a reboot or a reset to start, and to go on as a holder: nothing that is about a release."""
REQUEST_STAGE_GATES: tuple[Gate, ...] = (*REQUEST_GATES, check_drain_pause)
REQUEST_ACTIVATE_GATES: tuple[Gate, ...] = (*REQUEST_STAGE_GATES, check_budgets, check_free, check_movable)


def first_refusal(gates: Sequence[Gate], candidate: Candidate) -> Refusal | None:
    """The first no of a chain."""
    for gate in gates:
        refusal = gate(candidate)
        if refusal is not None:
            return refusal
    return None
