"""Leader election by Lease, and the agent's heartbeat.

Election only keeps the number of leaders at about one; that a deposed leader does no harm is up to the compare-and-swap
of each write. Clocks of two machines are never compared: a candidate takes over when *it* has seen the Lease unchanged
for longer than its duration, and a leader stops sooner than that after the start of its own last successful renewal.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from careen.kube.clock import boot_seconds
from careen.kube.errors import AlreadyExists, ApiError, Conflict, NotFound
from careen.kube.resources import LEASES
from careen.kube.session import Session
from careen.kube.store import Change, Store
from careen.kube.write import create, patch_merge, replace

logger = logging.getLogger(__name__)

# The part of its duration for which a leader trusts an unrenewed Lease. The rest is the margin for clocks that run at
# different rates and for requests that are on their way.
HOLD = 0.8
# How long the leader's cancelled work may take to end before the process is declared broken.
UNWIND_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """What a Lease says: who holds it, how long after the last change it is free, and how often it changed hands."""

    holder: str
    duration: float
    term: int
    version: str

    @classmethod
    def read(cls, lease: Mapping[str, Any]) -> LeaseRecord:
        """Read a Lease's dict; fields that are not there count as empty or 0."""
        spec = lease.get("spec") or {}
        return cls(
            holder=str(spec.get("holderIdentity") or ""),
            duration=float(spec.get("leaseDurationSeconds") or 0),
            term=int(spec.get("leaseTransitions") or 0),
            version=str(lease["metadata"]["resourceVersion"]),
        )


@dataclass(frozen=True, slots=True)
class Observation:
    """A record, and since when (own monotonic seconds) we have seen it in just this version."""

    record: LeaseRecord
    since: float


class Claim(Enum):
    """Whether a candidate may try to take the Lease now."""

    TAKE = "take"
    WAIT = "wait"


def decide(seen: Observation | None, identity: str, now: float) -> Claim:
    """Take a Lease that is not there, free, our own from before, or unchanged under our eyes beyond its duration."""
    if seen is None or seen.record.holder in ("", identity) or now - seen.since > seen.record.duration:
        return Claim.TAKE
    return Claim.WAIT


def next_term(record: LeaseRecord | None, floor: int) -> int:
    """The term of a new acquisition: above every term that the Lease or `floor` knows of."""
    return max(record.term if record else 0, floor) + 1


class _TakenError(Exception):
    """Somebody else holds the Lease that we renew."""


