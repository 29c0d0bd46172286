"""Unit: a systemd unit that the cluster runs on machines of its choice, as fleet did."""

from typing import Annotated, Literal

from pydantic import Field

from .meta import LIST_MAP_BY_TYPE, Condition, Model, ObjectName, Timestamp
from .rules import ALLOWED, rule, rules

MOST_CONTENT = 65_536
"""Characters of a unit file; the operator refuses more bytes than that, too."""
MOST_WISHES = 64
"""Values of one requirement."""
MOST_PLACES = 2
"""Places of one unit at a time: where it is to run, and the one that it leaves."""
SHOWN_MACHINES = 20
"""Machines whose reports are copied into the status."""
UNIT_TYPES = (
    "automount", "busname", "device", "mount", "path", "scope", "service", "slice", "snapshot", "socket", "swap",
    "target", "timer",
)  # fmt: skip
TEMPLATE_TYPES = ("path", "service", "socket", "target", "timer")
UNIT_NAME_PATTERN = (
    rf"^([0-9A-Za-z:_.\\-]*\.({'|'.join(UNIT_TYPES)})|"
    rf"[0-9A-Za-z:_.\\-]+@[0-9A-Za-z:_.\\@-]*\.({'|'.join(TEMPLATE_TYPES)}))$"
)
TEMPLATE_PATTERN = r"^[^@]+@\.[a-z]+$"

FullName = Annotated[
    str,
    Field(
        pattern=UNIT_NAME_PATTERN,
        min_length=1,
        max_length=256,
        json_schema_extra={ALLOWED: "a unit's name with its type, such as web.service, web@.service or web@1.service"},
    ),
]
UnitPattern = Annotated[
    str,
    Field(
        pattern=r"^\S+$",
        min_length=1,
        max_length=256,
        json_schema_extra={ALLOWED: "a unit's name, or a pattern of one, such as web@*.service, without spaces"},
    ),
]
UnitPatterns = Annotated[
    list[UnitPattern], Field(min_length=1, max_length=MOST_WISHES, json_schema_extra={"x-kubernetes-list-type": "set"})
]
MetadataKey = Annotated[str, Field(min_length=1, max_length=63)]
MetadataValues = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=253)]],
    Field(min_length=1, max_length=MOST_WISHES, json_schema_extra={"x-kubernetes-list-type": "set"}),
]
DesiredState = Literal["inactive", "loaded", "launched"]
SystemdWord = Annotated[str, Field(max_length=64)]
UnitHash = Annotated[
    str,
    Field(pattern=r"^[0-9a-f]{40}$", max_length=40, json_schema_extra={ALLOWED: "40 lower-case hex digits"}),
]

_GLOBAL = "has(self.global) && self.global"
_EXCLUSIVE = (
    ("machineID", "machineOf", "has(self.machineID) && has(self.machineOf)"),
    ("machineID", "conflicts", "has(self.machineID) && has(self.conflicts)"),
    ("machineID", "global", f"has(self.machineID) && {_GLOBAL}"),
    ("machineID", "replaces", "has(self.machineID) && has(self.replaces)"),
    ("global", "machineOf", f"has(self.machineOf) && {_GLOBAL}"),
    ("global", "replaces", f"has(self.replaces) && {_GLOBAL}"),
    ("conflicts", "replaces", "has(self.conflicts) && has(self.replaces)"),
)


class Placement(
    Model,
    json_schema_extra=rules(
        *(rule(f"!({both})", f"{one} and {other} must not be given together") for one, other, both in _EXCLUSIVE)
    ),
):
    """Where the unit may run: what [X-Fleet] can say in the unit file, and more.

    %n, %N, %p and %i in texts stand for the unit's full name, name without type, prefix and instance.
    """

    machine_id: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """Run on this machine: its machine id, or the first 8 characters of it."""
    machine_of: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=256)]],
            Field(min_length=1, max_length=MOST_WISHES, json_schema_extra={"x-kubernetes-list-type": "set"}),
        ]
        | None
    ) = None
    """Run on the machine that all these units, by their full names, are on. It follows them."""
    machine_metadata: Annotated[dict[MetadataKey, MetadataValues], Field(max_length=MOST_WISHES)] | None = None
    """Run on machines whose metadata has, for every key, one of the values."""
    conflicts: UnitPatterns | None = None
    """Never run beside units whose names match one of these patterns; it holds for both sides. The unit itself is not
    meant."""
    replaces: UnitPatterns | None = None
    """Units whose names match one of these patterns leave the machine that this one is put on."""
    global_: Annotated[bool | None, Field(alias="global")] = None
    """Run on every machine that fits, also on those that join later."""
    weight: Annotated[int, Field(ge=0, le=100_000)] = 1
    """How much the unit adds to the load of its machine, and takes of its capacity; the least loaded machine is chosen.
    Default 1."""
    max_per_machine: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Most units of the same template on one machine; the least that any of them asks for counts. Absent: no limit."""
    avoids: UnitPatterns | None = None
    """Run beside units whose names match one of these patterns only where there is no other place."""
    spread: MetadataKey | None = None
    """Key of the machines' metadata over whose values the units of the same template are spread evenly."""
    surge: bool = False
    """When the unit moves, start it in its new place before it is stopped in the old one. Default false."""
    interruptible: bool = False
    """The unit's machine may be activated though the unit can't run anywhere else: it is down until the machine is
    back. Without it such a unit refuses the activation with reason UnitNotMovable. Default false."""


