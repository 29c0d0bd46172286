"""Operations as JSON documents: what one object of the log holds.

Indexes that clients send may need 64 bits without a sign, more than numbers in the API server's objects have; they are
written as text.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from .events import Event
from .faults import Code, Refusal
from .operations import (
    AppendKey,
    CompareDeleteKey,
    CreateKey,
    DeleteKey,
    ExpireKey,
    Operation,
    SetKey,
    SwapKey,
    UpdateKey,
    apply,
)
from .state import Keyspace

FORMAT = 1
"""Number of the form of these documents."""
BATCH_OCTETS = 1024 * 1024
"""Bytes of one document as compact JSON: an object of the API server may have 1.5 MiB, its other fields included."""

_KINDS: dict[str, type[Operation]] = {
    "set": SetKey,
    "create": CreateKey,
    "append": AppendKey,
    "update": UpdateKey,
    "swap": SwapKey,
    "delete": DeleteKey,
    "compareDelete": CompareDeleteKey,
    "expire": ExpireKey,
}
_NAMES: dict[type[Operation], str] = {kind: name for name, kind in _KINDS.items()}
_SPELLED = {"previous_value": "previousValue", "previous_index": "previousIndex"}
_TEXT_NUMBERS = ("previous_index", "modified")


@dataclass(frozen=True, slots=True)
class Batch:
    """What one object of the log holds: operations that are applied one after another, at one instant."""

    now: int
    """Nanoseconds since 1970, by the clock of the gateway that wrote it."""
    operations: tuple[Operation, ...]


def apply_batch(state: Keyspace, batch: Batch) -> list[Event | Refusal]:
    """Apply all of it; one outcome for each operation, in order."""
    return [apply(state, operation, batch.now)[1] for operation in batch.operations]


def pack_batch(
    operations: Sequence[Operation], now: int, octets: int = BATCH_OCTETS
) -> tuple[Batch, tuple[Operation, ...]]:
    """As many of the operations, from the first on, as one document of that size can hold; and those left over.

    Raises ValueError when the first alone is too big: `check_fit` refuses those before.
    """
    room = octets - measure(encode_batch(Batch(now, ())))
    for count, operation in enumerate(operations):
        room -= measure(encode_operation(operation)) + 1
        if room < 0:
            if count == 0:
                raise ValueError(f"the operation on {operation.path!r} needs {-room} bytes more than {octets}")
            return Batch(now, tuple(operations[:count])), tuple(operations[count:])
    return Batch(now, tuple(operations)), ()


def check_fit(operation: Operation, index: int, octets: int = BATCH_OCTETS) -> Refusal | None:
    """A refusal when the operation does not fit into one document; None when it does."""
    try:
        pack_batch((operation,), 1 << 62, octets)
    except ValueError as error:
        return Refusal(Code.LIMIT_EXCEEDED, str(error), index)
    return None


def measure(document: Any) -> int:
    """Bytes of a document as compact JSON, by the API server's encoder: Go's, which escapes more than Python's."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    longer = 5 * sum(text.count(char) for char in "<>&") + 3 * (text.count("\u2028") + text.count("\u2029"))
    return len(text.encode()) + longer + 4 * (text.count("\\b") + text.count("\\f"))


def encode_batch(batch: Batch) -> dict[str, Any]:
    """The batch as a document."""
    return {"format": FORMAT, "now": batch.now, "operations": [encode_operation(each) for each in batch.operations]}


def decode_batch(document: Mapping[str, Any]) -> Batch:
    """The document as a batch. Raises ValueError, which names the field, when it is none."""
    check_format(document)
    operations = document.get("operations")
    if not isinstance(operations, list):
        raise ValueError(f"operations is {operations!r}, must be a list")
    return Batch(read_number(document, "now"), tuple(decode_operation(each) for each in operations))


def encode_operation(operation: Operation) -> dict[str, Any]:
    """The operation as a document; what is at its default is left out."""
    document: dict[str, Any] = {"do": _NAMES[type(operation)]}
    for each in fields(operation):
        value = getattr(operation, each.name)
        if value != each.default:
            spelled = str(value) if each.name in _TEXT_NUMBERS else value
            document[_SPELLED.get(each.name, each.name)] = spelled
    return document


def decode_operation(document: Any) -> Operation:
    """The document as an operation. Raises ValueError when it is none."""
    if not isinstance(document, Mapping):
        raise ValueError(f"operation is {document!r}, must be an object")
    kind = _KINDS.get(str(document.get("do")))
    if kind is None:
        raise ValueError(f"do is {document.get('do')!r}, must be one of {', '.join(_KINDS)}")
    known = {_SPELLED.get(each.name, each.name): each.name for each in fields(kind)}
    values = {}
    for spelled, _ in document.items():
        if spelled == "do":
            continue
        if spelled not in known:
            raise ValueError(f"{spelled} is no field of {document['do']}, which has {', '.join(known)}")
        values[known[spelled]] = _READERS[known[spelled]](document, spelled)
    missing = [each.name for each in fields(kind) if each.name in ("path", "modified") and each.name not in values]
    if missing:
        raise ValueError(f"{missing[0]} is missing from {document['do']}")
    return kind(**values)


def check_format(document: Mapping[str, Any]) -> None:
    """Raise ValueError for a document of another form."""
    if document.get("format") != FORMAT:
        raise ValueError(f"format is {document.get('format')!r}, must be {FORMAT}")


def read_text(document: Mapping[str, Any], name: str) -> str:
    """A field that is text. Raises ValueError when it is not, or when it can't be written as UTF-8."""
    value = document.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} is {value!r}, must be text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} holds half a character at {error.start}") from None
    return value


def read_number(document: Mapping[str, Any], name: str) -> int:
    """A field that is a whole number. Raises ValueError when it is not."""
    value = document.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}, must be a whole number")
    return value


def _read_text_number(document: Mapping[str, Any], name: str) -> int:
    value = read_text(document, name)
    if not value.isascii() or not value.isdigit() or len(value) > 20:
        raise ValueError(f"{name} is {value!r}, must be a number of at most 20 digits")
    return int(value)


def _read_flag(document: Mapping[str, Any], name: str) -> bool:
    value = document.get(name)
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}, must be true or false")
    return value


_READERS: dict[str, Callable[[Mapping[str, Any], str], Any]] = {
    "path": read_text,
    "value": read_text,
    "previous_value": read_text,
    "previous_index": _read_text_number,
    "modified": _read_text_number,
    "expires": read_number,
    "directory": _read_flag,
    "recursive": _read_flag,
    "refresh": _read_flag,
}
