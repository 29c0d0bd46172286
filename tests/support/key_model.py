"""etcd's keyspace told a second time, as plainly as possible: a flat table of paths, searched from end to end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from careen.core.keys.operations import (
    AppendKey,
    CompareDeleteKey,
    CreateKey,
    DeleteKey,
    ExpireKey,
    Operation,
    SetKey,
    SwapKey,
    UpdateKey,
)


@dataclass
class Row:
    value: str | None
    created: int
    modified: int
    expires: int | None


class RefusedError(Exception):
    """Code and cause."""


@dataclass
class Model:
    index: int = 3
    rows: dict[str, Row] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)

    def do(self, operation: Operation, now: int) -> dict[str, Any] | tuple[int, str]:
        """The event, or code and cause."""
        try:
            event = self._try(operation, now)
        except RefusedError as refused:
            code, cause = refused.args
            return code, cause
        self.index += 1
        self.log.append(event)
        return event

    def _try(self, op: Operation, now: int) -> dict[str, Any]:
        path, new = op.path, self.index + 1
        if isinstance(op, AppendKey):
            path += f"/{new:020d}"
        self._check_ancestors(path)
        row = self.rows.get(path)
        before = None if row is None else Row(**vars(row))
        gone: list[str] = []
        if isinstance(op, SetKey | CreateKey | AppendKey):
            action = "set" if isinstance(op, SetKey) else "create"
            if row is None and isinstance(op, SetKey) and op.refresh:
                raise self._missing(path)
            if row is not None and action == "create":
                raise RefusedError(105, path)
            if row is not None and row.value is None:
                raise RefusedError(102, path)
            value = row.value if row is not None and isinstance(op, SetKey) and op.refresh else op.value
            for end in [at for at, char in enumerate(path) if char == "/" and at]:
                self.rows.setdefault(path[:end], Row(None, new, new, None))
            self.rows[path] = Row(None if op.directory else value, new, new, op.expires)
        elif row is None:
            raise self._missing(path)
        elif isinstance(op, UpdateKey):
            action = "update"
            if row.value is None and op.value:
                raise RefusedError(102, path)
            row.expires = op.expires
            if row.value is not None:
                row.value, row.modified = (row.value if op.refresh else op.value), new
        elif isinstance(op, SwapKey | CompareDeleteKey):
            if row.value is None:
                raise RefusedError(102, path)
            wrong = [f"[{op.previous_value} != {row.value}]"] if op.previous_value not in ("", row.value) else []
            wrong += [f"[{op.previous_index} != {row.modified}]"] if op.previous_index not in (0, row.modified) else []
            if wrong:
                raise RefusedError(101, " ".join(wrong))
            action = "compareAndSwap" if isinstance(op, SwapKey) else "compareAndDelete"
            if isinstance(op, SwapKey):
                row.value, row.modified, row.expires = (row.value if op.refresh else op.value), new, op.expires
            else:
                gone = [path]
        elif isinstance(op, DeleteKey):
            action = "delete"
            below = [other for other in self.rows if other.startswith(path + "/")]
            if row.value is None and not (op.directory or op.recursive):
                raise RefusedError(102, path)
            if below and not op.recursive:
                raise RefusedError(108, path)
            gone = [path, *below]
        else:
            assert isinstance(op, ExpireKey)
            if op.modified != row.modified:
                raise RefusedError(101, f"[{op.modified} != {row.modified}]")
            if row.expires is None or row.expires > now:
                raise RefusedError(101, "not due")
            action = "expire"
            gone = [path, *(other for other in self.rows if other.startswith(path + "/"))]
        for other in gone:
            del self.rows[other]
        return {
            "action": action,
            "key": path,
            "index": new,
            "after": None if gone else Row(**vars(self.rows[path])),
            "before": before,
            "refresh": getattr(op, "refresh", False),
            "gone": gone,
        }

    def _check_ancestors(self, path: str) -> None:
        for end in [at for at, char in enumerate(path) if char == "/" and at]:
            row = self.rows.get(path[:end])
            if row is not None and row.value is not None:
                raise RefusedError(104, path[:end])

    def _missing(self, path: str) -> RefusedError:
        ends = [*(at for at, char in enumerate(path) if char == "/" and at), len(path)]
        return RefusedError(100, next(path[:end] for end in ends if path[:end] not in self.rows))

    def listed(self, top: str) -> set[str]:
        """What a recursive get of the top shows below it."""
        return {path for path in self.rows if path.startswith(top + "/") and "/_" not in path[len(top) :]}


def is_told(event: dict[str, Any], path: str, recursive: bool, since: int) -> bool:
    """Whether a live watch is told, by the letter of the rules."""
    key = event["key"]
    if event["refresh"] or event["index"] < since:
        return False
    below = key.startswith(path.rstrip("/") + "/") and key != path
    return key == path or path in event["gone"] or (recursive and below and "/_" not in key[len(path.rstrip("/")) :])
