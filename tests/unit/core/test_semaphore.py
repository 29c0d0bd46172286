"""The lock's arithmetic: locksmith's, made idempotent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from careen.core.semaphore import Refused, acquire, release
from careen.core.snapshot import Holder, Lock


def lock(*names: str, limit: int = 2, paused: bool = False) -> Lock:
    holders = tuple(Holder(name, 1.0) for name in names)
    return Lock("default", "uid", "1", 1, limit, paused=paused, holders=holders)


@pytest.mark.parametrize(
    ("held", "limit", "paused", "who", "expected"),
    [
        ((), 1, False, "a", ["a"]),
        (("b",), 2, False, "a", ["a", "b"]),
        (("a",), 1, False, "a", ["a"]),
        (("a",), 1, True, "a", ["a"]),
        (("a", "b"), 1, False, "b", ["a", "b"]),
        (("b",), 1, False, "a", "LockFull"),
        ((), 0, False, "a", "LockFull"),
        ((), 1, True, "a", "LockPaused"),
        (("b", "c"), 1, False, "a", "LockFull"),
    ],
)
def test_acquire(held: tuple[str, ...], limit: int, paused: bool, who: str, expected: object) -> None:
    outcome = acquire(lock(*held, limit=limit, paused=paused), Holder(who, 2.0))
    if isinstance(outcome, Refused):
        assert outcome.reason == expected
    else:
        assert [holder.id for holder in outcome.holders] == expected


def test_locking_again_keeps_the_first_instant() -> None:
    outcome = acquire(lock("a"), Holder("a", 99.0, order="other"))
    assert isinstance(outcome, Lock)
    assert outcome.holders == (Holder("a", 1.0),)


def test_a_full_lock_names_its_holders() -> None:
    outcome = acquire(lock("a", "b", "c", "d", limit=4), Holder("e", 1.0))
    assert isinstance(outcome, Refused)
    assert outcome.message == "RebootLock default has max 4, 4 held: a, b, c and 1 more"


def test_release_of_a_holder_and_of_a_stranger() -> None:
    full = lock("a", "b")
    assert [holder.id for holder in release(full, "a").holders] == ["b"]
    assert release(full, "stranger") is full
    assert release(release(full, "a"), "a") == release(full, "a")


def test_available_goes_below_zero_when_max_was_lowered() -> None:
    assert replace(lock("a", "b"), max=1).available == -1
