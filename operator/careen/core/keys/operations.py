"""What can be done to the keyspace, and what comes of it.

`decide` is the whole of the rules and changes nothing; `apply` makes what it decided. Both depend on the state, the
operation and `now` alone, so all that apply the same operations at the same instants hold the same keyspace. Limits
are not looked at here but before an operation is logged (`limits.admit`): were they, two gateways with different
settings would read two histories out of one log.
"""

from dataclasses import dataclass, replace

from .events import Action, Event, View
from .faults import Code, Refusal
from .paths import ROOT, clean_path, join_path
from .state import Entry, Keyspace, Size, list_due, locate, put, take, weigh
from .views import deleted_view, view

EARLIEST_EXPIRY = 946_684_800_000_000_000
"""2000-01-01: set and create take an earlier end for none, as etcd does."""


@dataclass(frozen=True, slots=True)
class SetKey:
    """PUT without conditions: make or replace."""

    path: str
    value: str = ""
    directory: bool = False
    expires: int | None = None
    """Nanoseconds since 1970; None = never."""
    refresh: bool = False
    """Keep the value, renew the TTL, and tell nobody."""


@dataclass(frozen=True, slots=True)
class CreateKey:
    """PUT prevExist=false: make, or refuse when something is there."""

    path: str
    value: str = ""
    directory: bool = False
    expires: int | None = None


@dataclass(frozen=True, slots=True)
class AppendKey:
    """POST: make a child whose name is this write's index."""

    path: str
    """The parent's."""
    value: str = ""
    directory: bool = False
    expires: int | None = None


@dataclass(frozen=True, slots=True)
class UpdateKey:
    """PUT prevExist=true: change what is there; of a directory, only the TTL."""

    path: str
    value: str = ""
    expires: int | None = None
    refresh: bool = False


@dataclass(frozen=True, slots=True)
class SwapKey:
    """PUT prevValue, prevIndex: change a file that is as expected."""

    path: str
    value: str = ""
    previous_value: str = ""
    """"" = no condition."""
    previous_index: int = 0
    """0 = no condition."""
    expires: int | None = None
    refresh: bool = False


@dataclass(frozen=True, slots=True)
class DeleteKey:
    """DELETE without conditions."""

    path: str
    directory: bool = False
    """Allow an empty directory."""
    recursive: bool = False
    """Allow a directory with all that is in it."""


@dataclass(frozen=True, slots=True)
class CompareDeleteKey:
    """DELETE prevValue, prevIndex: remove a file that is as expected."""

    path: str
    previous_value: str = ""
    previous_index: int = 0


@dataclass(frozen=True, slots=True)
class ExpireKey:
    """The sweep's: remove what is due, if it is still what was found due. A refresh in between wins."""

    path: str
    modified: int
    """modifiedIndex of the entry that was found due."""


Operation = SetKey | CreateKey | AppendKey | UpdateKey | SwapKey | DeleteKey | CompareDeleteKey | ExpireKey


@dataclass(frozen=True, slots=True)
class Change:
    """What an operation would do."""

    event: Event
    entry: Entry | None
    """What stands at the event's key afterwards; None = nothing."""
    growth: Size
    """What it adds: entries and bytes, missing parents counted; not less than 0 for a removal."""


def decide(state: Keyspace, operation: Operation, now: int) -> Change | Refusal:
    """What the operation does at this state, which it leaves as it is. `now` is in nanoseconds since 1970."""
    operation = replace(operation, path=clean_path(operation.path))
    match operation:
        case SetKey():
            outcome = _set(state, operation, now)
        case CreateKey():
            entry = _fresh(state, operation.value, operation.directory, operation.expires)
            outcome = _create(state, operation.path, entry, now)
        case AppendKey():
            entry = _fresh(state, operation.value, operation.directory, operation.expires)
            outcome = _create(state, join_path(operation.path, f"{state.index + 1:020d}"), entry, now)
        case UpdateKey():
            outcome = _update(state, operation, now)
        case SwapKey():
            outcome = _swap(state, operation, now)
        case DeleteKey():
            outcome = _delete(state, operation, now)
        case CompareDeleteKey():
            outcome = _compare_delete(state, operation, now)
        case ExpireKey():
            outcome = _expire(state, operation, now)
    return outcome.at(state.index) if isinstance(outcome, Refusal) else outcome


def apply(state: Keyspace, operation: Operation, now: int) -> tuple[Keyspace, Event | Refusal]:
    """Do it: the state, with the operation in it, and its event; the state as it was, and why not.

    The state that comes back is the one that went in (see `state`); it changes wholly or not at all.
    """
    change = decide(state, operation, now)
    if isinstance(change, Refusal):
        return state, change
    if change.entry is None:
        take(state, change.event.node.key)
    else:
        put(state, change.event.node.key, change.entry)
    state.index = change.event.index
    state.history.append(change.event)
    return state, change.event


def find_due(state: Keyspace, now: int, at_most: int) -> tuple[ExpireKey, ...]:
    """The sweep: operations that remove what is due, in order of time; what goes with its directory has none."""
    return tuple(ExpireKey(path, entry.modified) for path, entry in list_due(state, now, at_most))


def _look_up(state: Keyspace, path: str) -> Entry | Refusal:
    place = locate(state.root, path)
    if not place.missing:
        return place.entry
    if not place.entry.is_directory:
        return Refusal(Code.NOT_A_DIRECTORY, place.path)
    return Refusal(Code.KEY_NOT_FOUND, join_path(place.path, place.missing[0]))


def _fresh(state: Keyspace, value: str, directory: bool, expires: int | None) -> Entry:
    index = state.index + 1
    if expires is not None and expires < EARLIEST_EXPIRY:
        expires = None
    return Entry(None if directory else value, {} if directory else None, index, index, expires)


