"""What a machine's partition table says: its two slots, and how the table itself is."""

from typing import Annotated

from pydantic import Field

from .meta import Message, Model, Timestamp

Faults = Annotated[list[Message], Field(max_length=4, json_schema_extra={"x-kubernetes-list-type": "atomic"})]


class SlotStatus(Model):
    """One of the two /usr partitions."""

    partition: Annotated[int, Field(ge=1, le=128)]
    """Number of the partition in the GPT."""
    priority: Annotated[int, Field(ge=0, le=15)]
    """GPT priority; the highest bootable one wins, 0 is never booted."""
    tries: Annotated[int, Field(ge=0, le=15)]
    """Boot attempts that the boot loader may still spend on this slot."""
    successful: bool
    """Whether a boot of this slot was proven good."""
    version: Annotated[str, Field(max_length=128)] | None = None
    """Version of the OS in this slot; absent when unknown or when the slot is being written. Without a digest it is
    what the running OS or the slot's boot block says of itself."""
    digest: Annotated[str, Field(max_length=71)] | None = None
    """sha256 of the image that was last verified in this slot."""


class Slots(Model):
    """Both slots."""

    a: Annotated[SlotStatus, Field(alias="A")]
    """Slot USR-A."""
    b: Annotated[SlotStatus, Field(alias="B")]
    """Slot USR-B."""


class TableStatus(Model):
    """How the two copies of the partition table (GPT) are."""

    faults: Faults | None = None
    """What is wrong with a copy; absent when both are sound. It is put right when no order is under way, and before
    any change of the table."""
    repaired: Faults | None = None
    """What the last repair put right."""
    repaired_at: Timestamp | None = None
    """When that was, by the machine's clock."""
