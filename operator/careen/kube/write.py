"""Writes, one request each, never retried here: who decides on a write also decides what a refusal means."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from careen.kube.errors import Conflict, Invalid, NotFound
from careen.kube.resources import Resource
from careen.kube.session import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, Session

Object = dict[str, Any]

# The API server's sentence for a JSON patch that it could not apply. It drops the library's own text ("testing value
# /spec/x failed") and sets no cause, whereas schema, CEL and admission refusals name the object and give causes.
_PATCH_REFUSED = "the server rejected our request"
# "the UID in the precondition (…) does not match" since 1.34, "UID in precondition: …" before.
_OTHER_UID = re.compile(r"UID in (the )?precondition")


@dataclass(frozen=True, slots=True)
class TestFailed:
    """The JSON patch did not fit the object as it is now: a `test` failed, or an operation's path is not there.

    The API server does not say which of the two, nor which operation (and says the same of an operation that does not
    exist); to know more, read the object again.
    """

    # For pytest, which would take the name for a test class.
    __test__ = False

    message: str


class Deletion(StrEnum):
    """What a delete came to."""

    DELETED = "Deleted"
    """Gone for good."""
    TERMINATING = "Terminating"
    """Marked; finalizers or a grace period still hold it."""
    ABSENT = "Absent"
    """There was no such object, or the one of this name has another UID."""


async def patch_json(
    session: Session,
    resource: Resource,
    name: str,
    ops: Sequence[Mapping[str, Any]],
    *,
    namespace: str | None = None,
    subresource: str | None = None,
    timeout: float | None = None,
) -> Object | TestFailed:
    """Apply a JSON patch (RFC 6902); `test` operations are its preconditions. Returns the object as written.

    Raises NotFound, Invalid for what schema, CEL or admission refuse, and the other ApiErrors.
    """
    path = resource.path(namespace, name, subresource)
    try:
        answer = await session.request("PATCH", path, body=list(ops), content_type=JSON_PATCH, timeout=timeout)
    except Invalid as error:
        if is_failed_test(error):
            return TestFailed(error.message)
        raise
    return answer.body


def is_failed_test(error: Invalid) -> bool:
    """Whether a 422 means that a JSON patch could not be applied, and not that its result was refused."""
    return not error.causes and (error.message.startswith(_PATCH_REFUSED) or error.message.startswith("testing "))


async def patch_merge(
    session: Session,
    resource: Resource,
    name: str,
    body: Mapping[str, Any],
    *,
    namespace: str | None = None,
    subresource: str | None = None,
    resource_version: str | None = None,
    timeout: float | None = None,
) -> Object:
    """Apply a merge patch (RFC 7386). With `resource_version`, Conflict unless the object is still at it."""
    patch = dict(body)
    if resource_version is not None:
        patch["metadata"] = {**patch.get("metadata", {}), "resourceVersion": resource_version}
    path = resource.path(namespace, name, subresource)
    return (await session.request("PATCH", path, body=patch, content_type=MERGE_PATCH, timeout=timeout)).body


async def create(
    session: Session, resource: Resource, obj: Mapping[str, Any], *, timeout: float | None = None
) -> Object:
    """Create the object (its namespace is metadata.namespace). AlreadyExists if its name is taken."""
    path = resource.path(obj["metadata"].get("namespace"))
    return (await session.request("POST", path, body=_typed(resource, obj), timeout=timeout)).body


async def replace(
    session: Session,
    resource: Resource,
    obj: Mapping[str, Any],
    *,
    subresource: str | None = None,
    timeout: float | None = None,
) -> Object:
    """Put the whole object (or its subresource). Conflict unless it is still at metadata.resourceVersion, if set."""
    meta = obj["metadata"]
    path = resource.path(meta.get("namespace"), meta["name"], subresource)
    return (await session.request("PUT", path, body=_typed(resource, obj), timeout=timeout)).body


async def delete(
    session: Session,
    resource: Resource,
    name: str,
    *,
    namespace: str | None = None,
    uid: str | None = None,
    resource_version: str | None = None,
    grace_seconds: int | None = None,
    timeout: float | None = None,
) -> Deletion:
    """Delete the object if it still has this UID and resourceVersion (None: any).

    A wrong UID means that the object meant is gone: Absent. A wrong resourceVersion raises Conflict.
    """
    wanted = {"uid": uid, "resourceVersion": resource_version}
    options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
    options["preconditions"] = {key: value for key, value in wanted.items() if value is not None}
    if grace_seconds is not None:
        options["gracePeriodSeconds"] = grace_seconds
    path = resource.path(namespace, name)
    try:
        body = (await session.request("DELETE", path, body=options, timeout=timeout)).body
    except NotFound:
        return Deletion.ABSENT
    except Conflict as error:
        if is_other_uid(error):
            return Deletion.ABSENT
        raise
    held = body.get("kind") == resource.kind and "deletionTimestamp" in body.get("metadata", {})
    return Deletion.TERMINATING if held and _is_held(body["metadata"]) else Deletion.DELETED


def is_other_uid(error: Conflict) -> bool:
    """Whether a 409 says that the object of this name has another UID than the precondition named."""
    return _OTHER_UID.search(error.message) is not None


async def apply_server_side(
    session: Session,
    resource: Resource,
    obj: Mapping[str, Any],
    *,
    field_manager: str,
    force: bool = False,
    subresource: str | None = None,
    timeout: float | None = None,
) -> Object:
    """Create or update the fields in `obj` as `field_manager`; Conflict if another manager owns one, unless `force`."""
    meta = obj["metadata"]
    path = resource.path(meta.get("namespace"), meta["name"], subresource)
    query = {"fieldManager": field_manager, "force": "true" if force else "false"}
    answer = await session.request(
        "PATCH", path, query=query, body=_typed(resource, obj), content_type=APPLY_PATCH, timeout=timeout
    )
    return answer.body


def _typed(resource: Resource, obj: Mapping[str, Any]) -> Object:
    return {"apiVersion": resource.api_version, "kind": resource.kind, **obj}


def _is_held(meta: Mapping[str, Any]) -> bool:
    return bool(meta.get("finalizers")) or bool(meta.get("deletionGracePeriodSeconds"))
