"""The units that a machine is to hold, and what its agent reports of them."""

from typing import Annotated, Literal

from pydantic import Field

from .meta import Message, Model, ObjectName
from .unit import FullName, MetadataKey, SystemdWord, UnitHash

MOST_UNITS = 512
"""Units of one machine."""
MOST_METADATA = 64
"""Entries of a machine's metadata."""
UNIT_LIST = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}

Metadata = Annotated[dict[MetadataKey, Annotated[str, Field(max_length=253)]], Field(max_length=MOST_METADATA)]


class UnitOrder(Model):
    """One unit that the machine must hold, or must get rid of."""

    name: FullName
    """Full name of the unit for systemd."""
    unit: ObjectName
    """Name of the Unit object that the content is read from."""
    hash: UnitHash
    """SHA-1 of the content's canonical text; the agent takes no other content."""
    desired_state: Literal["loaded", "launched", "removed"]
    """loaded: read by systemd and stopped. launched: started once. removed: stopped, and its file taken away; the entry
    stays until the agent reports that."""


class UnitReport(Model):
    """One unit as the machine's systemd has it."""

    name: FullName
    """Full name of the unit."""
    hash: UnitHash | None = None
    """SHA-1 of the canonical text that the machine holds; absent when it holds no file of the unit. With no hash and
    nothing running, the order to remove the unit is done."""
    load: SystemdWord
    """systemd's load state: loaded, not-found, bad-setting, error, masked."""
    active: SystemdWord
    """systemd's active state: active, reloading, inactive, failed, activating, deactivating."""
    sub: SystemdWord
    """systemd's sub state, which depends on the unit's type, such as running, exited, dead or waiting."""
    launched: bool = False
    """The agent has asked systemd to start it, in this boot and with this content. Default false."""
    message: Message | None = None
    """Why the last order is not done, as a sentence: a content that does not have the ordered hash, a job of systemd
    that failed. Absent when there is nothing to say."""
