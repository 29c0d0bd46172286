"""UpdatePolicy: which machines run which release, and how fast they may get there."""

from typing import Annotated, Literal

from pydantic import Field

from .meta import (
    DEFAULT_LOCK,
    LIST_MAP_BY_TYPE,
    BootMethod,
    BytesPerSecond,
    ChannelName,
    Condition,
    Digest,
    Mirrors,
    Model,
    ObjectName,
    OnSilence,
    ReleaseVersion,
    RepositoryURL,
    Seconds,
)
from .rollout import MOST_FAILURES, ResolvedRelease, Rollout
from .rules import ALLOWED, INT_OR_PERCENT, rule, rules

IntOrPercent = Annotated[int | str, Field(json_schema_extra={"x-kubernetes-int-or-string": True, INT_OR_PERCENT: True})]
LabelKey = Annotated[str, Field(min_length=1, max_length=317)]
LabelValue = Annotated[
    str,
    Field(
        max_length=63,
        pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
        json_schema_extra={
            ALLOWED: "a label's value: letters, digits, -, _ and ., with a letter or digit at both ends, or empty"
        },
    ),
]


class LabelRequirement(
    Model,
    json_schema_extra=rules(
        rule(
            "(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",
            "values must have at least one entry with operator In and NotIn, and none with Exists and DoesNotExist",
            field=".values",
        )
    ),
):
    """One requirement on a label."""

    key: LabelKey
    """Label key."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """In, NotIn, Exists or DoesNotExist."""
    values: (
        Annotated[list[LabelValue], Field(max_length=256, json_schema_extra={"x-kubernetes-list-type": "atomic"})]
        | None
    ) = None
    """Values for In and NotIn; must be empty for the others."""


class LabelSelector(Model):
    """Selects machines by labels of the core Node, and of the careen Node for keys absent there."""

    match_labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=64)] | None = None
    """Labels that must all have these values."""
    match_expressions: (
        Annotated[
            list[LabelRequirement],
            Field(max_length=64, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
        ]
        | None
    ) = None
    """Requirements that must all hold."""


class ReleaseRef(
    Model,
    json_schema_extra=rules(
        rule(
            "[has(self.channel), has(self.version), has(self.digest)].exists_one(given, given)",
            "release must have exactly one of channel, version and digest",
        )
    ),
):
    """What the machines are to run: exactly one of channel, version and digest, from a repository of signed releases.

    The repository is only a location: what it serves must be signed by the keys that the trust root names.
    """

    repository: RepositoryURL
    """URL of the release repository; signed metadata lies below it in metadata/ and targets/, blocks in files/."""
    mirrors: Mirrors | None = None
    """More places that serve the repository's files/, tried by the machines when one fails; at most 8. An edit
    gives machines that are still staging a new order. Default none."""
    channel: ChannelName | None = None
    """Channel to follow, such as stable: the newest release for a group. It is looked up anew every few minutes; when
    it has moved, a new rollout begins at the first wave."""
    version: ReleaseVersion | None = None
    """Version to run, looked up once for a rollout."""
    digest: Digest | None = None
    """Digest of the release to run, as `sha256:` and 64 hex digits."""
    allow_downgrade: bool = False
    """Also move machines to a release that is older than what they run; without it they wait with reason
    DowngradeRefused. Default false."""
    bytes_per_second: BytesPerSecond | None = None
    """Most bytes per second that each machine may fetch, at least 1024. Default: no limit."""


class TopologyBudget(Model):
    """How many machines of one failure domain may be unavailable at once."""

    key: LabelKey
    """Label of the core Node that names the domain; machines without it form one domain of their own."""
    max_unavailable: IntOrPercent
    """Most machines of one domain that may be unavailable, as a number from 1 on, or as a percentage of the domain's
    machines, such as "25%" (rounded down, at least 1)."""


class Wave(
    Model,
    json_schema_extra=rules(
        rule(
            "[has(self.count), has(self.percent), has(self.nodeNames)].exists_one(given, given)",
            "a wave must have exactly one of count, percent and nodeNames",
            message_expression="'wave ' + self.name + ' must have exactly one of count, percent and nodeNames'",
        )
    ),
):
    """A part of a rollout's machines: exactly one of count, percent and nodeNames."""

    name: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
            min_length=1,
            max_length=63,
            json_schema_extra={ALLOWED: "lower-case letters, digits and -, with a letter or digit at both ends"},
        ),
    ]
    """Name of the wave, unique in the policy."""
    count: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Number of machines."""
    percent: Annotated[int, Field(ge=1, le=100)] | None = None
    """Share of the rollout's machines in percent, rounded down, at least one machine."""
    node_names: (
        Annotated[
            list[ObjectName],
            Field(min_length=1, max_length=500, json_schema_extra={"x-kubernetes-list-type": "set"}),
        ]
        | None
    ) = None
    """Machines by name."""
    soak_seconds: Seconds = 0
    """Seconds for which all machines of the wave must stay healthy before the next wave begins. Default 0."""


