"""Every reason that a condition, an event, a metric label or the command line may show: one list for all of them."""

from enum import StrEnum


class Reason(StrEnum):
    """Why something waits, was refused, or ended. The value is what users see."""

    # A machine or a rollout waits.
    PAUSED = "Paused"
    CLUSTER_PAUSED = "ClusterPaused"
    POLICY_CONFLICT = "PolicyConflict"
    WAVE_PENDING = "WavePending"
    WAVE_SOAKING = "WaveSoaking"
    LOCK_FULL = "LockFull"
    LOCK_PAUSED = "LockPaused"
    LOCK_MISSING = "LockMissing"
    STAGING_BUDGET = "StagingBudgetSpent"
    BUDGET_SPENT = "BudgetSpent"
    TOPOLOGY_BUDGET_SPENT = "TopologyBudgetSpent"
    CONTROL_PLANE_BUDGET = "ControlPlaneBudget"
    NODE_NOT_READY = "NodeNotReady"
    AGENT_SILENT = "AgentSilent"
    AGENT_MISSING = "AgentMissing"
    DISRUPTION_BUDGET = "DisruptionBudget"
    DRAINING = "Draining"
    DRAIN_TIMEOUT = "DrainTimeout"
    RELEASE_REJECTED = "ReleaseRejected"
    RELEASE_UNRESOLVED = "ReleaseUnresolved"
    RELEASE_UNAVAILABLE = "ReleaseUnavailable"
    TRUST_FAILED = "TrustFailed"
    NO_IMAGE = "NoImage"
    BELOW_FLOOR = "BelowFloor"
    DOWNGRADE_REFUSED = "DowngradeRefused"
    ROLLOUT_HALTED = "RolloutHalted"
    PROTOCOL_SKEW = "ProtocolSkew"
    NO_DEADMAN = "NoDeadman"
    REQUESTED = "Requested"
    UNIT_NOT_MOVABLE = "UnitNotMovable"
    # A machine is at work.
    STAGING = "Staging"
    STAGING_FAILED = "StagingFailed"
    ACTIVATING = "Activating"
    VERIFYING = "Verifying"
    GIVING_BACK = "GivingBack"
    RETURNING = "Returning"
    # A machine or a rollout is where it should be, or has ended elsewhere.
    UP_TO_DATE = "UpToDate"
    ROLLED_BACK = "RolledBack"
    NO_POLICY = "NoPolicy"
    COMPLETE = "Complete"
    ROLLING_OUT = "RollingOut"
    NO_MACHINES = "NoMachines"
    MACHINES_FAILED = "MachinesFailed"
    FAILURE_BUDGET = "FailureBudgetSpent"
    AVAILABLE = "Available"
    RESOLVED = "Resolved"
    METADATA_EXPIRING = "MetadataExpiring"
    # A unit is where it should be, or not.
    VALID = "Valid"
    INVALID = "Invalid"
    NAME_FREE = "NameFree"
    NAME_TAKEN = "NameTaken"
    INACTIVE = "Inactive"
    PLACED = "Placed"
    NO_PLACE = "NoPlace"
    MOVING = "Moving"
    STARTING = "Starting"
    STOPPING = "Stopping"
    UNIT_FAILED = "UnitFailed"


class Cause(StrEnum):
    """Why an order was aborted or rolled back (design.md section 4 rule 8)."""

    PEOPLE = "People"
    GATE_FAILED = "GateFailed"
    WITHDRAWN = "Withdrawn"
    PANIC = "Panic"
    WATCHDOG = "Watchdog"
    LOCAL_GATE = "LocalGate"
    INTERRUPTED = "Interrupted"
    TRIAL_LOST = "TrialLost"
    JOURNAL_LOST = "JournalLost"
    SILENCE = "Silence"


COUNTED = frozenset({Cause.PANIC, Cause.WATCHDOG, Cause.LOCAL_GATE, Cause.GATE_FAILED, Cause.SILENCE})
"""Causes that reject the digest on the machine and count as a failure of the rollout at once."""

LOST = frozenset({Cause.TRIAL_LOST, Cause.JOURNAL_LOST})
"""Causes that get one more attempt; the second time they count and reject."""


def counts(cause: str | None, lost_attempts: int) -> bool:
    """Whether a rollback with this cause is a failure of the rollout, after that many attempts lost before."""
    return cause in COUNTED or (cause in LOST and lost_attempts >= 1)


def rejects(cause: str | None, lost_attempts: int) -> bool:
    """Whether a rollback with this cause forbids the digest on the machine until people say otherwise."""
    return cause == Cause.PEOPLE or counts(cause, lost_attempts)
