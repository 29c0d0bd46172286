"""From parameters to what the client wants: each one checked, in etcd's order, in etcd's words."""

import re
from dataclasses import dataclass

from .events import SECOND
from .faults import Code, Refusal
from .forms import Form
from .history import Watch
from .operations import (
    AppendKey,
    CompareDeleteKey,
    CreateKey,
    DeleteKey,
    Operation,
    SetKey,
    SwapKey,
    UpdateKey,
)

METHODS = ("HEAD", "GET", "PUT", "POST", "DELETE")
"""In the order of the Allow header."""
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")
_FLAGS = ("recursive", "sorted", "wait", "dir", "quorum", "stream")
_NUMBER = re.compile("[0-9]+", re.ASCII)
_WRAP = 1 << 64


@dataclass(frozen=True, slots=True)
class Read:
    """GET or HEAD."""

    path: str
    recursive: bool = False
    in_order: bool = False
    quorum: bool = False
    """Whether the log must be caught up with first."""


@dataclass(frozen=True, slots=True)
class Wait:
    """GET wait=true."""

    watch: Watch
    """Its `since` is 0 for "from now on"."""
    stream: bool = False


@dataclass(frozen=True, slots=True)
class Write:
    """PUT, POST or DELETE."""

    operation: Operation
    quiet: bool = False
    """noValueOnSuccess."""


@dataclass(frozen=True, slots=True)
class Options:
    """The parameters, checked."""

    previous_index: int
    wait_index: int
    recursive: bool
    in_order: bool
    wait: bool
    directory: bool
    quorum: bool
    stream: bool
    previous_value: str
    quiet: bool
    expires: int | None
    exists: bool | None
    refresh: bool
    value: str


def read_request(method: str, path: str, form: Form, now: int) -> Read | Wait | Write | Refusal:
    """What the request wants of the key. `now`, in nanoseconds since 1970, is when a TTL begins."""
    options = check_options(method, form, now)
    if isinstance(options, Refusal):
        return options
    if method in ("GET", "HEAD"):
        # Quorum wins over wait in etcd: the wait is dropped and a plain get is answered.
        if options.wait and not options.quorum:
            return Wait(Watch(path, options.recursive, options.wait_index), options.stream)
        return Read(path, options.recursive, options.in_order, options.quorum)
    return Write(_choose(method, path, options), options.quiet)


def check_options(method: str, form: Form, now: int) -> Options | Refusal:
    """All parameters, or the refusal of the first that is wrong; unknown ones are ignored."""
    numbers = _check_indexes(form)
    if isinstance(numbers, Refusal):
        return numbers
    flags = _check_flags(form)
    if isinstance(flags, Refusal):
        return flags
    if flags["wait"] and method != "GET":
        return Refusal(Code.INVALID_FIELD, '"wait" can only be used with GET requests')
    if form.get("prevValue") == "":
        return Refusal(Code.PREV_VALUE_REQUIRED, '"prevValue" cannot be empty')
    quiet = _read_flag(form, "noValueOnSuccess")
    if quiet is None:
        return Refusal(Code.INVALID_FIELD, 'invalid value for "noValueOnSuccess"')
    ttl = _read_number(form["ttl"]) if form.get("ttl") else -1
    if ttl is None:
        return Refusal(Code.TTL_NOT_A_NUMBER, 'invalid value for "ttl"')
    exists = _read_flag(form, "prevExist")
    if exists is None:
        return Refusal(Code.INVALID_FIELD, "invalid value for prevExist")
    refresh = _check_refresh(form)
    if isinstance(refresh, Refusal):
        return refresh
    return Options(
        previous_index=numbers["prevIndex"],
        wait_index=numbers["waitIndex"],
        recursive=flags["recursive"],
        in_order=flags["sorted"],
        wait=flags["wait"],
        directory=flags["dir"],
        quorum=flags["quorum"],
        stream=flags["stream"],
        previous_value=form.get("prevValue", ""),
        quiet=quiet,
        expires=None if ttl < 0 else _add_ttl(now, ttl),
        exists=exists if "prevExist" in form else None,
        refresh=refresh,
        value=form.get("value", ""),
    )


def _check_indexes(form: Form) -> dict[str, int] | Refusal:
    numbers = {}
    for name in ("prevIndex", "waitIndex"):
        number = _read_number(form[name]) if name in form else 0
        if number is None:
            return Refusal(Code.INDEX_NOT_A_NUMBER, f'invalid value for "{name}"')
        numbers[name] = number
    return numbers


def _check_flags(form: Form) -> dict[str, bool] | Refusal:
    flags = {}
    for name in _FLAGS:
        flag = _read_flag(form, name)
        if flag is None:
            return Refusal(Code.INVALID_FIELD, f'invalid value for "{name}"')
        flags[name] = flag
    return flags


def _check_refresh(form: Form) -> bool | Refusal:
    refresh = _read_flag(form, "refresh")
    if refresh is None:
        return Refusal(Code.INVALID_FIELD, "invalid value for refresh")
    if refresh and form.get("value"):
        return Refusal(Code.VALUE_ON_REFRESH, "A value was provided on a refresh")
    if refresh and not form.get("ttl"):
        return Refusal(Code.TTL_REQUIRED_ON_REFRESH, "No TTL value set")
    return refresh


def _choose(method: str, path: str, options: Options) -> Operation:
    value, expires = options.value, options.expires
    previous = (options.previous_value, options.previous_index)
    compares = previous != ("", 0)
    if method == "POST":
        return AppendKey(path, value, options.directory, expires)
    if method == "DELETE":
        if compares:
            return CompareDeleteKey(path, *previous)
        return DeleteKey(path, options.directory, options.recursive)
    if options.exists is False:
        return CreateKey(path, value, options.directory, expires)
    if compares:
        return SwapKey(path, value, *previous, expires, options.refresh)
    if options.exists:
        return UpdateKey(path, value, expires, options.refresh)
    return SetKey(path, value, options.directory, expires, options.refresh)


def _read_number(text: str) -> int | None:
    """An unsigned number of 64 bits, or None."""
    if not _NUMBER.fullmatch(text) or len(text.lstrip("0")) > 20:
        return None
    number = int(text)
    return number if number < _WRAP else None


def _read_flag(form: Form, name: str) -> bool | None:
    """False when it is not there, None when it is no word for yes or no."""
    text = form.get(name, "0")
    if text in _TRUE:
        return True
    return False if text in _FALSE else None


def _add_ttl(now: int, ttl: int) -> int | None:
    """When the TTL ends, in 64 bits that wrap around as etcd's do: a very large TTL may end in the past."""
    instant = (now + ttl * SECOND + _WRAP // 2) % _WRAP - _WRAP // 2
    return instant or None