class Strategy(
    Model,
    json_schema_extra=rules(
        rule(
            "!has(self.waves) || self.waves.map(wave, has(wave.percent) ? wave.percent : 0).sum() <= 100",
            "percent of all waves together must be at most 100",
            field=".waves",
        )
    ),
):
    """How many machines may be changed at once, and in which order."""

    max_unavailable: IntOrPercent = 1
    """Most machines of this policy that may be unavailable at once, for whatever reason, as a number from 1 on, or as a
    percentage of them, such as "10%" (rounded down, at least 1). Default 1."""
    topology: (
        Annotated[
            list[TopologyBudget],
            Field(
                max_length=1,
                json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["key"]},
            ),
        ]
        | None
    ) = None
    """Budget for each domain of one topology key, on top of maxUnavailable."""
    max_staging: Annotated[int, Field(ge=1, le=5000)] = 10
    """Most machines that may be writing their passive slot at once. Default 10."""
    waves: (
        Annotated[
            list[Wave],
            Field(
                max_length=16,
                json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
            ),
        ]
        | None
    ) = None
    """Waves in their order; machines that no wave takes form a last one. Without waves all machines are in one."""
    lock: ObjectName = DEFAULT_LOCK
    """Name of the RebootLock that machines are activated under. Default `default`."""


class Drain(Model):
    """How pods are moved away before a machine is activated."""

    timeout_seconds: Annotated[int, Field(ge=1, le=604_800)] = 3600
    """Seconds after which a drain that does not end is given up; the lock is given back. Default 3600."""
    retry_seconds: Annotated[int, Field(ge=0, le=604_800)] = 300
    """Seconds that a machine waits after a drain that was given up before it is tried again. Default 300."""


class Boot(Model):
    """How the new slot is booted and guarded."""

    method: BootMethod = "Auto"
    """Kexec, Firmware, or Auto: kexec where the machine can. Default Auto."""
    commit_timeout_seconds: Annotated[int, Field(ge=1, le=86_400)] = 600
    """Seconds of a trial boot after which an agent that never reached the API server obeys onSilence. Default 600."""
    on_silence: OnSilence = "Rollback"
    """Rollback goes back, Commit keeps the new OS when the local gates pass, Wait stays on trial. Default Rollback."""
    allow_no_deadman: bool = False
    """Boot a release also where nothing would undo a trial that hangs: neither a hardware watchdog that survives the
    boot nor a timer in the release. Such a machine waits for hands. Default false."""


class Failure(Model):
    """What happens when machines fail."""

    max_failed: Annotated[int, Field(ge=0, le=MOST_FAILURES - 1)] = 0
    """Failures of one rollout that are tolerated; one more and the action is taken. Default 0."""
    action: Literal["Halt"] = "Halt"
    """Halt stops the rollout until people resume it or ask for another release. Default Halt."""


class UpdatePolicySpec(
    Model,
    json_schema_extra=rules(
        rule(
            "self.readySeconds < self.verifyTimeoutSeconds",
            "readySeconds must be less than verifyTimeoutSeconds, or every trial boot would be rolled back",
            field=".readySeconds",
        )
    ),
):
    """Which machines run which release, and how they get there."""

    selector: LabelSelector = LabelSelector()
    """Machines that the policy is for. Default {}, all machines."""
    release: ReleaseRef
    """What the machines are to run."""
    paused: bool = False
    """Start nothing new. Machines in flight finish. Default false."""
    strategy: Strategy = Strategy()
    """Budgets and waves."""
    drain: Drain = Drain()
    """How pods are moved away."""
    boot: Boot = Boot()
    """How the new slot is booted and guarded."""
    ready_seconds: Seconds = 0
    """Seconds for which a machine must be Ready in the new OS before it is marked good. Default 0."""
    verify_timeout_seconds: Annotated[int, Field(ge=1, le=86_400)] = 600
    """Seconds after which a trial boot that does not become Ready is rolled back. Default 600."""
    failure: Failure = Failure()
    """How many failures are tolerated."""


class PolicyCounts(Model):
    """Machines of the policy by state."""

    selected: Annotated[int, Field(ge=0)] = 0
    """Machines that the selector matches."""
    updated: Annotated[int, Field(ge=0)] = 0
    """Machines that run the release, marked good."""
    staging: Annotated[int, Field(ge=0)] = 0
    """Machines that write the release to their passive slot."""
    staged: Annotated[int, Field(ge=0)] = 0
    """Machines that hold the release, verified, in their passive slot."""
    in_flight: Annotated[int, Field(ge=0)] = 0
    """Machines that were told to activate and have not ended."""
    unavailable: Annotated[int, Field(ge=0)] = 0
    """Machines that are unavailable, for whatever reason."""
    failed: Annotated[int, Field(ge=0)] = 0
    """Machines on which the release is rejected."""


class UpdatePolicyStatus(
    Model,
    json_schema_extra=rules(
        rule(
            "!has(oldSelf.rollout) || has(self.rollout)",
            "rollout must stay: its number counts on for the life of the policy",
            field=".rollout",
        )
    ),
):
    """Where the policy stands; written by the operator alone."""

    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """metadata.generation that this status was computed from."""
    release: ResolvedRelease | None = None
    """What spec.release was found to be."""
    rollout: Rollout | None = None
    """The current rollout."""
    counts: PolicyCounts | None = None
    """Machines by state."""
    summary: Annotated[str, Field(max_length=64)] | None = None
    """Updated machines of selected ones, such as 3/6."""
    conditions: Annotated[list[Condition], Field(max_length=16, json_schema_extra=LIST_MAP_BY_TYPE)] | None = None
    """Complete, Progressing, Waiting, Halted, PolicyConflict, ReleaseResolved, and the standard Ready, Reconciling,
    Stalled. ReleaseResolved is False with reason TrustFailed (signatures, keys or expiry are wrong: nothing new is
    started) or ReleaseUnavailable, and True with reason MetadataExpiring ahead of time."""
