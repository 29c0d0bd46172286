"""The arithmetic of the reboot lock: locksmith's semaphore made idempotent.

Locking again as a holder succeeds, unlocking as a non-holder succeeds, and holders are what counts: the number that
is free is derived from them, never stored and trusted.
"""

from dataclasses import dataclass, replace

from careen.api.reasons import Reason

from .snapshot import Holder, Lock


@dataclass(frozen=True, slots=True)
class Refused:
    """Why the lock was not given."""

    reason: Reason
    message: str


def acquire(lock: Lock, holder: Holder) -> Lock | Refused:
    """The lock with the holder in it; the same lock when it holds already; a refusal when it is paused or full."""
    if any(known.id == holder.id for known in lock.holders):
        return lock
    if lock.paused:
        return Refused(Reason.LOCK_PAUSED, f"RebootLock {lock.name} is paused")
    if lock.available <= 0:
        held = ", ".join(known.id for known in lock.holders[:3]) or "nobody"
        more = f" and {len(lock.holders) - 3} more" if len(lock.holders) > 3 else ""
        return Refused(
            Reason.LOCK_FULL, f"RebootLock {lock.name} has max {lock.max}, {len(lock.holders)} held: {held}{more}"
        )
    return replace(lock, holders=order_holders((*lock.holders, holder)))


def release(lock: Lock, holder_id: str) -> Lock:
    """The lock without the holder; the same lock when it does not hold."""
    kept = tuple(known for known in lock.holders if known.id != holder_id)
    return lock if len(kept) == len(lock.holders) else replace(lock, holders=kept)


def order_holders(holders: tuple[Holder, ...]) -> tuple[Holder, ...]:
    """Holders sorted by id, as locksmith stores them."""
    return tuple(sorted(holders, key=lambda holder: holder.id))
