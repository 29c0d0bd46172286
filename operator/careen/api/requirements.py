"""What a unit asks of its place: the one model behind [X-Fleet] and Unit.spec.placement."""

from dataclasses import dataclass

Metadata = tuple[tuple[str, tuple[str, ...]], ...]
"""Keys in order, each with the values, in order, of which the machine must have one."""


@dataclass(frozen=True, slots=True)
class Requirements:
    """Where a unit may run. Lists are sorted and without repeats, so equal wishes are equal; specifiers are replaced.

    The first six are fleet's; the others are off unless asked for.
    """

    machine_id: str | None = None
    """The machine, by the whole of its id or the first 8 characters of it. None: any."""
    machine_of: tuple[str, ...] = ()
    """Names of units that must all be on the same machine."""
    machine_metadata: Metadata = ()
    """Metadata of the machine: every key must have one of its values, by exact equality."""
    conflicts: tuple[str, ...] = ()
    """Patterns on the names of units that must not be on the same machine; the unit itself never is meant."""
    replaces: tuple[str, ...] = ()
    """Patterns on the names of units that must leave the machine."""
    global_: bool = False
    """Run on every machine that fits."""
    weight: int = 1
    """How much of a machine's capacity the unit takes up, and how much it adds to its load; at least 0."""
    max_per_machine: int | None = None
    """Most units of the same template on one machine; the least that any of them asks for counts. None: no limit."""
    avoids: tuple[str, ...] = ()
    """Patterns on the names of units that had better not be on the same machine: conflicts that may be broken."""
    spread: str | None = None
    """Key of the machines' metadata over whose values the units of the same template are spread evenly. None: not."""
    surge: bool = False
    """Moved, the unit is started in its new place before it is stopped in the old one."""
    interruptible: bool = False
    """A machine may be activated though the unit can't go anywhere else: it is down until the machine is back."""
