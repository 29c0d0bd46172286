"""A machine's disk in memory: two slots, and the boot loader's rule written down once more, as a model."""

from dataclasses import dataclass, field

from careen.disk.types import GIVEN_UP, Attributes, SlotName

GOOD = Attributes(1, 0, True)
GARBAGE = "garbage"


@dataclass(slots=True)
class SimSlot:
    """One slot: content is the digest that its bytes have, None while they are half written; record is what the agent
    noted down as verified."""

    attributes: Attributes
    content: str | None = None
    record: str | None = None
    version: str | None = None


@dataclass(slots=True)
class Disk:
    """Slots A and B of a machine that runs from A."""

    slots: dict[SlotName, SimSlot] = field(default_factory=dict)

    @classmethod
    def install(cls, digest: str, version: str) -> "Disk":
        """A disk with one release, marked good, in slot A."""
        return cls({SlotName.A: SimSlot(GOOD, digest, digest, version), SlotName.B: SimSlot(GIVEN_UP)})

    def __getitem__(self, name: SlotName) -> SimSlot:
        return self.slots[name]

    def choose(self) -> SlotName | None:
        """GRUB's rule: of the slots with a priority, and tries or the mark, the one of the highest priority."""
        best: SlotName | None = None
        for name in (SlotName.A, SlotName.B):
            word = self.slots[name].attributes
            if word.priority == 0 or (word.tries == 0 and not word.successful):
                continue
            if best is None or word.priority > self.slots[best].attributes.priority:
                best = name
        return best

    def boot(self) -> SlotName | None:
        """Choose, and use up a try."""
        name = self.choose()
        if name is not None:
            word = self.slots[name].attributes
            self.slots[name].attributes = Attributes(word.priority, max(0, word.tries - 1), word.successful)
        return name

    def arm(self, name: SlotName, *, kexec: bool) -> None:
        """Give the slot one boot, above the other slot."""
        other = self.slots[name.other].attributes
        self.slots[name.other].attributes = Attributes(1, other.tries, other.successful)
        self.slots[name].attributes = Attributes(2, 0 if kexec else 1, successful=False)

    def mark_good(self, name: SlotName) -> None:
        """Mark the slot good, and put it above the other one."""
        other = self.slots[name.other].attributes
        self.slots[name.other].attributes = Attributes(min(1, other.priority), other.tries, other.successful)
        self.slots[name].attributes = Attributes(2, 0, successful=True)