class Election:
    """One candidate for one Lease. `identity` must be unique to the process, not just to the machine.

    duration: seconds for which a silent leader keeps the others out (whole seconds in the Lease, rounded up).
    renew_every: seconds between renewals, default a fifth of it. retry_every: seconds between attempts after a
    failure, and between a standby's looks when its watch is down, default a fifteenth. term_floor: the highest term
    already used elsewhere, asked at each acquisition, so that terms rise even if somebody deletes the Lease.
    """

    def __init__(
        self,
        session: Session,
        namespace: str,
        name: str,
        identity: str,
        *,
        duration: float = 15.0,
        renew_every: float | None = None,
        retry_every: float | None = None,
        term_floor: Callable[[], int] = lambda: 0,
    ) -> None:
        if duration < 1.0:
            raise ValueError(f"duration must be at least 1 second, not {duration:g}")
        self._session = session
        self._namespace = namespace
        self._name = name
        self.identity = identity
        self._duration = float(math.ceil(duration))
        self._renew_every = renew_every or self._duration / 5
        self._retry_every = retry_every or self._duration / 15
        self._term_floor = term_floor
        self._lease: dict[str, Any] = {}
        self._fence = -math.inf
        self._seen: Observation | None = None
        self.term: int | None = None
        """The term that we lead in; None while we do not lead."""
        self.holder = ""
        """Who held the Lease when we last looked; "" if nobody."""

    def holds(self) -> bool:
        """Whether we lead and may still act on it now: to be asked right before each write of the leader's work."""
        return self.term is not None and boot_seconds() < self._fence

    async def run(self, on_started: Callable[[int], Awaitable[None]], on_lost: Callable[[str], None]) -> None:
        """Stand for election until cancelled: lead, lose, stand again.

        `on_started(term)` is the leader's work; it is cancelled the moment the Lease is lost, then `on_lost(reason)`
        is called. On cancel, or when the work returns or raises (which ends `run` in the same way), the Lease is
        given back, so that a standby takes over at once. RuntimeError if the work does not end when cancelled.
        """
        try:
            while True:
                term = await self._acquire()
                logger.info("leading in term %d as %s", term, self.identity)
                if await self._lead(term, on_started, on_lost):
                    return
        finally:
            await self._release()

    async def _lead(
        self, term: int, on_started: Callable[[int], Awaitable[None]], on_lost: Callable[[str], None]
    ) -> bool:
        """Let the work run while the Lease is ours; True if the work is done, False if the lead was lost."""
        work = asyncio.ensure_future(on_started(term))
        renewal = asyncio.create_task(self._renew_until_lost())
        try:
            await asyncio.wait({work, renewal}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
                return True
            reason = renewal.result()
            self.term, self._fence = None, -math.inf
            work.cancel()
            logger.warning("lost the lead of term %d: %s", term, reason)
            on_lost(reason)
            return False
        finally:
            renewal.cancel()
            await asyncio.wait({renewal})
            await _end(work)

    async def _acquire(self) -> int:
        """Wait until the Lease can be taken, and take it; the term that we now lead in."""
        changed = asyncio.Event()

        def notice(change: Change[LeaseRecord]) -> None:
            self._notice(change.new)
            changed.set()

        watch: Store[LeaseRecord] = Store(
            self._session,
            LEASES,
            decode=LeaseRecord.read,
            namespace=self._namespace,
            field_selector=f"metadata.name={self._name}",
            on_change=notice,
            max_backoff=max(self._retry_every, 0.2),
        )
        watching: asyncio.Task[None] | None = None
        try:
            while True:
                term = await self._look()
                if term is not None:
                    return term
                if watching is None:
                    # Only a standby watches: whoever can lead at once needs no list and no stream.
                    watching = asyncio.create_task(watch.run())
                await self._wait_for_chance(changed, watch)
        finally:
            if watching is not None:
                watching.cancel()

    def _notice(self, record: LeaseRecord | None) -> None:
        """Take in what a read or the watch says; the watch may lag behind a read."""
        seen = self._seen
        if record is None or seen is None or int(record.version) > int(seen.record.version):
            self._seen = Observation(record, boot_seconds()) if record else None
            self.holder = record.holder if record else ""

    async def _look(self) -> int | None:
        """Read the Lease and take it if it may be taken: our term if we lead now, else None."""
        try:
            lease = await self._read()
            self._notice(LeaseRecord.read(lease) if lease else None)
            if decide(self._seen, self.identity, boot_seconds()) is Claim.TAKE:
                return await self._take(lease)
        except (Conflict, AlreadyExists):
            # Somebody else was faster; the next look shows who.
            pass
        except ApiError as error:
            logger.warning("election for %s/%s: %s", self._namespace, self._name, error)
        return None

    async def _wait_for_chance(self, changed: asyncio.Event, watch: Store[LeaseRecord]) -> None:
        """Sleep until the Lease is free, has run out, or (with no watch to tell us) it is time to look again."""
        while True:
            left = self._retry_every
            if watch.live and self._seen is not None:
                left = self._seen.since + self._seen.record.duration - boot_seconds()
            changed.clear()
            try:
                # The jitter parts the standbys of one dead leader.
                async with asyncio.timeout(max(left, 0.0) + self._retry_every * random.uniform(0.05, 0.2)):
                    await changed.wait()
            except TimeoutError:
                return
            if decide(self._seen, self.identity, boot_seconds()) is Claim.TAKE:
                return

    async def _read(self) -> dict[str, Any] | None:
        path = LEASES.path(self._namespace, self._name)
        try:
            return (await self._session.request("GET", path, timeout=self._duration / 3)).body
        except NotFound:
            return None

    async def _take(self, lease: dict[str, Any] | None) -> int:
        """One compare-and-swap that makes us the holder in a new term."""
        record = LeaseRecord.read(lease) if lease else None
        term = next_term(record, self._term_floor())
        metadata = lease["metadata"] if lease else {"name": self._name, "namespace": self._namespace}
        spec = {
            **((lease or {}).get("spec") or {}),
            "holderIdentity": self.identity,
            "leaseDurationSeconds": int(self._duration),
            "acquireTime": micro_time(),
            "renewTime": micro_time(),
            "leaseTransitions": term,
        }
        wanted = {"metadata": metadata, "spec": spec}
        started = boot_seconds()
        write = replace if lease else create
        self._lease = await write(self._session, LEASES, wanted, timeout=self._duration * HOLD)
        self._fence = started + self._duration * HOLD
        self.term, self.holder = term, self.identity
        return term

    async def _renew_until_lost(self) -> str:
        """Renew again and again; returns why we no longer lead."""
        pause = self._renew_every
        while True:
            await asyncio.sleep(min(pause, max(self._fence - boot_seconds(), 0.0)))
            # First of all the fence: this process may have been stopped for an hour in the line above.
            left = self._fence - boot_seconds()
            if left <= 0:
                return f"not renewed within {self._duration * HOLD:g} s"
            pause = self._retry_every
            try:
                if await self._renew(min(left, self._duration / 3)):
                    pause = self._renew_every
            except NotFound:
                return "the Lease was deleted"
            except _TakenError as error:
                return str(error)
            except ApiError as error:
                logger.warning("renewing the lead: %s", error)

    async def _renew(self, timeout: float) -> bool:
        """One renewal; False if the Lease was edited under us: then it is read again for the next try."""
        started = boot_seconds()
        spec = {**self._lease["spec"], "renewTime": micro_time()}
        try:
            self._lease = await replace(self._session, LEASES, {**self._lease, "spec": spec}, timeout=timeout)
        except Conflict:
            path = LEASES.path(self._namespace, self._name)
            self._lease = (await self._session.request("GET", path, timeout=timeout)).body
            record = LeaseRecord.read(self._lease)
            # Still ours in this term: a label was edited, or a renewal went through although we saw no answer.
            if (record.holder, record.term) != (self.identity, self.term):
                raise _TakenError(f"{record.holder or 'nobody'} holds the Lease in term {record.term}") from None
            return False
        self._fence = started + self._duration * HOLD
        return True

    async def _release(self) -> None:
        """Give the Lease back if it is ours, so that nobody waits for it to run out. Best effort."""
        term, self.term, self._fence = self.term, None, -math.inf
        if term is None:
            return
        try:
            # Read first: a renewal that was cancelled on its way may have gone through.
            lease = await self._read()
            if lease is None or LeaseRecord.read(lease).term != term:
                return
            spec = {**lease["spec"], "holderIdentity": "", "renewTime": micro_time()}
            await replace(self._session, LEASES, {**lease, "spec": spec}, timeout=self._duration / 3)
        except ApiError as error:
            logger.info("the Lease was not given back, it runs out by itself: %s", error)


async def renew_agent_lease(
    session: Session,
    namespace: str,
    name: str,
    *,
    owner: Mapping[str, Any] | None = None,
    duration: int = 180,
    now: datetime | None = None,
    timeout: float = 10.0,
) -> dict[str, Any]:
    """The agent's heartbeat: one patch of renewTime, or a create if the Lease is not there yet. Returns the Lease.

    `name` is the machine's, and its holderIdentity. `owner`: the one ownerReference that the Lease is to have, so that
    it goes with its Node; None leaves it as it is. `duration`: seconds after which the operator calls the agent
    silent. `now`: default this machine's wall clock; nobody but a cold-started operator looks at it. Raises the
    ApiErrors.
    """
    spec = {"holderIdentity": name, "leaseDurationSeconds": duration, "renewTime": micro_time(now)}
    owned = {"ownerReferences": [dict(owner)]} if owner is not None else {}
    try:
        body = {"metadata": owned, "spec": spec}
        return await patch_merge(session, LEASES, name, body, namespace=namespace, timeout=timeout)
    except NotFound:
        metadata = {"name": name, "namespace": namespace, **owned}
        return await create(session, LEASES, {"metadata": metadata, "spec": spec}, timeout=timeout)


def micro_time(now: datetime | None = None) -> str:
    """A MicroTime as the API writes it; `now` None: this machine's wall clock."""
    return (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


async def _end(work: asyncio.Future[None]) -> None:
    """Cancel the leader's work and see it end: two works of one process at once would break every promise here."""
    if work.done():
        return
    work.cancel()
    done, _ = await asyncio.wait({work}, timeout=UNWIND_SECONDS)
    if not done:
        raise RuntimeError(f"the leader's work did not end within {UNWIND_SECONDS:g} s of being cancelled")
    if not work.cancelled() and (error := work.exception()) is not None:
        logger.error("the leader's work failed while it was cancelled", exc_info=error)
