"""Looking up releases: what a policy's channel, version or digest is now, again and again, outside the plan's way."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from careen.api.reasons import Reason
from careen.core.releases import Fault, Lookup, Release, ReleaseKey
from careen.observe import metrics
from careen.release.errors import ReleaseError, TrustError

from .settings import INTERVAL_SECONDS

logger = logging.getLogger(__name__)

FIRST_RETRY, LAST_RETRY = 2.0, 60.0
"""Seconds after a failed lookup until the next one, doubled each time up to the last."""
BLIPS = 2
"""Failed attempts to reach a repository that nothing is said of, where the release was found before: a condition that
comes and goes with every dropped connection would cost writes, and tell people nothing."""
SOONEST = 1.0
"""Least seconds between two lookups that nobody asked for."""
JITTER = 0.1
"""Share by which intervals differ, so that many clusters do not ask one repository at one instant."""
Askers = Mapping[ReleaseKey, frozenset[tuple[str, int]]]


@dataclass(frozen=True, slots=True)
class Finding:
    """A release that was found, and until when the metadata that says so is valid."""

    release: Release
    expires_at: float | None = None
    """Seconds since the epoch; None where metadata does not expire."""


UNKNOWN = Lookup()
"""Of a key whose first lookup has not ended."""
Find = Callable[[ReleaseKey], Awaitable[Finding]]
"""Looks a release up. ReleaseError (release.errors) for all that may be wrong with the repository."""


@dataclass(slots=True)
class Entry:
    """One release key that is followed."""

    lookup: Lookup = UNKNOWN
    askers: frozenset[tuple[str, int]] = frozenset()
    due: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    failures: int = 0


class ReleaseBook:
    """Answers for the release keys that the plan needs; each key is followed by a task of its own.

    `wake` is called after each lookup; `clock` is the API server's time. `interval`: seconds between two lookups of a
    key; one is made at once when a policy that asks for it has changed.
    """

    def __init__(
        self,
        find: Find,
        wake: Callable[[], None],
        clock: Callable[[], float],
        interval: float = INTERVAL_SECONDS,
    ) -> None:
        self._find = find
        self._wake = wake
        self._clock = clock
        self._interval = interval
        self._entries: dict[ReleaseKey, Entry] = {}

    def known(self) -> dict[ReleaseKey, Lookup]:
        """What release keys resolve to; nothing of those whose first lookup has not ended."""
        return {key: entry.lookup for key, entry in self._entries.items() if entry.lookup is not UNKNOWN}

    def want(self, askers: Askers) -> None:
        """Follow these keys and no others. A policy in a version not seen before makes its key due at once."""
        for key in self._entries.keys() - askers.keys():
            self._forget(key)
        for key, versions in askers.items():
            entry = self._entries.get(key)
            if entry is None:
                entry = self._entries[key] = Entry()
                entry.task = asyncio.create_task(self._follow(key, entry), name=f"release-{key.name}")
            elif not versions <= entry.askers:
                entry.due.set()
            entry.askers = versions

    async def close(self) -> None:
        """Stop all lookups."""
        tasks = [entry.task for entry in self._entries.values() if entry.task is not None]
        self.want({})
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self, key: ReleaseKey) -> None:
        entry = self._entries.pop(key)
        if entry.task is not None:
            entry.task.cancel()
        metrics.forget_release(key)
        if all(other.repository != key.repository for other in self._entries):
            metrics.forget_repository(key.repository)

    async def _follow(self, key: ReleaseKey, entry: Entry) -> None:
        while True:
            entry.due.clear()
            await self._look_up(key, entry)
            self._wake()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._next_wait(entry)):
                    await entry.due.wait()

    def _next_wait(self, entry: Entry) -> float:
        jitter = random.uniform(1.0 - JITTER, 1.0 + JITTER)
        if entry.failures:
            wait = FIRST_RETRY * 2.0 ** min(entry.failures - 1, 8)
            return min(LAST_RETRY, wait, max(SOONEST, self._interval)) * jitter
        wait = self._interval * jitter
        if entry.lookup.expires_at is not None:
            # Trust ends when the metadata does, not up to an interval later.
            wait = min(wait, entry.lookup.expires_at - self._clock() + SOONEST)
        return max(SOONEST, wait)

    async def _look_up(self, key: ReleaseKey, entry: Entry) -> None:
        try:
            finding = await self._find(key)
        except ReleaseError as error:
            self._record_fault(key, entry, explain_fault(error))
        except Exception as error:
            # A bug, or the machine's own disk: the policy says so, and the next attempt may be better.
            logger.exception("release %s of %s", key.name, key.repository)
            self._record_fault(key, entry, Fault(str(Reason.RELEASE_UNAVAILABLE), f"{type(error).__name__}: {error}"))
        else:
            entry.failures = 0
            entry.lookup = Lookup(finding.release, self._clock(), None, finding.expires_at)
            metrics.record_lookup("found")
        metrics.show_release(key, entry.lookup.resolved_at, entry.lookup.expires_at)

    def _record_fault(self, key: ReleaseKey, entry: Entry, fault: Fault) -> None:
        entry.failures += 1
        metrics.record_lookup("distrusted" if fault.reason == Reason.TRUST_FAILED else "unavailable")
        blip = fault.reason != Reason.TRUST_FAILED and entry.failures <= BLIPS
        if blip and entry.lookup.release is not None and entry.lookup.fault is None:
            return
        if entry.lookup.fault != fault:
            logger.warning("release %s of %s: %s: %s", key.name, key.repository, fault.reason, fault.message)
        entry.lookup = replace(entry.lookup, fault=fault)


def explain_fault(error: ReleaseError) -> Fault:
    """The reason and sentence that a policy shows for a failed lookup."""
    reason = Reason.TRUST_FAILED if isinstance(error, TrustError) else Reason.RELEASE_UNAVAILABLE
    return Fault(str(reason), str(error) or type(error).__name__)
