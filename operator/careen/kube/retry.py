"""The one retry rule, for reads and for calls that may be done twice. Never around a compare-and-swap: a conflict
means that the decision is stale, and only its maker can make a new one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_delay, wait_random_exponential

from careen.kube.errors import ApiError, ServerError, TooManyRequests, Unreachable

T = TypeVar("T")

_BACKOFF = wait_random_exponential(multiplier=0.2, max=5.0, min=0.05)


async def retry_idempotent(call: Callable[[], Awaitable[T]], *, deadline: float = 30.0) -> T:
    """Await `call()` until it succeeds, with jittered exponential waits of at most 5 s.

    Retries no answer, 5xx and 429 (waiting as long as the server asks); any other error, and the last one once
    `deadline` seconds have passed, is raised as it is.
    """
    retrying = AsyncRetrying(
        retry=retry_if_exception(is_transient), stop=stop_after_delay(deadline), wait=_wait, reraise=True
    )
    return await retrying(call)


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed a moment later without anybody changing anything."""
    return isinstance(error, Unreachable | ServerError | TooManyRequests)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, ApiError) else None
    return max(asked or 0.0, _BACKOFF(state))
