"""The journal as a file on the state partition: JSON that is replaced durably, and kept aside when it can't be read."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from careen.api.meta import OnSilence
from careen.api.node import CauseWord, ErrorClass, Goal, Phase
from careen.disk.types import SlotName
from careen.release.durable import PRIVATE, sync_folder, write_durably

from .record import Deadman, Ended, Fault, Journal, Method, OpenOrder, OrderKind, Rejection, Stage, Verdict

logger = logging.getLogger(__name__)

R = TypeVar("R", Journal, OpenOrder, Ended, Fault, Rejection)

_ALLOWED: dict[str, tuple[Any, ...]] = {
    "phase": get_args(Phase),
    "goal": get_args(Goal),
    "verdict": get_args(Verdict),
    "cause": get_args(CauseWord),
    "class_": get_args(ErrorClass),
    "method": get_args(Method),
    "on_silence": get_args(OnSilence),
    "deadman": get_args(Deadman),
    "kind": get_args(OrderKind),
}


class JournalInvalidError(ValueError):
    """The journal's text is none; the message names the field and its value."""


def encode_journal(journal: Journal) -> bytes:
    """The journal as JSON, with the fields of a newer agent among ours."""
    document = dataclasses.asdict(journal)
    extra = document.pop("extra")
    if document["open"]:
        document["open"] = {**document["open"].pop("extra"), **document["open"]}
    return json.dumps({**extra, **document}, indent=1).encode() + b"\n"


def decode_journal(data: bytes) -> Journal:
    """The journal out of its JSON. Raises JournalInvalidError."""
    try:
        document = json.loads(data)
    except ValueError as error:
        raise JournalInvalidError(f"no JSON: {error}") from error
    try:
        opened = document.get("open")
        return _build(
            Journal,
            document,
            open=_decode_open(opened) if opened else None,
            ended=tuple(_decode_ended(entry) for entry in document.get("ended", ())),
            rejected=tuple(_build(Rejection, entry) for entry in document.get("rejected", ())),
            boots=tuple(document.get("boots", ())),
        )
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise JournalInvalidError(str(error)) from error


def load_journal(path: Path) -> Journal | None:
    """The journal in a file, or None if there is none. One that can't be read is moved aside, and counts as none.

    Raises OSError if the file can't be reached: a disk that fails for a moment must not look like a lost journal.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return decode_journal(data)
    except JournalInvalidError as error:
        aside = path.with_name(f"{path.name}.corrupt")
        path.replace(aside)
        sync_folder(path.parent)
        logger.error("the journal %s can't be read (%s); it is kept as %s and counts as lost", path, error, aside)
        return None


def save_journal(path: Path, journal: Journal) -> None:
    """Replace the journal's file, durably. Raises OSError."""
    write_durably(path, encode_journal(journal), mode=PRIVATE)


def _decode_open(document: Mapping[str, Any]) -> OpenOrder:
    undo = document.get("undo")
    return _build(
        OpenOrder,
        document,
        from_slot=SlotName(document["from_slot"]),
        to_slot=SlotName(document["to_slot"]),
        stage=Stage(document["stage"]),
        undo=_decode_ended(undo) if undo else None,
    )


def _decode_ended(document: Mapping[str, Any]) -> Ended:
    fault = document.get("fault")
    return _build(Ended, document, fault=_build(Fault, fault) if fault else None)


def _build(kind: type[R], document: Mapping[str, Any], **decoded: Any) -> R:
    """An object of `kind` from its fields; `decoded` are those that were read already, unknown ones go to extra."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    values = {name: value for name, value in document.items() if name in fields and name != "extra"} | decoded
    for name, value in values.items():
        if name in _ALLOWED and value is not None and value not in _ALLOWED[name]:
            raise JournalInvalidError(f"{name} is {value!r}; allowed: {', '.join(_ALLOWED[name])}")
    if "extra" in fields:
        values["extra"] = {name: value for name, value in document.items() if name not in fields}
    return kind(**values)
