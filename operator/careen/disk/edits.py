"""Changes that an administrator asks for by partition number: pure, from a table to attribute words.

Unlike `slots`, which knows USR-A and USR-B and what runs, this looks at nothing but the partition's type, as the
boot rule does, so that a disk with a third slot or an odd label can still be put right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from careen.disk.gpt import Table
from careen.disk.slots import prioritize_all, require_bootable
from careen.disk.types import USR_TYPE, Attributes, Entry, UnsafeChangeError

_TOP_SHIFT = 48
_LOW_BITS = (1 << _TOP_SHIFT) - 1


@dataclass(frozen=True)
class Wish:
    """What shall be set on one slot; None leaves it as it is.

    priority, tries: 0 to 15. raw: the 16 top bits of the attribute word, all at once; not together with the others.
    """

    priority: int | None = None
    tries: int | None = None
    successful: bool | None = None
    raw: int | None = None

    @property
    def empty(self) -> bool:
        """True if it asks for nothing."""
        return self == Wish()

    @property
    def mixed(self) -> bool:
        """True if it gives the raw bits and one of the attributes in them."""
        return self.raw is not None and self != Wish(raw=self.raw)


def edit_attributes(table: Table, partition: int, wish: Wish) -> dict[int, int]:
    """Partition → attribute word for a wish on one slot. Raises UnsafeChangeError if that is no slot."""
    entry = find_slot_entry(table, partition)
    if wish.raw is not None:
        return {partition: entry.word & _LOW_BITS | wish.raw << _TOP_SHIFT}
    old = entry.attributes
    attributes = Attributes(
        priority=old.priority if wish.priority is None else wish.priority,
        tries=old.tries if wish.tries is None else wish.tries,
        successful=old.successful if wish.successful is None else wish.successful,
    )
    return {partition: attributes.encode(entry.word)}


def edit_priorities(
    table: Table, partition: int | None, *, top: int | None = None, friends: bool = False
) -> dict[int, int]:
    """Partition → attribute word for all slots, renumbered as `slots.prioritize_all` says.

    partition: who goes first; None only closes the gaps. Raises UnsafeChangeError if that is no slot.
    """
    slots = [entry for entry in table.entries if entry.type_guid == USR_TYPE]
    index = None if partition is None else slots.index(find_slot_entry(table, partition))
    priorities = prioritize_all([entry.attributes.priority for entry in slots], index, top=top, friends=friends)
    pairs = zip(slots, priorities, strict=True)
    return {slot.partition: replace(slot.attributes, priority=value).encode(slot.word) for slot, value in pairs}


def find_slot_entry(table: Table, partition: int) -> Entry:
    """The slot with this partition number. Raises UnsafeChangeError, naming the slots, if it is none."""
    slots = [entry for entry in table.entries if entry.type_guid == USR_TYPE]
    for entry in slots:
        if entry.partition == partition:
            return entry
    allowed = ", ".join(f"{entry.partition} ({entry.label})" for entry in slots) or "none on this disk"
    raise UnsafeChangeError(f"partition {partition} is not an OS slot; allowed: {allowed}")


def check_edit(table: Table, words: Mapping[int, int]) -> None:
    """Raise UnsafeChangeError if no slot could boot once these words are set."""
    require_bootable(replace(entry, word=words.get(entry.partition, entry.word)) for entry in table.entries)


def describe_edit(before: Table, after: Table) -> tuple[str, ...]:
    """A sentence for each slot whose attribute word changed."""
    return tuple(_describe_words(before, after))


def describe_repair(before: Table, after: Table) -> tuple[str, ...]:
    """What a repair did to the two copies, one sentence each; empty if it did nothing."""
    return tuple(_describe_copies(before, after))


def _describe_words(before: Table, after: Table) -> Iterator[str]:
    for old, new in zip(before.entries, after.entries, strict=True):
        if old.word == new.word:
            continue
        line = f"partition {new.partition} ({new.label}): {old.attributes} -> {new.attributes}"
        foreign = old.attributes.encode(0) ^ old.word != new.attributes.encode(0) ^ new.word
        yield f"{line}, attribute word {old.word:#018x} -> {new.word:#018x}" if foreign else line


def _describe_copies(before: Table, after: Table) -> Iterator[str]:
    if before.primary is None and after.primary is not None:
        at = after.primary.header.entries_lba
        yield f"restored the primary copy from the backup: header at LBA 1, entries at LBA {at}"
    old, new = before.backup, after.backup
    if new is None or old == new:
        return
    place = f"header at LBA {new.header.my_lba}, entries at LBA {new.header.entries_lba}"
    if old is None:
        yield f"wrote the backup copy anew from the primary: {place}"
    elif old.header.my_lba != new.header.my_lba:
        yield (
            f"moved the backup copy from LBA {old.header.my_lba} to the end of the disk: {place}; "
            f"usable LBAs now end at {new.header.last_usable}, before at {old.header.last_usable}"
        )
    else:
        yield f"rewrote the backup copy from the primary, which counts: {place}"
