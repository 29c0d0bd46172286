"""Finding USR-A and USR-B in a table, and every legal change of their attributes. Pure.

Each change takes the slots as they are and gives the slots as they shall be; `table.change_slots` makes the
result durable in one table write. Refusals raise UnsafeChangeError with nothing written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from careen.disk.gpt import Table
from careen.disk.types import (
    GIVEN_UP,
    MAX_PRIORITY,
    USR_TYPE,
    AmbiguousSlotsError,
    Attributes,
    Entry,
    Slot,
    SlotName,
    UnsafeChangeError,
)


@dataclass(frozen=True)
class Slots:
    """Both slots of a machine."""

    a: Slot
    b: Slot

    def __getitem__(self, name: SlotName) -> Slot:
        return self.a if name is SlotName.A else self.b

    @property
    def in_table_order(self) -> tuple[Slot, Slot]:
        """By partition number: the order in which the boot rule looks at them."""
        first, second = sorted((self.a, self.b), key=lambda slot: slot.partition)
        return first, second

    def with_attributes(self, name: SlotName, attributes: Attributes) -> Slots:
        """The same slots with other attributes on one of them."""
        slot = self[name]
        changed = replace(slot, entry=slot.entry.with_attributes(attributes))
        return replace(self, a=changed) if name is SlotName.A else replace(self, b=changed)


def find_slots(table: Table) -> Slots:
    """USR-A and USR-B by type, unique GUID and label, all three.

    Raises AmbiguousSlotsError if one is missing, double, half matching, or if another partition has the slots' type.
    """
    entries = table.entries
    slots = Slots(a=_find(entries, SlotName.A), b=_find(entries, SlotName.B))
    for entry in entries:
        if entry.type_guid == USR_TYPE and entry not in (slots.a.entry, slots.b.entry):
            raise AmbiguousSlotsError(
                f"partition {entry.partition} ({entry.label!r}, {entry.guid}) has the type of an OS slot too; "
                f"allowed: only USR-A and USR-B may have type {USR_TYPE}"
            )
    return slots


def prioritize_all(
    priorities: Sequence[int], index: int | None, *, top: int | None = None, friends: bool = False
) -> tuple[int, ...]:
    """Renumber priorities so that `index` is above all others, in the way of `cgpt prioritize`.

    The others keep their order, and equals stay equal. The highest gets `top` (1 to 15), by default the number of
    groups, at most 15; each next group gets one less, never below 1. Priority 0 stays 0 (but for `index`).
    index: None only closes the gaps. friends: those with the same priority as `index` come along.
    """
    if top is not None and not 1 <= top <= MAX_PRIORITY:
        raise ValueError(f"top is {top}; allowed: 1 to {MAX_PRIORITY}")
    if index is None:
        raised: set[int] = set()
    elif friends:
        raised = {at for at, value in enumerate(priorities) if value == priorities[index]}
    else:
        raised = {index}
    others = {value for at, value in enumerate(priorities) if at not in raised and value > 0}
    groups = sorted(others, reverse=True)
    highest = top or min(len(groups) + bool(raised), MAX_PRIORITY)
    renumbered = {value: max(highest - rank, 1) for rank, value in enumerate(groups, start=int(bool(raised)))}
    return tuple(highest if at in raised else renumbered.get(value, 0) for at, value in enumerate(priorities))


def prioritize(slots: Slots, name: SlotName) -> Slots:
    """Put one slot above the other; tries and successful stay. The other's priority 0 stays 0."""
    other = name.other
    mine, theirs = prioritize_all([slots[name].attributes.priority, slots[other].attributes.priority], 0)
    raised = slots.with_attributes(name, replace(slots[name].attributes, priority=mine))
    return raised.with_attributes(other, replace(slots[other].attributes, priority=theirs))


def invalidate(slots: Slots, name: SlotName, *, booted: SlotName) -> Slots:
    """Before the first byte goes to the passive slot: P0 T0 S0, so that nothing half written can boot.

    Refused for the booted slot, and while the booted slot is not marked good (it might be lost at a reset).
    """
    _refuse_booted(name, booted, "emptied")
    _require_good(slots, booted, f"slot {name} may be given up")
    return slots.with_attributes(name, GIVEN_UP)


