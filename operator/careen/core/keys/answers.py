"""Answers as etcd writes them, byte for byte."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from .events import SECOND, Event, View
from .faults import Refusal
from .paths import ROOT

_ESCAPED = re.compile('["\\\\\x00-\x1f<>&\u2028\u2029\ud800-\udfff]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_QUIET = ("set", "create", "update", "compareAndSwap")


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back to the client."""

    status: int
    body: bytes
    """One JSON object and a newline; left out for HEAD."""
    index: int
    """For X-Etcd-Index."""
    raft: bool
    """Whether X-Raft-Index and X-Raft-Term belong to it; they are missing from errors."""


def answer_read(shown: View, index: int) -> Answer:
    """The answer to a get at this index."""
    return Answer(200, f'{{"action":"get","node":{_node(shown)}}}\n'.encode(), index, raft=True)


def answer_write(event: Event, quiet: bool = False) -> Answer:
    """The answer to a write. `quiet` is noValueOnSuccess: just the action, but for deletions."""
    status = 201 if event.is_new else 200
    if quiet and event.action in _QUIET:
        return Answer(status, f'{{"action":"{event.action}"}}\n'.encode(), event.index, raft=True)
    return Answer(status, _event(event), event.index, raft=True)


def answer_wait(event: Event, started: int) -> Answer:
    """The answer to a wait that began at index `started`; a line of a stream."""
    return Answer(200, _event(event), started, raft=True)


def answer_refusal(refusal: Refusal) -> Answer:
    """The answer to what was refused."""
    cause = f'"cause":{quote(refusal.cause)},' if refusal.cause else ""
    body = f'{{"errorCode":{refusal.code:d},"message":{quote(refusal.message)},{cause}"index":{refusal.index}}}\n'
    return Answer(refusal.status, body.encode(), refusal.index, raft=False)


def quote(text: str) -> str:
    """The text as a JSON string, with the escapes that Go's encoder makes."""
    return f'"{_ESCAPED.sub(_escape, text)}"'


def spell_instant(instant: int) -> str:
    """Nanoseconds since 1970 in RFC 3339 and UTC, without the zeros at the end of the fraction."""
    seconds, fraction = divmod(instant, SECOND)
    spelled = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{spelled}.{fraction:09d}".rstrip("0").rstrip(".") + "Z" if fraction else spelled + "Z"


def _escape(match: re.Match[str]) -> str:
    char = match.group()
    if "\ud800" <= char <= "\udfff":
        return "\ufffd"
    return _SHORT.get(char) or f"\\u{ord(char):04x}"


def _event(event: Event) -> bytes:
    previous = "" if event.previous is None else f',"prevNode":{_node(event.previous)}'
    return f'{{"action":"{event.action}","node":{_node(event.node)}{previous}}}\n'.encode()


def _node(shown: View) -> str:
    fields = []
    if shown.key != ROOT:
        fields.append(f'"key":{quote(shown.key)}')
    if shown.value is not None:
        fields.append(f'"value":{quote(shown.value)}')
    if shown.directory:
        fields.append('"dir":true')
    if shown.expires is not None:
        fields.append(f'"expiration":"{spell_instant(shown.expires)}"')
    if shown.ttl:
        fields.append(f'"ttl":{shown.ttl}')
    if shown.nodes:
        fields.append(f'"nodes":[{",".join(_node(node) for node in shown.nodes)}]')
    if shown.modified:
        fields.append(f'"modifiedIndex":{shown.modified}')
    if shown.created:
        fields.append(f'"createdIndex":{shown.created}')
    return "{" + ",".join(fields) + "}"
