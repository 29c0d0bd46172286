"""Whether a machine is able to run a unit, why not, and which of those that are able is the best."""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Set
from operator import itemgetter
from typing import NamedTuple

from careen.api.held import MOST_UNITS

from .board import Board
from .patterns import AVOID, CONFLICT, REPLACE
from .places import STANDING, NoPlace, group_of

Bars = list[Container[str]]
Rank = tuple[int, bool, int]


class Fault(NamedTuple):
    """Why a machine does not take a unit."""

    kind: str
    text: str


CLOSED, LEFT, ID, METADATA, PEER, GROUP, CAPACITY = "closed", "left", "id", "metadata", "peer", "group", "capacity"
"""Kinds of faults, beside CONFLICT and REPLACE."""
BEING_LEFT = "still being stopped there"
NOT_UNDERSTOOD = "it can't be understood, so it stays where it is"


def explain(board: Board, name: str, machine: str, *, beside: Container[str] = ()) -> Fault | None:
    """Why the unit can't stand on the machine; None if it can. In fleet's order: the first fault counts.

    A unit that stands there already is held against what stands there with it; one that comes, also against what is
    being left there: that still runs. beside: peers that count as being there, since they would come too.
    """
    stands = board.places.get(name, {}).get(machine) in STANDING
    return (
        (None if stands else _explain_closed(board, name, machine))
        or _explain_machine(board, name, machine, beside)
        or _explain_others(board, name, machine, stands)
        or _explain_room(board, name, machine, stands)
    )


def _explain_closed(board: Board, name: str, machine: str) -> Fault | None:
    closed = board.targets[machine].closed
    if closed is not None and not board.asks(name).global_:
        return Fault(CLOSED, closed)
    if machine in board.places.get(name, ()):
        return Fault(LEFT, BEING_LEFT)
    return None


def _explain_machine(board: Board, name: str, machine: str, beside: Container[str]) -> Fault | None:
    wanted, target = board.asks(name), board.targets[machine]
    if board.is_pinned(name):
        there = board.places.get(name, {}).get(machine) in STANDING
        return None if there else Fault(ID, NOT_UNDERSTOOD)
    if wanted.machine_id is not None and machine not in board.find_by_id(wanted.machine_id):
        return Fault(ID, _tell_id(wanted.machine_id))
    for key, values in wanted.machine_metadata:
        if target.metadata.get(key) not in values:
            return Fault(METADATA, _tell_metadata(key, values))
    for peer in wanted.machine_of:
        if board.places.get(peer, {}).get(machine) not in STANDING and peer not in beside:
            return Fault(PEER, _tell_peer(peer))
    return None


def _tell_id(machine_id: str) -> str:
    return f"MachineID is not {machine_id}"


def _tell_metadata(key: str, values: Iterable[str]) -> str:
    return f"MachineMetadata {key} is not {' or '.join(values)}"


def _tell_peer(peer: str) -> str:
    return f"MachineOf {peer}, which is not there"


def _explain_others(board: Board, name: str, machine: str, stands: bool) -> Fault | None:
    bars = [bar for bar in _list_bars(board, name) if machine in bar]
    if not bars:
        return None
    others = sorted(board.seats[machine].items())
    for other, role in others:
        if other != name and (role in STANDING or not stands) and _conflict(board, name, other):
            return Fault(CONFLICT, f"Conflicts with {other}")
    for other, role in others:
        if role in STANDING and replaces(board, other, name):
            return Fault(REPLACE, f"replaced by {other}")
    return None


def _conflict(board: Board, name: str, other: str) -> bool:
    hits, others = board.index.hits(name), board.index.hits(other)
    return any(kind == CONFLICT and pattern in others for kind, pattern in board.claims(name)) or any(
        kind == CONFLICT and pattern in hits for kind, pattern in board.claims(other)
    )


def _explain_room(board: Board, name: str, machine: str, stands: bool) -> Fault | None:
    if not stands and len(board.seats[machine]) >= MOST_UNITS:
        return Fault(CAPACITY, f"{MOST_UNITS} units there, which is the most that a Node can name")
    limit = board.limit_of(name)
    if limit is not None:
        others = _count_group(board, name, machine, limit[0], stands)
        if others >= limit[1]:
            return Fault(GROUP, f"{others} of {limit[0]} there, at most {limit[1]} allowed")
    capacity, weight = board.targets[machine].capacity, board.asks(name).weight
    if capacity is None or not weight:
        return None
    taken = board.load[machine] - weight if stands else board.used[machine]
    if taken + weight > capacity:
        return Fault(CAPACITY, f"weight {weight} is more than the {max(0, capacity - taken)} of {capacity} left")
    return None


