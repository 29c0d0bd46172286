"""What the boot loader will do at the next resets, and the same in words. Pure.

The future here is the one in which nobody marks anything good: each reset comes from a crash.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from careen.disk.boot import choose, consume
from careen.disk.gpt import Table
from careen.disk.types import USR_TYPE, Entry


@dataclass(frozen=True)
class Turn:
    """One slot's turn at booting. entry: as it is now, before the turn.

    boots: resets that it takes until another one comes up; None if it boots for ever.
    """

    entry: Entry
    boots: int | None


@dataclass(frozen=True)
class BootOrder:
    """turns: who boots at the coming resets, in order, each slot at most once. never: slots that cannot boot now."""

    turns: tuple[Turn, ...]
    never: tuple[Entry, ...]

    @property
    def next(self) -> Entry | None:
        """What the next reset boots, or None."""
        return self.turns[0].entry if self.turns else None

    @property
    def ends(self) -> bool:
        """True if after enough crashes nothing is left that boots."""
        return not self.turns or self.turns[-1].boots is not None


def order_boots(entries: Sequence[Entry]) -> BootOrder:
    """Follow the boot rule over all coming resets. Give the table's entries in its order; other types are ignored."""
    slots = [entry for entry in entries if entry.type_guid == USR_TYPE]
    now = {slot.partition: slot for slot in slots}
    turns: list[Turn] = []
    while (chosen := choose(now.values())) is not None:
        first = next(slot for slot in slots if slot.partition == chosen.partition)
        if chosen.attributes.tries == 0:
            turns.append(Turn(first, None))
            break
        if turns and turns[-1].entry == first:
            turns[-1] = replace(turns[-1], boots=(turns[-1].boots or 0) + 1)
        else:
            turns.append(Turn(first, 1))
        now[chosen.partition] = chosen.with_attributes(consume(chosen.attributes))
    return BootOrder(tuple(_join(turns)), tuple(slot for slot in slots if not slot.attributes.bootable))


def explain_boots(table: Table) -> tuple[str, ...]:
    """Sentences: what boots next and why, what a crash would do, and which slots can't boot."""
    order = order_boots(table.entries)
    return (*_explain_copy(table), *_explain_next(table, order), *_explain_crashes(order), *_explain_never(order))


def name_entry(entry: Entry) -> str:
    """A partition for people: label, number and attributes."""
    return f"{entry.label or 'unnamed'} (partition {entry.partition}, {entry.attributes})"


def _join(turns: Sequence[Turn]) -> Iterator[Turn]:
    """A marked-good slot that uses up tries first, and then boots for ever, has one turn."""
    for at, turn in enumerate(turns):
        if at + 1 < len(turns) and turns[at + 1].entry == turn.entry:
            continue
        yield turn


def _explain_copy(table: Table) -> Iterator[str]:
    if table.primary is None:
        yield "The primary copy of the table is not valid, so boot loaders go by the backup copy."


def _explain_next(table: Table, order: BootOrder) -> Iterator[str]:
    chosen = order.next
    if chosen is None:
        yield "Nothing boots: no slot has priority 1 or more and tries left or the mark of success."
        yield "Mark a slot that holds a complete OS good: careen disk add DISK -i N -P 1 -S 1."
        return
    able = [entry for entry in table.entries if entry.type_guid == USR_TYPE and entry.attributes.bootable]
    equals = [entry for entry in able if entry.attributes.priority == chosen.attributes.priority]
    if len(able) == 1:
        why = "it is the only slot that can boot"
    elif len(equals) > 1:
        others = " and ".join(entry.label for entry in equals if entry != chosen)
        why = f"it has the same priority as {others} and stands before it in the table"
    else:
        why = f"its priority {chosen.attributes.priority} is the highest of those that can boot"
    yield f"{name_entry(chosen)} boots next: {why}."
    if chosen.attributes.tries:
        left = chosen.attributes.tries - 1
        yield f"Booting it uses up a try, {chosen.attributes.tries} -> {left}, before anything of it runs."


def _explain_crashes(order: BootOrder) -> Iterator[str]:
    """The fate of each turn, and what follows it."""
    for at, turn in enumerate(order.turns):
        label = turn.entry.label or f"partition {turn.entry.partition}"
        if turn.boots is None:
            yield f"{label} is marked good: however often it crashes, the next reset boots it again."
            return
        often = "once; if it crashes" if turn.boots == 1 else f"up to {turn.boots} times; if it crashes each time"
        following = order.turns[at + 1].entry if at + 1 < len(order.turns) else None
        then = f"the reset after that boots {name_entry(following)}" if following else "nothing is left that boots"
        yield f"{label} is not marked good, so it boots {often}, {then}."


def _explain_never(order: BootOrder) -> Iterator[str]:
    for entry in order.never:
        attributes = entry.attributes
        if attributes.priority == 0:
            why = "priority 0 means given up, empty or being written"
        else:
            why = "no tries left and not marked good"
            if attributes.priority >= max((turn.entry.attributes.priority for turn in order.turns), default=0):
                why += ". If it runs now it is on trial, and any reset ends the trial"
        yield f"{name_entry(entry)} can't boot: {why}."
