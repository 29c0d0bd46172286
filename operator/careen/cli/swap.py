"""Compare-and-swap by people: read, change, write at the version read, and from the start when somebody was faster."""

from __future__ import annotations

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from careen.kube.errors import Conflict

DEADLINE_SECONDS = 30.0


def swapping(deadline: float = DEADLINE_SECONDS) -> AsyncRetrying:
    """Attempts for `async for`; each must read again. The last Conflict is raised once `deadline` seconds are over.

    The operator must never do this (rule 1: a lost swap throws its plan away); a person's wish is the same whatever
    was written in between.
    """
    return AsyncRetrying(
        retry=retry_if_exception_type(Conflict),
        stop=stop_after_delay(deadline),
        wait=wait_random_exponential(multiplier=0.02, max=1.0),
        reraise=True,
    )
