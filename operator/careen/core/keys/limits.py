"""How much the keyspace may hold, looked at before an operation is logged.

A client that writes as fast as it can must not fill the store of the cluster. What is already logged is applied in any
case, so that changed settings never change the past; two gateways that admit at the same instant may together pass a
limit by what fits in their batches.
"""

from dataclasses import dataclass

from .answers import quote
from .faults import Code, Refusal
from .operations import Change
from .paths import split_path
from .state import Size


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
    """Bytes of one path."""
    depth: int = 128
    """Parts of one path."""


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
