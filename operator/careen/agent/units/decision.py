"""What is to be done about the units of a machine: from orders, contents and what is there to operations. Pure.

Nothing is stopped or taken away but for an order that says so; what is not listed is not looked at. The decision is
made anew from what is seen after each operation has ended, so an operation that waits for another is simply not there
yet: a running unit whose content changes is stopped first, and unloaded in a later pass, when systemd says that it is
down.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field

from careen.units.file import UnitError, parse_options
from careen.units.names import check_name, split_name

from .sight import Order, Sight, UnitState


@dataclass(frozen=True, slots=True)
class Unload:
    """Disable the unit, forget its failure and its launch, and take its file away. It is not running."""

    name: str


@dataclass(frozen=True, slots=True)
class Load:
    """Write the unit's file and link it into systemd's search path, and enable it if it has [Install]."""

    name: str
    text: str
    install: bool


@dataclass(frozen=True, slots=True)
class Reload:
    """Let systemd read all unit files again."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Have the unit stopped, and then forget that it was launched."""

    name: str


@dataclass(frozen=True, slots=True)
class Start:
    """Have the unit started, and remember that, with the hash of its content."""

    name: str
    hash: str


Operation = Unload | Load | Reload | Stop | Start
SEQUENCE: tuple[type[Operation], ...] = (Unload, Load, Reload, Stop, Start)
"""In which order the operations of one pass are done: systemd reads files once, when all of them are in place."""


@dataclass(frozen=True)
class Plan:
    """One pass."""

    operations: tuple[Operation, ...] = ()
    """In the order in which they are to be done."""
    refusals: Mapping[str, str] = field(default_factory=dict)
    """Orders that can't be obeyed, by the unit's name, each with a sentence that says why."""


class _RefusedError(Exception):
    """An order that can't be obeyed."""


def find_wanted(orders: tuple[Order, ...], sight: Sight) -> list[Order]:
    """The orders whose content has still to be put in place."""
    return [each for each in orders if each.desired != "removed" and _is_missing(each, sight)]


def decide(orders: tuple[Order, ...], contents: Mapping[str, str], sight: Sight, waiting: Set[str]) -> Plan:
    """The operations that bring the machine nearer to what is ordered; none when it is there.

    contents: canonical texts by their hash, as far as they are known. waiting: names of units to which something has
    just failed, so that they are left alone for now.
    """
    found: list[Operation] = []
    refusals: dict[str, str] = {}
    for order in orders:
        if order.name in waiting:
            continue
        try:
            found += _decide(order, contents.get(order.hash), sight)
        except _RefusedError as error:
            refusals[order.name] = str(error)
    if any(isinstance(each, Unload | Load) for each in found) or (sight.unread and not sight.unreadable):
        found.append(Reload())
    elif sight.unread:
        # What systemd has not read must not be started: it would run the content before it.
        refusals |= {each.name: tell_unread(sight.unreadable) for each in found if isinstance(each, Start)}
        found = [each for each in found if not isinstance(each, Start)]
    # The sort is stable, so within a kind units stay in the order of their names.
    return Plan(tuple(sorted(found, key=lambda each: SEQUENCE.index(type(each)))), refusals)


def _decide(order: Order, text: str | None, sight: Sight) -> Iterator[Operation]:
    held, state = sight.held.get(order.name), sight.state(order.name)
    if order.desired == "removed":
        if sight.has(order.name):
            yield from _take_away(order.name, state, sight)
        return
    _check(order, state)
    if _is_missing(order, sight):
        if text is None:
            # What runs goes on until the new content is at hand.
            return
        if held != order.hash and _must_stop(order, held, state, sight):
            yield from _stop(order.name, sight)
            return
        if held not in (None, order.hash):
            yield Unload(order.name)
        yield Load(order.name, text, has_install(text))
    launch = sight.launches.get(order.name)
    if order.desired == "launched":
        stopped = launch is not None and launch.stopping and order.name not in sight.stopping
        if launch is None or stopped or launch.hash != order.hash or held not in (None, order.hash):
            yield Start(order.name, order.hash)
    elif launch is not None and held == order.hash:
        # A unit that nobody launched may run all the same, for its socket or its timer.
        yield from _stop(order.name, sight)


def _is_missing(order: Order, sight: Sight) -> bool:
    """Whether the file is not there, or systemd does not find it: the agent may have died before it was linked."""
    return sight.held.get(order.name) != order.hash or sight.state(order.name).load == "not-found"


def _must_stop(order: Order, held: str | None, state: UnitState, sight: Sight) -> bool:
    """Whether what runs is known to have another content: not if only its file was lost, or all memory of it too."""
    launch = sight.launches.get(order.name)
    known = held or (launch.hash if launch is not None else None)
    return state.running and known is not None and known != order.hash


def _take_away(name: str, state: UnitState, sight: Sight) -> Iterator[Operation]:
    # A unit of the machine's own that has the same name, and so has hidden ours, goes on.
    if state.running and (state.ours or not state.fragment):
        yield from _stop(name, sight)
    else:
        yield Unload(name)


def _stop(name: str, sight: Sight) -> Iterator[Operation]:
    if name not in sight.stopping:
        yield Stop(name)


def _check(order: Order, state: UnitState) -> None:
    if (fault := check_name(order.name)) is not None:
        raise _RefusedError(f"{order.name} can't be a unit: {fault}")
    if split_name(order.name).is_template:
        raise _RefusedError(f"{order.name} is a template; only instances of it, such as web@1.service, can be loaded")
    if state.fragment and not state.ours:
        raise _RefusedError(f"{order.name} is a unit of the machine itself, from {state.fragment}: it is left alone")


def tell_unread(error: object) -> str:
    """The sentence for a unit whose file systemd has not read."""
    return f"systemd could not read its file: {error}"


def has_install(text: str) -> bool:
    """Whether the unit file has a section [Install], for which it must be enabled."""
    try:
        return any(each.section == "Install" for each in parse_options(text))
    except UnitError:
        return False
