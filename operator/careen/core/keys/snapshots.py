"""The whole keyspace as documents of bounded size, and back: what the log's cut-off part comes to."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .codec import BATCH_OCTETS, FORMAT, check_format, measure, read_number, read_text
from .events import Event, View
from .paths import ROOT, clean_path
from .state import Entry, Keyspace, locate, put, walk

_ACTIONS = ("set", "create", "update", "compareAndSwap", "delete", "compareAndDelete", "expire")


def encode_snapshot(state: Keyspace, octets: int = BATCH_OCTETS) -> Iterator[dict[str, Any]]:
    """Documents of at most that size each; the last one says that it is the last.

    An entry or event that is bigger by itself gets a document of its own, over the bound; `limits.Limits` refuses
    values with which one could.
    """
    entries = (encode_entry(path, entry) for path, entry in walk(state.root, ROOT) if path != ROOT)
    events = (_encode_event(event) for event in state.history.events)
    things = [("entries", each) for each in entries] + [("events", each) for each in events]
    part, room = _begin(state, 0), octets
    room -= measure(part) + len('"last":true,')
    for kind, thing in things:
        needed = measure(thing) + 1
        if needed > room and (part["entries"] or part["events"]):
            yield part
            part = _begin(state, part["part"] + 1)
            room = octets - measure(part) - len('"last":true,')
        part[kind].append(thing)
        room -= needed
    part["last"] = True
    yield part


def decode_snapshot(documents: Iterable[Mapping[str, Any]]) -> Keyspace:
    """The keyspace that the documents hold. Raises ValueError when they are not one whole snapshot, in order."""
    state, last = Keyspace(), False
    for number, document in enumerate(documents):
        check_format(document)
        index = read_number(document, "index")
        if last or read_number(document, "part") != number or (number and index != state.index):
            raise ValueError(f"part {document.get('part')} of index {index} does not follow part {number - 1}")
        if number == 0:
            _restore_indexes(state, document, index)
        for entry in _read_list(document, "entries"):
            _restore_entry(state, entry)
        for event in _read_list(document, "events"):
            _restore_event(state, event)
        last = document.get("last") is True
    if not last:
        raise ValueError("the last part is missing")
    if state.history.events and state.history.last != state.index:
        raise ValueError(f"the events end at {state.history.last}, must end at {state.index}")
    state.history.last = state.index
    return state


def encode_entry(path: str, entry: Entry) -> dict[str, Any]:
    """One entry as a document; a directory is one without a value."""
    document: dict[str, Any] = {"path": path, "created": entry.created, "modified": entry.modified}
    if entry.value is not None:
        document["value"] = entry.value
    if entry.expires is not None:
        document["expires"] = entry.expires
    return document


def decode_entry(document: Mapping[str, Any]) -> tuple[str, Entry]:
    """The document as an entry and its path; a directory comes empty. Raises ValueError when it is none."""
    path = read_text(document, "path")
    if path == ROOT or clean_path(path) != path:
        raise ValueError(f"path is {path!r}, must be a clean one below the root")
    value = read_text(document, "value") if "value" in document else None
    expires = read_number(document, "expires") if "expires" in document else None
    created, modified = read_number(document, "created"), read_number(document, "modified")
    return path, Entry(value, {} if value is None else None, created, modified, expires)


def _begin(state: Keyspace, part: int) -> dict[str, Any]:
    history = state.history
    return {
        "format": FORMAT,
        "index": state.index,
        "historyStart": history.start,
        "part": part,
        "entries": [],
        "events": [],
    }


def _restore_indexes(state: Keyspace, document: Mapping[str, Any], index: int) -> None:
    state.index = index
    state.history.start = read_number(document, "historyStart")


def _restore_entry(state: Keyspace, document: Mapping[str, Any]) -> None:
    path, entry = decode_entry(document)
    place = locate(state.root, path)
    if len(place.missing) != 1 or not place.entry.is_directory:
        raise ValueError(f"path {path!r} comes before its directory, below a file, or twice")
    put(state, path, entry)


def _restore_event(state: Keyspace, document: Mapping[str, Any]) -> None:
    event = _decode_event(document)
    if not state.history.events:
        state.history.last = event.index - 1
    state.history.append(event)


def _read_list(document: Mapping[str, Any], name: str) -> list[Any]:
    value = document.get(name)
    if not isinstance(value, list):
        raise ValueError(f"{name} is {value!r}, must be a list")
    return value


def _encode_event(event: Event) -> dict[str, Any]:
    document: dict[str, Any] = {"action": event.action, "node": _encode_view(event.node)}
    if event.previous is not None:
        document["previous"] = _encode_view(event.previous)
    if event.refresh:
        document["refresh"] = True
    return document


def _decode_event(document: Mapping[str, Any]) -> Event:
    action = document.get("action")
    if action not in _ACTIONS:
        raise ValueError(f"action is {action!r}, must be one of {', '.join(_ACTIONS)}")
    previous = _decode_view(document["previous"]) if "previous" in document else None
    return Event(action, _decode_view(document["node"]), previous, document.get("refresh") is True)


def _encode_view(view: View) -> dict[str, Any]:
    document: dict[str, Any] = {"key": view.key, "created": view.created, "modified": view.modified}
    if view.value is not None:
        document["value"] = view.value
    if view.directory:
        document["directory"] = True
    if view.expires is not None:
        document["expires"] = view.expires
    if view.ttl:
        document["ttl"] = view.ttl
    return document


def _decode_view(document: Mapping[str, Any]) -> View:
    return View(
        key=read_text(document, "key"),
        value=read_text(document, "value") if "value" in document else None,
        directory=document.get("directory") is True,
        expires=read_number(document, "expires") if "expires" in document else None,
        ttl=read_number(document, "ttl") if "ttl" in document else 0,
        modified=read_number(document, "modified"),
        created=read_number(document, "created"),
    )