def _set(state: Keyspace, operation: SetKey, now: int) -> Change | Refusal:
    old = _look_up(state, operation.path)
    if isinstance(old, Refusal) and (operation.refresh or old.code != Code.KEY_NOT_FOUND):
        return old
    if operation.path == ROOT:
        return Refusal(Code.ROOT_IS_READ_ONLY, ROOT)
    value = operation.value
    if isinstance(old, Entry):
        if old.is_directory:
            return Refusal(Code.NOT_A_FILE, operation.path)
        if operation.refresh:
            value = old.value or ""
    entry = _fresh(state, value, operation.directory, operation.expires)
    previous = old if isinstance(old, Entry) else None
    return _replace(state, "set", operation.path, entry, previous, now=now, refresh=operation.refresh)


def _create(state: Keyspace, path: str, entry: Entry, now: int) -> Change | Refusal:
    if path == ROOT:
        return Refusal(Code.ROOT_IS_READ_ONLY, ROOT)
    place = locate(state.root, path)
    if not place.missing:
        return Refusal(Code.KEY_EXISTS, path)
    if not place.entry.is_directory:
        return Refusal(Code.NOT_A_DIRECTORY, place.path)
    return _replace(state, "create", path, entry, None, now=now)


def _update(state: Keyspace, operation: UpdateKey, now: int) -> Change | Refusal:
    if operation.path == ROOT:
        return Refusal(Code.ROOT_IS_READ_ONLY, ROOT)
    old = _look_up(state, operation.path)
    if isinstance(old, Refusal):
        return old
    index = state.index + 1
    if old.is_directory:
        if operation.value:
            return Refusal(Code.NOT_A_FILE, operation.path)
        # The answer tells of the new index, and the directory keeps its old one: etcd does so.
        entry = Entry(None, old.children, old.created, old.modified, operation.expires)
        told = replace(view(operation.path, entry, now), modified=index)
        event = Event("update", told, view(operation.path, old, now), operation.refresh)
        return Change(event, entry, Size())
    value = (old.value or "") if operation.refresh else operation.value
    entry = Entry(value, None, old.created, index, operation.expires)
    return _replace(state, "update", operation.path, entry, old, now=now, refresh=operation.refresh)


def _swap(state: Keyspace, operation: SwapKey, now: int) -> Change | Refusal:
    if operation.path == ROOT:
        return Refusal(Code.ROOT_IS_READ_ONLY, ROOT)
    old = _compare(state, operation)
    if isinstance(old, Refusal):
        return old
    value = (old.value or "") if operation.refresh else operation.value
    entry = Entry(value, None, old.created, state.index + 1, operation.expires)
    return _replace(state, "compareAndSwap", operation.path, entry, old, now=now, refresh=operation.refresh)


def _compare(state: Keyspace, operation: SwapKey | CompareDeleteKey) -> Entry | Refusal:
    old = _look_up(state, operation.path)
    if isinstance(old, Refusal):
        return old
    if old.is_directory:
        return Refusal(Code.NOT_A_FILE, "" if operation.path == ROOT else operation.path)
    failed = []
    if operation.previous_value and operation.previous_value != old.value:
        failed.append(f"[{operation.previous_value} != {old.value}]")
    if operation.previous_index and operation.previous_index != old.modified:
        failed.append(f"[{operation.previous_index} != {old.modified}]")
    return Refusal(Code.COMPARE_FAILED, " ".join(failed)) if failed else old


def _delete(state: Keyspace, operation: DeleteKey, now: int) -> Change | Refusal:
    if operation.path == ROOT:
        return Refusal(Code.ROOT_IS_READ_ONLY, ROOT)
    old = _look_up(state, operation.path)
    if isinstance(old, Refusal):
        return old
    if old.is_directory and not (operation.directory or operation.recursive):
        return Refusal(Code.NOT_A_FILE, operation.path)
    if old.children and not operation.recursive:
        return Refusal(Code.DIRECTORY_NOT_EMPTY, operation.path)
    return _remove(state, "delete", operation.path, old, now)


def _compare_delete(state: Keyspace, operation: CompareDeleteKey, now: int) -> Change | Refusal:
    old = _compare(state, operation)
    return old if isinstance(old, Refusal) else _remove(state, "compareAndDelete", operation.path, old, now)


def _expire(state: Keyspace, operation: ExpireKey, now: int) -> Change | Refusal:
    old = _look_up(state, operation.path)
    if isinstance(old, Refusal):
        return old
    if operation.modified != old.modified:
        return Refusal(Code.COMPARE_FAILED, f"[{operation.modified} != {old.modified}]")
    # A directory keeps its modifiedIndex when its TTL is renewed, so the index alone would not protect it.
    if old.expires is None or old.expires > now:
        return Refusal(Code.COMPARE_FAILED, "not due")
    return _remove(state, "expire", operation.path, old, now)


def _replace(
    state: Keyspace, action: Action, path: str, entry: Entry, old: Entry | None, *, now: int, refresh: bool = False
) -> Change:
    event = Event(action, view(path, entry, now), None if old is None else view(path, old, now), refresh)
    growth = weigh(path, entry.value)
    if old is not None:
        return Change(event, entry, growth + -weigh(path, old.value))
    place = locate(state.root, path)
    here = place.path
    for part in place.missing[:-1]:
        here = join_path(here, part)
        growth += weigh(here, None)
    return Change(event, entry, growth)


def _remove(state: Keyspace, action: Action, path: str, old: Entry, now: int) -> Change:
    node: View = deleted_view(path, old, state.index + 1)
    return Change(Event(action, node, view(path, old, now), removed=old), None, Size())
