"""RebootLock: the cluster-wide semaphore of reboots, locksmith's arithmetic made idempotent."""

from typing import Annotated

from pydantic import Field

from .meta import Condition, Identifier, Message, Model, Timestamp


class Holder(Model):
    """One holder of the lock."""

    id: Identifier
    """Who holds: the machine's name for the operator's own, any word for people and old clients."""
    order: Annotated[str, Field(max_length=253)] | None = None
    """Order that the operator holds it for; absent for holders by people, which only people free."""
    node_uid: Annotated[str, Field(max_length=64)] | None = None
    """UID of the careen Node."""
    core_node_uid: Annotated[str, Field(max_length=64)] | None = None
    """UID of the core Node; with machineID it tells a machine that is gone from one that was made again."""
    machine_id: Annotated[str, Field(max_length=64)] | None = None
    """nodeInfo.machineID of the core Node."""
    since: Timestamp
    """When the lock was granted."""
    by: Annotated[str, Field(max_length=253)] | None = None
    """Who took it: operator, or the name of the person who called `careen lock lock`."""
    reason: Message | None = None
    """Why, in words."""
    unavailable_at_grant: bool = False
    """Whether the machine was not Ready, or its agent silent, when the lock was granted; it then need not be better
    afterwards. A machine that people had only made unschedulable is not meant: it must be Ready again."""


class RebootLockSpec(Model):
    """How many may hold the lock at once. The object's name is the group's."""

    max: Annotated[int, Field(ge=0, le=5000)]
    """How many holders there may be; 0 grants nothing. Lowered below the holders, it refuses new ones until enough
    have left."""
    paused: bool = False
    """Grant nothing new. Holders keep the lock until they are done. Default false."""


class RebootLockStatus(Model):
    """Who holds the lock."""

    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """metadata.generation that available was computed from."""
    term: Annotated[int, Field(ge=0)] | None = None
    """Term of the leader that wrote last; a new leader writes its own first, so that every late write of the old one
    fails."""
    available: int | None = None
    """max minus holders; negative while max was lowered below them."""
    holders: (
        Annotated[
            list[Holder],
            Field(
                max_length=5000,
                json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"]},
            ),
        ]
        | None
    ) = None
    """Who holds the lock, sorted by id."""
    conditions: (
        Annotated[
            list[Condition],
            Field(
                max_length=16,
                json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
            ),
        ]
        | None
    ) = None
    """Ready (could grant), Reconciling, Stalled."""
