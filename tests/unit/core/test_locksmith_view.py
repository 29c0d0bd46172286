"""locksmith's semaphores as views of RebootLocks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from careen.core.keys.faults import Code, Refusal
from careen.core.locksmith import (
    MoveHolders,
    Semaphore,
    SetMax,
    compare_semaphores,
    find_group,
    follow,
    name_key,
    name_lock,
    read_semaphore,
    render_semaphore,
)
from careen.core.snapshot import Holder, Lock

BASE = "/coreos.com/updateengine/rebootlock"


def make(name: str) -> Holder:
    return Holder(name, 5.0, machine_id=name, by="locksmith")


def lock_of(limit: int, *holders: str) -> Lock:
    return Lock("default", "uid", "1", 1, limit, holders=tuple(make(name) for name in holders))


def write(lock: Lock, text: str) -> Lock | Refusal:
    """What the gateway does with a write of this text."""
    new = read_semaphore(text)
    if isinstance(new, Refusal):
        return new
    old = Semaphore(lock.max, tuple(holder.id for holder in lock.holders))
    change = compare_semaphores(old, new)
    return change if isinstance(change, Refusal) else follow(lock, change, make)


def shown(lock: Lock | Refusal) -> str:
    assert isinstance(lock, Lock), lock
    return render_semaphore(lock.max, [holder.id for holder in lock.holders])


@pytest.mark.parametrize(
    ("limit", "holders", "text"),
    [
        (1, None, '{"semaphore":1,"max":1,"holders":null}'),
        (1, [], '{"semaphore":1,"max":1,"holders":[]}'),
        (3, ["b", "a"], '{"semaphore":1,"max":3,"holders":["a","b"]}'),
        (1, ["a", "b"], '{"semaphore":-1,"max":1,"holders":["a","b"]}'),
        (0, [], '{"semaphore":0,"max":0,"holders":[]}'),
        (2, ['<a&"'], '{"semaphore":1,"max":2,"holders":["\\u003ca\\u0026\\""]}'),
    ],
)
def test_the_text_is_locksmiths_byte_for_byte(limit: int, holders: list[str] | None, text: str) -> None:
    assert render_semaphore(limit, holders) == text
    back = read_semaphore(text)
    assert back == Semaphore(limit, None if holders is None else tuple(sorted(holders)))


@pytest.mark.parametrize("holders", ['"holders":null', '"holders":[]', '"other":1'])
def test_no_holders_are_read_in_each_form(holders: str) -> None:
    semaphore = read_semaphore(f'{{ "semaphore": 1, "max": 1, {holders} }}')
    assert isinstance(semaphore, Semaphore)
    assert not semaphore.holders


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "the value is no JSON"),
        ("[" * 100_000, "the value is no JSON"),
        ("[]", "the value must be a JSON object"),
        ('{"semaphore":"1","max":1}', "semaphore must be a whole number"),
        ('{"semaphore":1,"max":true}', "max must be a whole number"),
        ('{"semaphore":1,"max":1,"holders":"a"}', "holders must be a list of texts, or null"),
        ('{"semaphore":1,"max":1,"holders":[1]}', "holders must be a list of texts, or null"),
        ('{"semaphore":0,"max":2,"holders":["a","a"]}', "holders must be unique"),
        ('{"semaphore":0,"max":1,"holders":[""]}', "each holder must have 1 to 253 characters"),
        ('{"semaphore":0,"max":1,"holders":["\\ud800"]}', "each holder must have 1 to 253 characters"),
        ('{"semaphore":3,"max":2,"holders":["a"]}', "semaphore is 3, max 2 and 1 holders make it 1"),
    ],
)
def test_what_no_lock_can_be_is_refused(text: str, cause: str) -> None:
    assert read_semaphore(text) == Refusal(Code.LOCK_REFUSED, cause)


def test_lock_and_unlock() -> None:
    lock = lock_of(2)
    lock = write(lock, '{"semaphore":1,"max":2,"holders":["m2"]}')  # type: ignore[assignment]
    lock = write(lock, '{"semaphore":0,"max":2,"holders":["m1","m2"]}')  # type: ignore[assignment]
    assert shown(lock) == '{"semaphore":0,"max":2,"holders":["m1","m2"]}'
    assert lock.holders[0] == make("m1")
    lock = write(lock, '{"semaphore":1,"max":2,"holders":["m2"]}')  # type: ignore[assignment]
    assert shown(write(lock, '{"semaphore":2,"max":2,"holders":[]}')) == '{"semaphore":2,"max":2,"holders":[]}'


def test_max_goes_up_and_down_below_the_holders() -> None:
    lock = lock_of(3, "a", "b")
    assert shown(write(lock, '{"semaphore":-1,"max":1,"holders":["a","b"]}')).startswith('{"semaphore":-1,"max":1')
    assert shown(write(lock, '{"semaphore":7,"max":9,"holders":["a","b"]}')).startswith('{"semaphore":7,"max":9')
    assert shown(write(lock, '{"semaphore":-2,"max":0,"holders":["a","b"]}')).startswith('{"semaphore":-2,"max":0')


@pytest.mark.parametrize("limit", [-1, 5001])
def test_max_stays_within_what_a_lock_may_have(limit: int) -> None:
    refusal = write(lock_of(1), f'{{"semaphore":{limit},"max":{limit},"holders":[]}}')
    assert refusal == Refusal(Code.LOCK_REFUSED, f"max is {limit}, must be from 0 to 5000")


def test_max_and_holders_at_once_are_refused() -> None:
    refusal = write(lock_of(1), '{"semaphore":1,"max":2,"holders":["a"]}')
    assert refusal == Refusal(Code.LOCK_REFUSED, "max and holders can't be changed in one write")


def test_more_holders_than_max_a_paused_lock_and_the_operators_holders() -> None:
    full = write(lock_of(1, "a"), '{"semaphore":-1,"max":1,"holders":["a","b"]}')
    assert full == Refusal(Code.LOCK_REFUSED, "RebootLock default has max 1, 1 held: a")
    paused = write(replace(lock_of(1), paused=True), '{"semaphore":0,"max":1,"holders":["a"]}')
    assert paused == Refusal(Code.LOCK_REFUSED, "RebootLock default is paused")
    ours = replace(lock_of(1), holders=(Holder("m1", 1.0, order="o-7"),))
    kept = write(ours, '{"semaphore":1,"max":1,"holders":[]}')
    assert kept == Refusal(Code.LOCK_REFUSED, "m1 is held by the operator for order o-7")


def test_one_may_leave_and_another_come_in_one_write() -> None:
    assert shown(write(lock_of(1, "a"), '{"semaphore":0,"max":1,"holders":["b"]}')).endswith('"holders":["b"]}')


def test_a_write_that_changes_nothing_is_no_change() -> None:
    assert compare_semaphores(Semaphore(1, None), Semaphore(1, ())) == MoveHolders()
    assert compare_semaphores(Semaphore(1, ()), Semaphore(2, None)) == SetMax(2)


@pytest.mark.parametrize(
    ("group", "key"),
    [
        ("", f"{BASE}/semaphore"),
        ("default", f"{BASE}/groups/default/semaphore"),
        ("prod/db", f"{BASE}/groups/prod%2Fdb/semaphore"),
        ("a b+c~", f"{BASE}/groups/a+b%2Bc~/semaphore"),
    ],
)
def test_groups_have_keys_and_keys_have_groups(group: str, key: str) -> None:
    assert name_key(group) == key
    assert find_group(key) == group


@pytest.mark.parametrize(
    "key",
    [f"{BASE}/groups", f"{BASE}/groups/a%2fb/semaphore", f"{BASE}/groups/a/b/semaphore", f"{BASE}/x", "/semaphore"],
)
def test_other_keys_are_no_semaphores(key: str) -> None:
    assert find_group(key) is None


def test_each_group_has_a_lock_of_its_own_with_a_legal_name() -> None:
    assert name_lock("") == "default"
    assert name_lock("rack-1.west") == "rack-1.west"
    hashed = [name_lock(group) for group in ("default", "prod/db", "Prod", "-x", "a..b", "x" * 254)]
    hashed.append(name_lock(hashed[0]))
    assert all(name.startswith("group-") and len(name) == 26 for name in hashed)
    assert len(set(hashed)) == len(hashed)
