"""The boot loader's side: GRUB's gptprio rule, exactly, and the use of a try.

The simulated firmware boots by `boot`; `preview` tells what it would do without touching anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

from careen.disk.block import LOCK_WAIT_SECONDS
from careen.disk.gpt import Table
from careen.disk.slots import find_slots
from careen.disk.table import open_table
from careen.disk.types import USR_TYPE, Attributes, Entry, Slot


class Bootable(Protocol):
    """Anything with boot attributes: a Slot, an Entry."""

    @property
    def attributes(self) -> Attributes:
        """Boot attributes."""
        ...


Candidate = TypeVar("Candidate", bound=Bootable)


def choose(candidates: Iterable[Candidate]) -> Candidate | None:
    """The candidate that the boot loader takes, or None if it can take none. Give them in the table's order.

    Eligible: priority at least 1, and tries left or successful. The highest priority wins; of equals, the first.
    """
    best: Candidate | None = None
    for candidate in candidates:
        if not candidate.attributes.bootable:
            continue
        if best is None or candidate.attributes.priority > best.attributes.priority:
            best = candidate
    return best


def consume(attributes: Attributes) -> Attributes:
    """What the boot loader leaves in the chosen slot: one try less, also when it is successful; never below 0."""
    return replace(attributes, tries=max(attributes.tries - 1, 0))


def choose_entry(table: Table) -> Entry | None:
    """The partition that the boot loader would take: it looks at nothing but the partitions' type."""
    return choose(entry for entry in table.entries if entry.type_guid == USR_TYPE)


def preview(path: Path, *, wait_seconds: float = LOCK_WAIT_SECONDS) -> Slot | None:
    """The slot that a reset would boot now, or None. Changes nothing. Raises what table.read_slots raises."""
    with open_table(path, wait_seconds=wait_seconds) as opened:
        return choose(find_slots(opened.table).in_table_order)


def boot(path: Path, *, wait_seconds: float = LOCK_WAIT_SECONDS) -> Slot | None:
    """Choose a slot and use up one of its tries, durably, before anything of it runs.

    Returns the slot with its attributes after that, or None if nothing can boot (then nothing is written).
    Writes only if there is a try to use up. Raises what table.change_slots raises.
    """
    with open_table(path, writable=True, wait_seconds=wait_seconds) as opened:
        slots = find_slots(opened.table)
        chosen = choose(slots.in_table_order)
        if chosen is None or chosen.attributes.tries == 0:
            return chosen
        used = slots.with_attributes(chosen.name, consume(chosen.attributes))[chosen.name]
        opened.set_words({used.partition: used.entry.word})
        return used
