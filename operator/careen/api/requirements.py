"""What a unit asks of the machine it is put on: one model for [X-Fleet] and for Unit.spec.placement."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Requirements:
    """A unit's requirements, with all specifiers replaced. The defaults ask for nothing.

    Globs are fleet's: `*` and `?` do not cross `/`, `[..]` is a class, a backslash escapes, a bad pattern never matches.
    """

    machine_id: str | None = None
    """MachineID: the full machine id, or its first 8 characters; None for any machine."""
    machine_of: tuple[str, ...] = ()
    """MachineOf: full names of units that must be on the same machine; all must hold."""
    metadata: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """MachineMetadata: keys with the values allowed for each, both sorted; one value of each key must hold, exactly."""
    conflicts: tuple[str, ...] = ()
    """Conflicts: globs on the names of other units that must not be on the same machine, whichever came first."""
    is_global: bool = False
    """Global: whether it runs on every machine that is able to run it."""
    replaces: tuple[str, ...] = ()
    """Replaces: globs on the names of other units that leave a machine for this one."""
    weight: int = 1
    """How much it adds to the load of its machine, and takes of its capacity; at least 0."""
    group: str | None = None
    """Name of the set of units that max_per_machine and spread_over count; None for its template, or itself alone."""
    max_per_machine: int | None = None
    """At most this many units of its group on its machine, itself among them; at least 1, None for any number."""
    avoids: tuple[str, ...] = ()
    """Globs on the names of other units that it is put beside only where nothing else is left."""
    spread_over: str | None = None
    """Key of the machines' metadata over whose values its group is spread evenly, as far as that can be."""
    surge: bool = False
    """Whether it is started on its new machine before it is stopped on the old one."""
    allow_interruption: bool = False
    """Whether its machine may be rebooted under it where no other machine is able to run it."""
