"""Counting requests: the API server's audit log, read as it grows."""

import json
from dataclasses import dataclass
from pathlib import Path

_WRITES = ("create", "update", "patch", "delete", "deletecollection")


@dataclass(frozen=True)
class Request:
    """One request that the API server answered; a watch counts when it begins."""

    user: str
    verb: str
    group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int
    received: str
    """RFC 3339 with microseconds, the API server's clock."""
    completed: str
    """As `received`: when the answer was complete, or a watch had begun."""
    user_agent: str

    @property
    def is_write(self) -> bool:
        """Whether the request may change an object."""
        return self.verb in _WRITES


class AuditReader:
    """Reads what was added to one audit log since the last look."""

    def __init__(self, path: Path, *, from_end: bool = True) -> None:
        """Begin at the log's present end, or at its start."""
        self._path = path
        self._offset = path.stat().st_size if from_end and path.exists() else 0

    def read(self) -> list[Request]:
        """The requests logged since the last call, in the order of their answers."""
        with self._path.open("rb") as log:
            log.seek(self._offset)
            content = log.read()
        # The last line may still be in the writing.
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        parsed = (_parse(line) for line in whole.splitlines())
        return [request for request in parsed if request is not None]


def _parse(line: bytes) -> Request | None:
    """One line; None for the second line of a request that was logged when its answer began."""
    event = json.loads(line)
    # A watch is logged when it begins and when it ends; a refused one only when it ends.
    began = event["stage"] == "ResponseStarted"
    code = event.get("responseStatus", {}).get("code", 0)
    if began != (event["verb"] == "watch" and code < 400):
        return None
    target = event.get("objectRef", {})
    return Request(
        user=event["user"].get("username", ""),
        verb=event["verb"],
        group=target.get("apiGroup", ""),
        resource=target.get("resource", ""),
        subresource=target.get("subresource", ""),
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        code=code,
        received=event["requestReceivedTimestamp"],
        completed=event["stageTimestamp"],
        user_agent=event.get("userAgent", ""),
    )
