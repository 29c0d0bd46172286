"""The lock under any sequence of calls."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from careen.core.semaphore import Refused, acquire, release
from careen.core.snapshot import Holder, Lock

NAMES = st.sampled_from("abcdef")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("lock"), NAMES),
        st.tuples(st.just("unlock"), NAMES),
        st.tuples(st.just("max"), st.integers(0, 4)),
        st.tuples(st.just("pause"), st.booleans()),
    ),
    max_size=40,
)


@given(STEPS)
def test_never_more_than_max_by_locking_and_nobody_is_lost(steps: list[tuple[str, object]]) -> None:
    lock = Lock("default", "uid", "1", 1, 2)
    expected: set[str] = set()
    for kind, value in steps:
        before = lock
        if kind == "lock":
            outcome = acquire(lock, Holder(str(value), 1.0))
            if isinstance(outcome, Refused):
                assert value not in expected
                assert lock.paused or len(expected) >= lock.max
            else:
                expected.add(str(value))
                lock = outcome
                assert len(lock.holders) <= max(lock.max, len(before.holders))
        elif kind == "unlock":
            lock = release(lock, str(value))
            expected.discard(str(value))
        elif kind == "max":
            lock = replace(lock, max=value)
        else:
            lock = replace(lock, paused=value)
        ids = [holder.id for holder in lock.holders]
        assert ids == sorted(expected)
        assert lock.available == lock.max - len(ids)


@given(st.sets(NAMES), NAMES)
def test_both_calls_may_be_repeated(held: set[str], name: str) -> None:
    lock = Lock("default", "uid", "1", 1, 9, holders=tuple(Holder(n, 1.0) for n in sorted(held)))
    once = acquire(lock, Holder(name, 2.0))
    assert isinstance(once, Lock)
    assert acquire(once, Holder(name, 3.0)) == once
    freed = release(once, name)
    assert release(freed, name) == freed
    assert {holder.id for holder in freed.holders} == held - {name}
