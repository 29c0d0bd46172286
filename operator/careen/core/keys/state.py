"""The keyspace: a tree of entries, its index, what is due when, and its size.

It is changed in place, by `operations.apply` alone. A tree with structural sharing was weighed and left: etcd's
directories are flat (a queue or a registry holds thousands of children under one name), and a persistent copy of such
a directory's table costs a write more than a millisecond at 100 000 children, against some microseconds here, unless a
hash trie is written by hand. What sharing would give is had otherwise: `operations.decide` reads only, so an operation
can be tried without being made; each change is one entry put or taken out at once; readers get frozen views; and
`snapshots.encode_snapshot` is the explicit copy. Of an entry only the table of children is ever changed, and only
while it stands in the tree: a write puts a new entry in the old one's place, and a removed subtree may be looked into
for as long as somebody keeps it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from .history import History
from .paths import ROOT, join_path, split_path

FIRST_INDEX = 3
"""Index of an empty keyspace: a fresh etcd has used 1 to 3 for itself, and clients' tests count on 4 for the first
write."""


@dataclass(slots=True, eq=False)
class Entry:
    """A file, or a directory with its children."""

    value: str | None
    """None for a directory."""
    children: "dict[str, Entry] | None"
    """None for a file."""
    created: int
    modified: int
    expires: int | None = None
    """When it expires, in nanoseconds since 1970; None = never."""

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return self.children is not None


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is, or how much a change adds."""

    keys: int = 0
    """Entries, directories counted, the root not."""
    octets: int = 0
    """Bytes of all paths and values."""

    def __add__(self, other: "Size") -> "Size":
        return Size(self.keys + other.keys, self.octets + other.octets)

    def __neg__(self) -> "Size":
        return Size(-self.keys, -self.octets)


@dataclass(slots=True, eq=False)
class Keyspace:
    """All that etcd's v2 API shows, at one index."""

    root: Entry = field(default_factory=lambda: Entry(None, {}, 0, 0))
    index: int = FIRST_INDEX
    """Index of the last write or expiry; each one raises it by 1."""
    size: Size = field(default_factory=Size)
    history: History = field(default_factory=lambda: History(FIRST_INDEX))
    expiring: int = 0
    """How many entries expire."""
    expiries: list[tuple[int, str]] = field(default_factory=list)
    """A heap of (instant, path), at least one for each entry that expires. What a later write made untrue stays in it
    until it is met: to look for it in a sorted list would cost each renewal of a TTL a walk over all of them."""


@dataclass(frozen=True, slots=True)
class Place:
    """How far a path leads into the tree."""

    entry: Entry
    """The deepest entry that is there."""
    path: str
    """Its path."""
    missing: tuple[str, ...] = ()
    """The parts that are not there."""


def locate(top: Entry, path: str) -> Place:
    """Follow the path from the top, as far as there are entries."""
    entry, here = top, ROOT
    parts = split_path(path)
    for depth, part in enumerate(parts):
        child = entry.children.get(part) if entry.children is not None else None
        if child is None:
            return Place(entry, here, tuple(parts[depth:]))
        entry, here = child, join_path(here, part)
    return Place(entry, here)


def walk(entry: Entry, path: str) -> Iterator[tuple[str, Entry]]:
    """The entry and all below it, parents before children."""
    pending = [(path, entry)]
    while pending:
        here, node = pending.pop()
        yield here, node
        if node.children:
            pending.extend((join_path(here, name), child) for name, child in reversed(node.children.items()))


def weigh(path: str, value: str | None) -> Size:
    """What one entry counts."""
    return Size(1, len(path.encode()) + len((value or "").encode()))


def put(state: Keyspace, path: str, entry: Entry) -> None:
    """Set an entry in its place, with the parents that are missing, which get the index of this write.

    A directory that takes a directory's place keeps the children.
    """
    *parents, name = split_path(path)
    directory, here = state.root, ROOT
    for part in parents:
        assert directory.children is not None, f"{here} is a file"
        here = join_path(here, part)
        child = directory.children.get(part)
        if child is None:
            child = directory.children[part] = Entry(None, {}, entry.modified, entry.modified)
            state.size += weigh(here, None)
        directory = child
    assert directory.children is not None, f"{here} is a file"
    old = directory.children.get(name)
    directory.children[name] = entry
    state.size += weigh(path, entry.value)
    if old is not None:
        state.size += -weigh(path, old.value)
        state.expiring -= old.expires is not None
    if entry.expires is not None:
        state.expiring += 1
        heappush(state.expiries, (entry.expires, path))
        if len(state.expiries) > 2 * state.expiring + 64:
            state.expiries = [(each.expires, at) for at, each in walk(state.root, ROOT) if each.expires is not None]
            heapify(state.expiries)


def take(state: Keyspace, path: str) -> None:
    """Take an entry out, with all below it."""
    *parents, name = split_path(path)
    directory = locate(state.root, ROOT + "/".join(parents)).entry
    assert directory.children is not None, f"the parent of {path} is a file"
    for here, entry in walk(directory.children.pop(name), path):
        state.size += -weigh(here, entry.value)
        state.expiring -= entry.expires is not None


def list_due(state: Keyspace, now: int, at_most: int) -> list[tuple[str, Entry]]:
    """Entries whose end has come, soonest first; those that go with a directory before them are left out."""
    met: list[tuple[int, str]] = []
    due: dict[str, Entry] = {}
    while state.expiries and state.expiries[0][0] <= now and len(due) < at_most:
        pair = heappop(state.expiries)
        place = locate(state.root, pair[1])
        if place.missing or place.entry.expires != pair[0]:
            continue
        met.append(pair)
        parts = split_path(pair[1])
        if not any(ROOT + "/".join(parts[:depth]) in due for depth in range(1, len(parts))):
            due[pair[1]] = place.entry
    for pair in met:
        heappush(state.expiries, pair)
    return list(due.items())
