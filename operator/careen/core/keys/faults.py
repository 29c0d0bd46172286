"""What etcd's v2 API answers when it refuses: numbers, words and HTTP status, as data."""

from dataclasses import dataclass, replace
from enum import IntEnum
from types import MappingProxyType


class Code(IntEnum):
    """Number of an error, as clients know it."""

    KEY_NOT_FOUND = 100
    COMPARE_FAILED = 101
    NOT_A_FILE = 102
    NOT_A_DIRECTORY = 104
    KEY_EXISTS = 105
    ROOT_IS_READ_ONLY = 107
    DIRECTORY_NOT_EMPTY = 108
    UNAUTHORIZED = 110
    LIMIT_EXCEEDED = 120
    """Ours: the keyspace, a key or a value would grow beyond its limit."""
    LOCK_REFUSED = 121
    """Ours: a write to locksmith's semaphore that the RebootLock behind it can't follow."""
    PREV_VALUE_REQUIRED = 201
    TTL_NOT_A_NUMBER = 202
    INDEX_NOT_A_NUMBER = 203
    INVALID_FIELD = 209
    INVALID_FORM = 210
    VALUE_ON_REFRESH = 211
    TTL_REQUIRED_ON_REFRESH = 212
    RAFT_INTERNAL = 300
    LEADER_ELECTION = 301
    WATCHER_CLEARED = 400
    HISTORY_CLEARED = 401


MESSAGES = MappingProxyType(
    {
        Code.KEY_NOT_FOUND: "Key not found",
        Code.COMPARE_FAILED: "Compare failed",
        Code.NOT_A_FILE: "Not a file",
        Code.NOT_A_DIRECTORY: "Not a directory",
        Code.KEY_EXISTS: "Key already exists",
        Code.ROOT_IS_READ_ONLY: "Root is read only",
        Code.DIRECTORY_NOT_EMPTY: "Directory not empty",
        Code.UNAUTHORIZED: "The request requires user authentication",
        Code.LIMIT_EXCEEDED: "Limit exceeded",
        Code.LOCK_REFUSED: "Reboot lock refused",
        Code.PREV_VALUE_REQUIRED: "PrevValue is Required in POST form",
        Code.TTL_NOT_A_NUMBER: "The given TTL in POST form is not a number",
        Code.INDEX_NOT_A_NUMBER: "The given index in POST form is not a number",
        Code.INVALID_FIELD: "Invalid field",
        Code.INVALID_FORM: "Invalid POST form",
        Code.VALUE_ON_REFRESH: "Value provided on refresh",
        Code.TTL_REQUIRED_ON_REFRESH: "A TTL must be provided on refresh",
        Code.RAFT_INTERNAL: "Raft Internal Error",
        Code.LEADER_ELECTION: "During Leader Election",
        Code.WATCHER_CLEARED: "watcher is cleared due to etcd recovery",
        Code.HISTORY_CLEARED: "The event in requested index is outdated and cleared",
    }
)

# Limits and refused locks are 403, not 5xx: etcd's Go client takes any 5xx for a broken endpoint, goes on to the next
# and in the end hides the cause behind "etcd cluster is unavailable or misconfigured".
STATUSES = MappingProxyType(
    {
        Code.KEY_NOT_FOUND: 404,
        Code.COMPARE_FAILED: 412,
        Code.NOT_A_FILE: 403,
        Code.KEY_EXISTS: 412,
        Code.DIRECTORY_NOT_EMPTY: 403,
        Code.UNAUTHORIZED: 401,
        Code.LIMIT_EXCEEDED: 403,
        Code.LOCK_REFUSED: 403,
        Code.RAFT_INTERNAL: 500,
        Code.LEADER_ELECTION: 500,
    }
)
"""HTTP status of a code; any that is not here is 400."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error answer. Refused operations change nothing and do not raise the index."""

    code: Code
    cause: str = ""
    """What it was about; empty is left out of the answer."""
    index: int = 0
    """The store's index when it was refused; 0 for a request that was never tried."""

    @property
    def message(self) -> str:
        """The words that belong to the code."""
        return MESSAGES[self.code]

    @property
    def status(self) -> int:
        """The HTTP status that belongs to the code."""
        return STATUSES.get(self.code, 400)

    def at(self, index: int) -> "Refusal":
        """The same refusal, told with this index."""
        return replace(self, index=index)