def _count_group(board: Board, name: str, machine: str, group: str, stands: bool) -> int:
    """Others of the group on a machine; with those that are being left, for a unit that comes."""
    there = board.groups.get(group, {}).get(machine, 0) - stands
    if stands or there == len(board.seats[machine]):
        return there
    leaving = (other for other, role in board.seats[machine].items() if role not in STANDING and other != name)
    prefix, _, suffix = group.partition("@.")
    return there + sum(other.startswith(f"{prefix}@") and other.endswith(f".{suffix}") for other in leaving)


def _list_bars(board: Board, name: str) -> Bars:
    """Machines that a unit must not come to because of what is there; or that are to be looked at more closely."""
    bars: Bars = [pattern.there for kind, pattern in board.claims(name) if kind == CONFLICT and pattern.there]
    for pattern in board.index.hits(name):
        bars += [bar for kind in (CONFLICT, REPLACE) if (bar := pattern.claims[kind])]
    return bars


def replaces(board: Board, name: str, other: str) -> bool:
    """Whether a unit pushes the other off its machine. Units that replace each other, if by a detour, do not."""
    if name == other:
        return False
    hits = board.index.hits(other)
    return any(kind == REPLACE and p in hits for kind, p in board.claims(name)) and not _reaches(board, other, name)


def _reaches(board: Board, start: str, goal: str) -> bool:
    seen, queue = {start}, [start]
    while queue:
        name = queue.pop()
        for kind, pattern in board.claims(name):
            if kind != REPLACE:
                continue
            if goal in pattern.names and goal != name:
                return True
            queue += pattern.names - seen
            seen |= pattern.names
    return False


def find_replaced(board: Board, name: str, machine: str) -> list[str]:
    """Units that stand on the machine and leave it when this one comes; by name."""
    if not any(kind == REPLACE and machine in pattern.there for kind, pattern in board.claims(name)):
        return []
    seats = sorted(board.seats[machine].items())
    return [other for other, role in seats if role in STANDING and replaces(board, name, other)]


def list_able(board: Board, name: str) -> Iterator[str]:
    """Machines that would take the unit, which stands nowhere: least loaded first, ties by machine id.

    The same answers as `explain`, from the indexes.
    """
    pool = _narrow(board, name)
    order = board.order
    if pool is not None and len(pool) * 8 < len(order):
        targets = (board.targets[machine] for machine in pool)
        order = sorted((board.load[t.name], t.machine_id, t.name) for t in targets if t.closed is None)
    bars, own = _list_bars(board, name), board.places.get(name, {})
    loose = any(pattern.claims[REPLACE] for pattern in board.index.hits(name))
    for _, _, machine in order:
        if (pool is not None and machine not in pool) or machine in own:
            continue
        if any(machine in bar for bar in bars) and (not loose or _explain_others(board, name, machine, False)):
            continue
        if _explain_room(board, name, machine, False) is None:
            yield machine


def _narrow(board: Board, name: str) -> set[str] | None:
    """Machines that are the right ones for what was asked of machines; None for all."""
    if board.is_pinned(name):
        return set()
    wanted = board.asks(name)
    pools: list[set[str]] = []
    if wanted.machine_id is not None:
        pools.append(board.find_by_id(wanted.machine_id))
    for peer in wanted.machine_of:
        pools.append({machine for machine, role in board.places.get(peer, {}).items() if role in STANDING})
    if wanted.machine_metadata:
        pools.append(board.find_by_metadata(wanted.machine_metadata))
    return set.intersection(*pools) if pools else None


def choose(board: Board, name: str) -> str | None:
    """The machine that a unit is put on: the first that is able, but for what the unit prefers.

    A unit that others must be beside goes where they can go too, if there is such a machine.
    """
    family, first = find_family(board, name), None
    for machine in _rank(board, name, list_able(board, name)):
        first = first or machine
        if not family or _takes_family(board, name, family, machine):
            return machine
    return first


def choose_gently(board: Board, name: str, batch: Container[str]) -> str | None:
    """The same for a unit that runs well where it is: only where nobody is pushed off, and all who must be beside it
    and leave with it, in one batch, can go too.
    """
    family = [member for member in find_family(board, name) if member in batch]
    for machine in _rank(board, name, list_able(board, name)):
        if not find_replaced(board, name, machine) and (not family or _takes_family(board, name, family, machine)):
            return machine
    return None