def arm_kexec(slots: Slots, name: SlotName, *, booted: SlotName) -> Slots:
    """Arm the passive slot for one boot by kexec: top priority, T0 S0.

    That is what a boot loader leaves after using up the only try, so any reset boots the other slot; it must
    therefore be marked good. Refused for the booted slot.
    """
    return _arm(slots, name, booted, tries=0)


def arm_firmware(slots: Slots, name: SlotName, *, booted: SlotName) -> Slots:
    """Arm the passive slot for one boot by the boot loader: top priority, T1 S0.

    Refused for the booted slot, and while the booted slot is not marked good.
    """
    return _arm(slots, name, booted, tries=1)


def disarm(slots: Slots, name: SlotName, *, booted: SlotName) -> Slots:
    """Take back the arming, or the staging, of the passive slot: P0 T0 S0.

    A slot that is marked good was not armed, and stays as it is. Refused for the booted slot.
    """
    _refuse_booted(name, booted, "disarmed")
    if slots[name].attributes.successful or slots[name].attributes == GIVEN_UP:
        return slots
    _require_good(slots, booted, f"slot {name} may be given up")
    return slots.with_attributes(name, GIVEN_UP)


def abandon(slots: Slots, name: SlotName) -> Slots:
    """Give up the trial slot, booted or not: P0 T0 S0, so that the next reset boots the other one.

    Refused while the other slot is not marked good, because then nothing would boot.
    """
    if slots[name].attributes == GIVEN_UP:
        return slots
    _require_good(slots, name.other, f"slot {name} may be given up")
    return slots.with_attributes(name, GIVEN_UP)


def commit(slots: Slots, name: SlotName, *, booted: SlotName) -> Slots:
    """Mark the booted slot good: S1, T0, top priority.

    Refused for the passive slot (nobody has seen it run) and for a slot with priority 0 (it was given up).
    """
    if name is not booted:
        raise UnsafeChangeError(f"slot {name} is not the booted one ({booted}); allowed: commit the booted slot")
    if slots[name].attributes.priority == 0:
        raise UnsafeChangeError(f"slot {name} was given up (priority 0); allowed: commit a slot of priority 1 or more")
    raised = prioritize(slots, name)
    priority = raised[name].attributes.priority
    return raised.with_attributes(name, Attributes(priority=priority, tries=0, successful=True))


def require_bootable(entries: Iterable[Entry]) -> None:
    """Raise UnsafeChangeError if the boot rule could choose none of these partitions."""
    slots = [entry for entry in entries if entry.type_guid == USR_TYPE]
    if not any(entry.attributes.bootable for entry in slots):
        state = ", ".join(f"{entry.label} {entry.attributes}" for entry in slots)
        raise UnsafeChangeError(
            f"no slot could boot after this change ({state}); "
            "allowed: at least one slot with priority 1 or more that has tries left or is successful"
        )


def _arm(slots: Slots, name: SlotName, booted: SlotName, *, tries: int) -> Slots:
    _refuse_booted(name, booted, "armed")
    _require_good(slots, booted, f"slot {name} may be armed")
    raised = prioritize(slots, name)
    priority = raised[name].attributes.priority
    return raised.with_attributes(name, Attributes(priority=priority, tries=tries, successful=False))


def _refuse_booted(name: SlotName, booted: SlotName, verb: str) -> None:
    if name is booted:
        raise UnsafeChangeError(f"slot {name} is the booted one and may not be {verb}; allowed: slot {name.other}")


def _require_good(slots: Slots, name: SlotName, sentence: str) -> None:
    attributes = slots[name].attributes
    if not attributes.good:
        raise UnsafeChangeError(
            f"slot {name} has {attributes}; {sentence} only while slot {name} is marked good "
            "(priority 1 or more and successful), since a reset must be able to boot it"
        )


def _find(entries: Sequence[Entry], name: SlotName) -> Slot:
    related = [entry for entry in entries if entry.guid == name.guid or entry.label == name.label]
    exact = [
        entry
        for entry in related
        if entry.guid == name.guid and entry.label == name.label and entry.type_guid == USR_TYPE
    ]
    if len(exact) == 1 and len(related) == 1:
        return Slot(name=name, entry=exact[0])
    found = [f"{entry.partition} ({entry.label!r}, type {entry.type_guid}, {entry.guid})" for entry in related]
    raise AmbiguousSlotsError(
        f"slot {name}: found partitions {', '.join(found) or 'none'}; "
        f"allowed: exactly one, with label {name.label!r}, type {USR_TYPE} and GUID {name.guid}"
    )
