"""How much the keyspace may hold, looked at before an operation is logged.

A client that writes as fast as it can must not fill the store of the cluster. What is already logged is applied in any
case, so that changed settings never change the past; two gateways that admit at the same instant may together pass a
limit by what fits in their batches.
"""

from dataclasses import dataclass, fields

from .answers import quote
from .codec import BATCH_OCTETS
from .faults import Code, Refusal
from .operations import Change
from .paths import split_path
from .state import Size

EVENT_OCTETS = 1000
"""Bytes of an event in a snapshot, and of the document around it, beside paths and values."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is admitted."""

    keys: int = 100_000
    """Entries in all, directories counted."""
    octets: int = 64 * 1024 * 1024
    """Bytes of all paths and values."""
    value_octets: int = 256 * 1024
    """Bytes of one value as JSON text, without the quotes. etcd has no such limit; here a value must fit into one
    object of the log, and an event with two of them into one part of a snapshot."""
    path_octets: int = 2048
    """Bytes of one path, each of which may take six in JSON."""
    depth: int = 128
    """Parts of one path; lists and answers go down as many levels, so it is at most 256."""

    def __post_init__(self) -> None:
        for each in fields(self):
            if getattr(self, each.name) < 1:
                raise ValueError(f"{each.name} is {getattr(self, each.name)}, must be at least 1")
        if self.depth > 256:
            raise ValueError(f"depth is {self.depth}, must be at most 256")
        event = 2 * self.value_octets + 2 * 6 * self.path_octets + EVENT_OCTETS
        if event > BATCH_OCTETS:
            raise ValueError(
                f"value_octets is {self.value_octets} and path_octets {self.path_octets}: an event could have {event}"
                f" bytes, a document has {BATCH_OCTETS}"
            )


def admit(change: Change, held: Size, limits: Limits, index: int) -> Refusal | None:
    """Why the change is not admitted; None when it is.

    `held` is the size of the keyspace and of what is admitted but not applied yet. What makes less is never refused.
    """
    if change.entry is None:
        return None
    path, value = change.event.node.key, change.entry.value or ""
    cause = (
        _exceeds("path", len(path.encode()), limits.path_octets, "bytes")
        or _exceeds("path", len(split_path(path)), limits.depth, "parts")
        or _exceeds("value", len(quote(value).encode()) - 2, limits.value_octets, "bytes as JSON")
    )
    total = held + change.growth
    if not cause and change.growth.keys > 0:
        cause = _exceeds("keyspace", total.keys, limits.keys, "keys")
    if not cause and change.growth.octets > 0:
        cause = _exceeds("keyspace", total.octets, limits.octets, "bytes")
    return Refusal(Code.LIMIT_EXCEEDED, cause, index) if cause else None


def _exceeds(what: str, number: int, limit: int, unit: str) -> str:
    return f"the {what} would have {number} {unit}, at most {limit} are allowed" if number > limit else ""
