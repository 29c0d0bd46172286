"""locksmith's semaphores as views of RebootLocks: the keys, the JSON, and what a client's write means.

What is shown is derived from max and holders, and what is written must be derivable: locksmith trusts the counter that
it stores, here a counter that does not fit is refused.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from urllib.parse import quote_plus, unquote_plus

from careen.api.meta import DEFAULT_LOCK

from .keys.answers import quote
from .keys.faults import Code, Refusal
from .semaphore import Refused, acquire, release
from .snapshot import Holder, Lock

BASE = "/coreos.com/updateengine/rebootlock"
MAX_ALLOWED = 5000
"""What RebootLock's max may be; locksmith itself has no limits, and no use for a negative one."""
DEFAULT_GROUP = ""
"""locksmith's group when none is named. It is another one than a group named `default`."""
_GROUP_KEY = re.compile(f"{re.escape(BASE)}/groups/([^/]+)/semaphore")
_OBJECT_NAME = re.compile("[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_HASHED_NAME = re.compile("group-[0-9a-f]{20}")


@dataclass(frozen=True, slots=True)
class Semaphore:
    """What a semaphore's key holds, without the counter."""

    max: int
    holders: tuple[str, ...] | None
    """Sorted; None is a lock that nobody has held yet, which locksmith writes as null."""


@dataclass(frozen=True, slots=True)
class SetMax:
    """A write that changes max alone."""

    max: int


@dataclass(frozen=True, slots=True)
class MoveHolders:
    """A write that changes holders alone; both empty when it changes nothing."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


def name_key(group: str) -> str:
    """The key of a group's semaphore; its name is escaped once in the key itself, and once more on the wire."""
    return f"{BASE}/semaphore" if group == DEFAULT_GROUP else f"{BASE}/groups/{quote_plus(group)}/semaphore"


def find_group(key: str) -> str | None:
    """The group whose semaphore the key is; None for any other key, one that locksmith would spell otherwise too."""
    if key == name_key(DEFAULT_GROUP):
        return DEFAULT_GROUP
    match = _GROUP_KEY.fullmatch(key)
    group = unquote_plus(match[1]) if match else ""
    return group if group and name_key(group) == key else None


def name_lock(group: str) -> str:
    """The name of the group's RebootLock: the group itself where an object may be called so, else a hash of it."""
    if group == DEFAULT_GROUP:
        return DEFAULT_LOCK
    plain = len(group) <= 253 and _OBJECT_NAME.fullmatch(group) and not _HASHED_NAME.fullmatch(group)
    if plain and group != DEFAULT_LOCK:
        return group
    return f"group-{sha256(group.encode()).hexdigest()[:20]}"


def render_semaphore(limit: int, holders: Sequence[str] | None) -> str:
    """The key's value, byte for byte as locksmith writes it. The counter is negative while max is below the holders."""
    listed = "null" if holders is None else "[" + ",".join(quote(each) for each in sorted(holders)) + "]"
    return f'{{"semaphore":{limit - len(holders or ())},"max":{limit},"holders":{listed}}}'


def read_semaphore(text: str) -> Semaphore | Refusal:
    """What a client wrote. Holders may be null, empty or absent; fields that locksmith does not know are ignored."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return _refuse("the value is no JSON")
    if not isinstance(document, dict):
        return _refuse("the value must be a JSON object")
    counter, limit, holders = document.get("semaphore", 0), document.get("max", 0), document.get("holders")
    for name, number in (("semaphore", counter), ("max", limit)):
        if not isinstance(number, int) or isinstance(number, bool):
            return _refuse(f"{name} must be a whole number")
    if holders is not None and not (isinstance(holders, list) and all(isinstance(each, str) for each in holders)):
        return _refuse("holders must be a list of texts, or null")
    for each in holders or ():
        if not 0 < len(each) <= 253 or any("\ud800" <= char <= "\udfff" for char in each):
            return _refuse("each holder must have 1 to 253 characters")
    if len(set(holders or ())) != len(holders or ()):
        return _refuse("holders must be unique")
    free = limit - len(holders or ())
    if counter != free:
        return _refuse(f"semaphore is {counter}, max {limit} and {len(holders or ())} holders make it {free}")
    return Semaphore(limit, None if holders is None else tuple(sorted(holders)))


def compare_semaphores(old: Semaphore, new: Semaphore) -> SetMax | MoveHolders | Refusal:
    """What a write of `new` over `old` changes. One that changes max and holders at once is refused.

    Max is the RebootLock's spec and holders are its status: no one write of ours could do both, and no call of
    locksmith does.
    """
    before, after = set(old.holders or ()), set(new.holders or ())
    if old.max == new.max:
        return MoveHolders(tuple(sorted(after - before)), tuple(sorted(before - after)))
    if before != after:
        return _refuse("max and holders can't be changed in one write")
    if not 0 <= new.max <= MAX_ALLOWED:
        return _refuse(f"max is {new.max}, must be from 0 to {MAX_ALLOWED}")
    return SetMax(new.max)


def follow(lock: Lock, change: SetMax | MoveHolders, make_holder: Callable[[str], Holder]) -> Lock | Refusal:
    """The lock with the change in it. `make_holder` tells who an id is, by the core Node with that machine id.

    A holder that the operator put in is freed on evidence only, not by a client's word: the machine may be rebooting.
    """
    if isinstance(change, SetMax):
        return replace(lock, max=change.max)
    for name in change.removed:
        order = next((holder.order for holder in lock.holders if holder.id == name), None)
        if order is not None:
            return _refuse(f"{name} is held by the operator for order {order}")
        lock = release(lock, name)
    for name in change.added:
        outcome = acquire(lock, make_holder(name))
        if isinstance(outcome, Refused):
            return _refuse(outcome.message)
        lock = outcome
    return lock


def _refuse(cause: str) -> Refusal:
    return Refusal(Code.LOCK_REFUSED, cause)
