# ruff: noqa: N818  (the names are the API server's own words)
"""What the API server, or the way to it, can answer instead of the object: one exception for each kind of no."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ApiError(Exception):
    """A request that did not succeed.

    `status` is the HTTP code (0: no answer), `reason` the machine-readable word of the Status object, `message`
    the server's sentence, `details` the Status object's details, `retry_after` the seconds that the server asked us
    to wait (None: it did not say).
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        details: Mapping[str, Any] | None = None,
        *,
        method: str = "",
        path: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(status, reason, message)
        self.status = status
        self.reason = reason
        self.message = message
        self.details: Mapping[str, Any] = details or {}
        self.method = method
        self.path = path
        self.retry_after = retry_after

    @property
    def causes(self) -> list[dict[str, Any]]:
        """The Status object's details.causes: {reason, message, field} each; empty when there are none."""
        return list(self.details.get("causes") or ())

    def __str__(self) -> str:
        answer = f"{self.status} {self.reason}".strip() if self.status else "no answer"
        return f"{self.method} {self.path}: {answer}: {self.message}".strip()


class Conflict(ApiError):
    """409: the object is not at the resourceVersion, or not the UID, that the write named."""


class AlreadyExists(ApiError):
    """409 AlreadyExists: an object of this name is there."""


class NotFound(ApiError):
    """404: no such object (or no such kind: the CRD is not installed)."""


class Gone(ApiError):
    """410: the history behind a resourceVersion or a continue token is compacted; list again."""


class Invalid(ApiError):
    """422: refused by schema, CEL rule or admission policy, or a JSON patch that could not be applied."""


class Forbidden(ApiError):
    """403: our account lacks the right, or an admission policy denies it."""


class Unauthorized(ApiError):
    """401: the credentials are not valid, even after they were read again."""


class TooManyRequests(ApiError):
    """429: flow control, or an eviction that a disruption budget refuses (then `causes` name it)."""


class ServerError(ApiError):
    """5xx: the server failed; a write may or may not have happened."""


class Unreachable(ApiError):
    """No answer: timeout, refused, reset, bad certificate.

    `maybe_done` is False only when the request surely never reached the server (no connection was made).
    """

    def __init__(self, message: str, *, method: str = "", path: str = "", maybe_done: bool = True) -> None:
        super().__init__(0, "Unreachable", message, method=method, path=path)
        self.maybe_done = maybe_done


class Stalled(Unreachable):
    """A watch on which nothing came for too long: its connection is dead, or there was nothing to say."""


class ConfigError(Exception):
    """A kubeconfig or service account that can't be used; the message says which file and what is wrong."""


_BY_STATUS: dict[int, type[ApiError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: TooManyRequests,
}


def error_from(
    status: int, body: Mapping[str, Any], *, method: str, path: str, retry_after: str | None = None
) -> ApiError:
    """The typed error for an answer of 400 and above, or for the Status object of a watch's ERROR event."""
    reason = str(body.get("reason") or "")
    details = body.get("details") or {}
    kind = _BY_STATUS.get(status, ServerError if status >= 500 else ApiError)
    if status == 409 and reason == "AlreadyExists":
        kind = AlreadyExists
    return kind(
        status,
        reason,
        str(body.get("message") or "the server gave no message"),
        details,
        method=method,
        path=path,
        retry_after=_seconds(retry_after) or _seconds(details.get("retryAfterSeconds")),
    )


def _seconds(value: object) -> float | None:
    try:
        return float(value) if value else None  # type: ignore[arg-type]
    except (TypeError, ValueError):
        # Retry-After may also be an HTTP date; nobody in front of an API server sends one, and guessing is worse.
        return None
