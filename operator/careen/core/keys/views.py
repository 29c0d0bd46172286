"""Reading: an entry, and what is in it, as a client is shown it."""

from dataclasses import replace

from .events import View, remaining
from .faults import Code, Refusal
from .paths import clean_path, join_path
from .state import Entry, Keyspace, locate


def get(state: Keyspace, path: str, now: int, recursive: bool = False, in_order: bool = False) -> View | Refusal:
    """The key at the path; of a directory also what is in it: one level, or with `recursive` all of them.

    Hidden children are left out at every level; a hidden key that is named is shown. Without `in_order` the children
    come as they were made, which etcd does not promise. `now` is in nanoseconds since 1970.
    """
    path = clean_path(path)
    place = locate(state.root, path)
    if place.missing:
        if place.entry.is_directory:
            return Refusal(Code.KEY_NOT_FOUND, join_path(place.path, place.missing[0]), state.index)
        return Refusal(Code.NOT_A_DIRECTORY, place.path, state.index)
    return replace(view(path, place.entry, now), nodes=_list(place.entry, path, now, recursive, in_order))


def view(path: str, entry: Entry, now: int) -> View:
    """The entry alone, without what is in it."""
    ttl = remaining(entry.expires, now)
    return View(path, entry.value, entry.is_directory, entry.expires, ttl, entry.modified, entry.created)


def deleted_view(path: str, entry: Entry, index: int) -> View:
    """The node of a deletion or expiry: its name and indexes."""
    return View(path, None, entry.is_directory, None, 0, index, entry.created)


def _list(entry: Entry, path: str, now: int, recursive: bool, in_order: bool) -> tuple[View, ...]:
    children = [(name, child) for name, child in (entry.children or {}).items() if not name.startswith("_")]
    if in_order:
        # Code points sort as their UTF-8 bytes do.
        children.sort(key=lambda pair: pair[0])
    shown = []
    for name, child in children:
        here = join_path(path, name)
        node = view(here, child, now)
        if recursive and child.children:
            node = replace(node, nodes=_list(child, here, now, recursive, in_order))
        shown.append(node)
    return tuple(shown)
