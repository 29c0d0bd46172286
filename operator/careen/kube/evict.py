"""The Eviction API: ask for a pod to leave, and learn which disruption budget says no."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from careen.kube.errors import ApiError, Conflict, NotFound, ServerError, TooManyRequests
from careen.kube.resources import PODS
from careen.kube.session import Session
from careen.kube.write import is_other_uid

_BUDGET = re.compile(r"The disruption budget (\S+) ")


@dataclass(frozen=True, slots=True)
class Evicted:
    """The eviction was accepted. The pod is gone only once its UID is: grace periods and finalizers still run."""


@dataclass(frozen=True, slots=True)
class AlreadyGone:
    """No pod of this name and UID."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A disruption budget does not allow it now.

    `budget`: its name; None if several budgets select the pod (the API refuses that for ever; `message` says so).
    `retry_after`: seconds that the server asks to wait, None if it did not say.
    """

    budget: str | None
    message: str
    retry_after: float | None


async def evict(
    session: Session,
    namespace: str,
    name: str,
    uid: str,
    grace_seconds: int | None = None,
    *,
    timeout: float | None = None,
) -> Evicted | AlreadyGone | Refused:
    """Ask once for the pod with this UID to leave; `grace_seconds` None: the pod's own grace period.

    Raises TooManyRequests for a 429 of flow control (which is no budget's), Conflict when the server lost races
    with other evictions, and the other ApiErrors.
    """
    options: dict[str, Any] = {"preconditions": {"uid": uid}}
    if grace_seconds is not None:
        options["gracePeriodSeconds"] = grace_seconds
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": namespace},
        "deleteOptions": options,
    }
    path = PODS.path(namespace, name, "eviction")
    try:
        await session.request("POST", path, body=body, timeout=timeout)
    except NotFound:
        return AlreadyGone()
    except Conflict as error:
        if is_other_uid(error):
            return AlreadyGone()
        raise
    except (TooManyRequests, ServerError) as error:
        refused = refusal_of(error)
        if refused is None:
            raise
        return refused
    return Evicted()


def refusal_of(error: ApiError) -> Refused | None:
    """The budget's refusal in an answer to an eviction; None if the answer is something else."""
    if isinstance(error, ServerError):
        # 500 and not 429: no waiting helps until somebody removes one of the budgets.
        several = "more than one PodDisruptionBudget" in error.message
        return Refused(None, error.message, None) if several else None
    for cause in error.causes:
        if cause.get("reason") == "DisruptionBudget":
            text = str(cause.get("message") or "")
            found = _BUDGET.match(text)
            return Refused(found.group(1) if found else None, text or error.message, error.retry_after)
    if "disruption budget" in error.message:
        return Refused(None, error.message, error.retry_after)
    return None