def _rank(board: Board, name: str, able: Iterator[str]) -> Iterator[str]:
    """Preferences come before load: first beside nothing that is to be avoided, then where the group is rarest."""
    wanted = board.asks(name)
    shunned = [pattern.there for kind, pattern in board.claims(name) if kind == AVOID and pattern.there]
    shunned += [bar for pattern in board.index.hits(name) if (bar := pattern.claims[AVOID])]
    if not shunned and wanted.spread is None:
        return able
    spread = _count_domains(board, name)
    domains = board.list_domains(wanted.spread) if wanted.spread is not None else []
    best = (0, not domains and wanted.spread is not None, min((spread[value] for value in domains), default=0))

    def rank(machine: str) -> Rank:
        beside = sum(bar.get(machine, 0) for bar in shunned)
        value = board.targets[machine].metadata.get(wanted.spread) if wanted.spread is not None else None
        return beside, wanted.spread is not None and value is None, spread[value]

    return _put_best_first(able, rank, best)


def _put_best_first(able: Iterator[str], rank: Callable[[str], Rank], best: Rank) -> Iterator[str]:
    """Sort; but what can't be bettered comes without a look at all the others, since mostly the first one is taken."""
    rest = []
    for machine in able:
        found = rank(machine)
        if found == best:
            yield machine
        else:
            rest.append((found, machine))
    yield from (machine for _, machine in sorted(rest, key=itemgetter(0)))


def _count_domains(board: Board, name: str) -> Counter[str | None]:
    """How many of the unit's group stand in each domain that they are spread over."""
    wanted, counts = board.asks(name), Counter[str | None]()
    group = group_of(name)
    if wanted.spread is None or group is None:
        return counts
    for machine, number in board.groups.get(group, {}).items():
        value = board.targets[machine].metadata.get(wanted.spread)
        if value is not None:
            counts[value] += number
    return counts


def find_family(board: Board, name: str) -> list[str]:
    """Units that must be where this one is, and those that must be where they are; by name."""
    found: set[str] = set()
    queue = [name]
    while queue:
        fresh = board.followers.get(queue.pop(), set()) - found - {name}
        found |= fresh
        queue += fresh
    return sorted(found - board.globals.keys())


def _takes_family(board: Board, name: str, family: list[str], machine: str) -> bool:
    everyone = {name, *family}
    coming = [member for member in family if board.places.get(member, {}).get(machine) not in STANDING]
    if any(explain(board, member, machine, beside=everyone) is not None for member in coming):
        return False
    capacity = board.targets[machine].capacity
    weights = sum(board.asks(member).weight for member in (name, *coming))
    return capacity is None or board.used[machine] + weights <= capacity


def explain_all(board: Board, name: str) -> NoPlace:
    """Why no machine takes the unit, which stands nowhere, in groups."""
    texts, rest = _tell_by_indexes(board, name, board.targets.keys())
    texts.update(fault.text for machine in rest if (fault := explain(board, name, machine)) is not None)
    return _group(name, texts)


def explain_stuck(board: Board, name: str) -> NoPlace:
    """Why a unit that runs well where it is can't go elsewhere, in groups."""

    def tell(machine: str) -> str:
        fault = explain(board, name, machine)
        if fault is not None:
            return fault.text
        replaced = find_replaced(board, name, machine)
        if replaced:
            return f"would push {replaced[0]} off"
        return "not able to run all units that must be beside it"

    texts, rest = _tell_by_indexes(board, name, board.targets.keys() - board.places.get(name, {}).keys())
    texts.update(tell(machine) for machine in rest)
    return _group(name, texts)


def _tell_by_indexes(board: Board, name: str, machines: Set[str]) -> tuple[Counter[str], set[str]]:
    """Texts of the faults that `explain` finds first, and machines that are to be looked at one by one.

    Mostly few are left: a unit may wait for ever for what no machine has, and each plan says why.
    """
    wanted, texts = board.asks(name), Counter[str]()
    left = set(machines)

    def put_off(found: set[str], text: str) -> None:
        if found:
            texts[text] += len(found)
            left.difference_update(found)

    for text, closed in board.closed.items():
        if not wanted.global_:
            put_off(left & closed, text)
    put_off(left & board.places.get(name, {}).keys(), BEING_LEFT)
    if board.is_pinned(name):
        put_off(set(left), NOT_UNDERSTOOD)
    if wanted.machine_id is not None:
        put_off(left - board.find_by_id(wanted.machine_id), _tell_id(wanted.machine_id))
    for key, values in wanted.machine_metadata:
        put_off(left - board.find_by_metadata(((key, values),)), _tell_metadata(key, values))
    for peer in wanted.machine_of:
        there = {machine for machine, role in board.places.get(peer, {}).items() if role in STANDING}
        put_off(left - there, _tell_peer(peer))
    return texts, left


def group_reasons(name: str, texts: Iterable[str]) -> NoPlace:
    """What machines say, one text each, as a refusal."""
    return _group(name, Counter(texts))


def _group(name: str, texts: Counter[str]) -> NoPlace:
    groups = sorted(texts.items(), key=lambda pair: (-pair[1], pair[0]))
    return NoPlace(name, tuple((number, text) for text, number in groups))
