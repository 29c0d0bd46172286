"""What an UpdatePolicy's status stores of its release and rollout; written by the operator alone."""

from typing import Annotated

from pydantic import Field

from .meta import Digest, Identifier, Model, ObjectName, Timestamp
from .node import CauseWord
from .rules import rule, rules

MOST_FAILURES = 1000
"""Failures of one rollout that are recorded: each by its order, so that none is counted twice."""


class FailureRecord(Model):
    """One machine on which the rollout failed."""

    node: ObjectName
    """Name of the machine."""
    node_uid: Annotated[str, Field(max_length=64)]
    """UID of its core Node."""
    order: Identifier
    """The order that failed."""
    cause: CauseWord
    """Why."""


class Rollout(
    Model,
    json_schema_extra=rules(
        rule(
            "self.number >= oldSelf.number",
            "number must never go backwards: order ids are made from it",
            field=".number",
        ),
        rule(
            "self.number != oldSelf.number || (self.id == oldSelf.id && self.digest == oldSelf.digest)",
            "id and digest must stay as they are under one number",
            field=".digest",
        ),
        rule(
            "!has(self.forgiven) || self.forgiven <= (has(self.failed) ? self.failed : 0)",
            "forgiven must be at most failed",
            field=".forgiven",
        ),
    ),
):
    """One release under this policy: waves, soak, failures and the halt belong to it."""

    id: Identifier
    """Number and beginning of the digest; orders carry it."""
    number: Annotated[int, Field(ge=1)]
    """Counts the policy's rollouts from 1."""
    repository: Annotated[str, Field(max_length=2048)]
    """Where the release comes from."""
    version: Annotated[str, Field(max_length=128)]
    """Version of the release."""
    digest: Digest
    """Digest of the release."""
    size_bytes: Annotated[int, Field(ge=1)]
    """Size of the largest image in bytes."""
    path: Annotated[str, Field(max_length=1024)]
    """Path of the release's document, a target of the repository."""
    min_version: Annotated[str, Field(max_length=128)] | None = None
    """The floor: oldest version that may update to the release; absent when any may."""
    capabilities: (
        Annotated[
            list[Annotated[str, Field(max_length=64)]],
            Field(max_length=64, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
        ]
        | None
    ) = None
    """What the release can do, such as trial-timer."""
    architectures: (
        Annotated[
            list[Annotated[str, Field(max_length=64)]],
            Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
        ]
        | None
    ) = None
    """Architectures that the release has an image for, as `uname -m` names them."""
    started_at: Timestamp
    """When the rollout began; machines made later are in the last wave."""
    wave: Annotated[int, Field(ge=0)] = 0
    """Index of the wave that is open, from 0."""
    wave_names: Annotated[
        list[Annotated[str, Field(max_length=63)]],
        Field(max_length=17, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ]
    """Names of the waves when the rollout began."""
    wave_bounds: Annotated[
        list[Annotated[str, Field(max_length=64)]],
        Field(max_length=17, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ]
    """Upper bound of each wave in the order of hash(machine, rollout); empty for a wave by names."""
    wave_done_at: Timestamp | None = None
    """When the open wave was finished and healthy; the soak runs from it."""
    failures: (
        Annotated[
            list[FailureRecord],
            Field(max_length=MOST_FAILURES, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
        ]
        | None
    ) = None
    """Machines on which the rollout failed, oldest first; a rollout with 1000 of them stays halted."""
    failed: Annotated[int, Field(ge=0)] = 0
    """How many failures there were."""
    forgiven: Annotated[int, Field(ge=0)] = 0
    """How many of them people have seen and forgiven by `careen resume`."""
    halted_at: Timestamp | None = None
    """When the failure budget was spent; only `careen resume` or a new rollout lifts the halt."""


class ResolvedRelease(Model):
    """What spec.release was found to be, when it was last looked up with success."""

    repository: Annotated[str, Field(max_length=2048)]
    """URL of the repository that was asked."""
    channel: Annotated[str, Field(max_length=64)] | None = None
    """Channel that was asked for; absent when spec.release names a version or digest."""
    version: Annotated[str, Field(max_length=128)]
    """Version that was found."""
    digest: Digest
    """Digest that was found. A channel that moves shows here first, then as a new rollout."""
    resolved_at: Timestamp
    """When it was last found so; while nothing changes it is brought up to date once an hour."""