class UnitSpec(
    Model,
    json_schema_extra=rules(
        rule(
            "has(self.name) == has(oldSelf.name) && (!has(self.name) || self.name == oldSelf.name)",
            "name must stay as it is: another name is another unit",
            field=".name",
        )
    ),
):
    """What is to run, and where. Whoever may write it is root on the machines; it holds no secrets, for all agents
    read it."""

    name: FullName | None = None
    """Full name of the unit for systemd, where it can't be the object's name (which has no @ and no capitals).
    Absent: metadata.name. Of two Units with one name the older counts; the other gets condition NameTaken."""
    content: Annotated[str, Field(min_length=1, max_length=MOST_CONTENT)]
    """The unit file, at most 64 KiB. Its section [X-Fleet] is read as fleet did; comments do not count as changes."""
    desired_state: DesiredState = "inactive"
    """inactive: known, and on no machine. loaded: placed and read by systemd, not started. launched: started. A
    template is always inactive. Default inactive."""
    placement: Placement | None = None
    """Where it may run. What [X-Fleet] says must be said alike here, or not at all."""
    on_silence: Literal["Replace", "Keep"] = "Replace"
    """When its machine falls silent: Replace places it anew after a grace period, Keep waits for the machine, for units
    that must never run twice. Default Replace."""


class Place(Model):
    """A machine that the unit was put on."""

    node: ObjectName
    """Name of the Node."""
    node_uid: Annotated[str, Field(max_length=64)] | None = None
    """UID of the Node: a machine made again under the same name is another one."""
    since: Timestamp
    """When it was decided."""
    leaving: bool = False
    """The unit is moving: it is stopped here once it runs in its new place."""


class UnitCounts(Model):
    """Machines by what they report of the unit."""

    placed: Annotated[int, Field(ge=0)] = 0
    """Machines that are to hold it; of a global unit, those that fit."""
    loaded: Annotated[int, Field(ge=0)] = 0
    """Machines whose systemd has read it, with this content."""
    active: Annotated[int, Field(ge=0)] = 0
    """Machines where it is active."""
    failed: Annotated[int, Field(ge=0)] = 0
    """Machines where it has failed."""


class UnitMachine(Model):
    """What one machine reports of the unit: systemd's own words."""

    node: ObjectName
    """Name of the Node."""
    hash: UnitHash | None = None
    """Hash of the content that the machine holds."""
    load: SystemdWord | None = None
    """systemd's load state, such as loaded."""
    active: SystemdWord | None = None
    """systemd's active state, such as active or failed."""
    sub: SystemdWord | None = None
    """systemd's sub state, such as running."""


class UnitStatus(Model):
    """Where the unit is, and how it does; written by the operator alone."""

    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """metadata.generation that this status was computed from."""
    hash: UnitHash | None = None
    """SHA-1 of the unit file's canonical text, as fleet computes it."""
    current_state: DesiredState | None = None
    """inactive, loaded or launched, as its machine has confirmed; absent for a global unit, which has no single one."""
    placements: (
        Annotated[
            list[Place],
            Field(
                max_length=MOST_PLACES,
                json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["node"]},
            ),
        ]
        | None
    ) = None
    """The decision: the machine that it is to run on, and while it moves the one that it leaves. None for a global
    unit."""
    counts: UnitCounts | None = None
    """Machines by what they report."""
    machines: (
        Annotated[
            list[UnitMachine],
            Field(
                max_length=SHOWN_MACHINES,
                json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["node"]},
            ),
        ]
        | None
    ) = None
    """The first 20 machines that hold it, by name."""
    conditions: Annotated[list[Condition], Field(max_length=16, json_schema_extra=LIST_MAP_BY_TYPE)] | None = None
    """Valid (the unit file and its requirements can be), Placed (with the reasons of the machines that refuse it),
    NameTaken, and the standard Ready, Reconciling, Stalled."""
