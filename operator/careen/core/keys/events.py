"""What becomes visible of an entry, and the event that each change is."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .state import Entry

Action = Literal["get", "set", "create", "update", "compareAndSwap", "delete", "compareAndDelete", "expire"]

SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class View:
    """An entry as clients see it at one instant."""

    key: str
    """Its path; the root's is left out of answers."""
    value: str | None
    """None for directories, and in the node of a deletion."""
    directory: bool
    expires: int | None
    """Nanoseconds since 1970."""
    ttl: int
    """Seconds that remain, rounded up; 0 = none, also for a key that is due and waits for the sweep."""
    modified: int
    created: int
    nodes: "tuple[View, ...]" = ()


@dataclass(frozen=True, slots=True)
class Event:
    """One change of the keyspace."""

    action: Action
    node: View
    previous: View | None = None
    refresh: bool = False
    """Whether only the TTL was renewed: it takes its place in the history and nobody is told."""
    removed: "Entry | None" = field(default=None, compare=False, repr=False)
    """The subtree that this event took away, while it is fresh; the history does not keep it."""

    @property
    def index(self) -> int:
        """The store's index that this event is."""
        return self.node.modified

    @property
    def is_new(self) -> bool:
        """Whether a key came into being where none was: 201 instead of 200."""
        return self.action == "create" or (self.action == "set" and self.previous is None)

    def settled(self) -> "Event":
        """The event as history keeps it."""
        return self if self.removed is None else replace(self, removed=None)

    @property
    def octets(self) -> int:
        """Bytes of the paths and values that it holds."""
        views = [self.node] if self.previous is None else [self.node, self.previous]
        return sum(len(view.key.encode()) + len((view.value or "").encode()) for view in views)


def remaining(expires: int | None, now: int) -> int:
    """Seconds until then, rounded up; 0 when there is no end, or it has passed."""
    return 0 if expires is None else max(0, -((now - expires) // SECOND))
