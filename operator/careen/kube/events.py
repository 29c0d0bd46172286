"""Events that people see in `kubectl describe` and `kubectl events`: best effort, never in anybody's way."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from careen.kube.errors import AlreadyExists, ApiError
from careen.kube.resources import EVENTS
from careen.kube.session import Session
from careen.kube.write import create

logger = logging.getLogger(__name__)

NOTE_LIMIT = 1024
WORD_LIMIT = 128
NAME_LIMIT = 253


@dataclass(frozen=True, slots=True)
class Reporting:
    """Who posts: the controller's name, as `careen.dev/operator`, and its instance, as the pod's name."""

    controller: str
    instance: str


async def post_event(
    session: Session,
    regarding: Mapping[str, Any],
    *,
    reason: str,
    note: str,
    type: Literal["Normal", "Warning"],  # noqa: A002 (the API's own word)
    action: str,
    reporting: Reporting,
    dedup: str,
    timeout: float = 10.0,
) -> bool:
    """Post one event about an object; False, with a log line, if that did not work. Never raises an ApiError.

    `regarding`: the object, or just its apiVersion, kind and metadata. Events about cluster-scoped objects live in
    namespace default. `dedup`: a short hash of what happened; the event's name is made of it and the object's name,
    so that the same happening posted twice (by a restarted operator) is one event, and counts as posted.
    """
    meta = regarding["metadata"]
    namespace = meta.get("namespace") or "default"
    event = {
        "metadata": {"name": f"{meta['name'][: NAME_LIMIT - len(dedup) - 1]}.{dedup}", "namespace": namespace},
        "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "type": type,
        "reason": reason[:WORD_LIMIT],
        "action": action[:WORD_LIMIT],
        "note": _cut(note, NOTE_LIMIT),
        "regarding": _reference(regarding),
        "reportingController": reporting.controller,
        "reportingInstance": reporting.instance[:WORD_LIMIT],
    }
    try:
        await create(session, EVENTS, event, timeout=timeout)
    except AlreadyExists:
        return True
    except ApiError as error:
        logger.warning("event %s about %s was not posted: %s", reason, meta["name"], error)
        return False
    return True


def _reference(obj: Mapping[str, Any]) -> dict[str, Any]:
    meta = obj["metadata"]
    found = {
        "apiVersion": obj.get("apiVersion"),
        "kind": obj.get("kind"),
        "name": meta["name"],
        "namespace": meta.get("namespace"),
        "uid": meta.get("uid"),
        "resourceVersion": meta.get("resourceVersion"),
    }
    return {key: value for key, value in found.items() if value}


def _cut(text: str, limit: int) -> str:
    """At most `limit` bytes of UTF-8, which is how the API server counts, with no half character at the end."""
    data = text.encode()
    return text if len(data) <= limit else data[: limit - 3].decode(errors="ignore") + "…"
