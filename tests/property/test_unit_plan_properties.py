"""Units through whole stories: writes get lost, leaders die, machines fall silent, are left, are registered anew."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from hypothesis import given, note, settings
from hypothesis import strategies as st

from careen.core.actions import SetUnits, WriteUnit
from careen.core.places import Rules
from careen.core.plan import make_plan
from careen.core.roster import Roster
from careen.core.snapshot import Holder
from unit_cluster import CONTENT, UNIT_WRITES, UnitCluster

MACHINES = ("m1", "m2", "m3", "m4")
OPTIONS = {
    "a.service": ("", "Conflicts=b.service", "Conflicts=w@*.service"),
    "b.service": ("", "Conflicts=[cd].service", "MachineMetadata=zone=x", "MachineID=id-m2"),
    "c.service": ("", "MachineOf=a.service", "Global=true", "Conflicts=g.service"),
    "d.service": ("", "MachineOf=c.service", "Replaces=a.service", "Conflicts=*"),
    "g.service": ("Global=true", "Global=true\nConflicts=b.service", "Global=true\nMachineMetadata=zone=y"),
    "w@1.service": ("", "Conflicts=w@*.service"),
    "w@2.service": ("", "Conflicts=w@*.service"),
}
SURGING = frozenset({"a.service", "w@1.service"})
SINGLE = frozenset({"b.service", "d.service"})
"""Units that must not run twice, whatever is known of a silent machine."""


@dataclass(frozen=True)
class Step:
    """Something that happens, and how far writes and agents come in the next round."""

    what: str
    machine: str
    unit: str
    lost: int
    """Bits: writes that get lost."""
    idle: int
    """Bits: agents that do nothing."""


KINDS = (
    "nothing",
    "nothing",
    "elect",
    "edit",
    "stop",
    "drop",
    "silence",
    "speak",
    "leave",
    "return",
    "anew",
    "gone",
    "come",
    "late",
    "late",
)
steps = st.lists(
    st.builds(
        Step,
        what=st.sampled_from(KINDS),
        machine=st.sampled_from(MACHINES),
        unit=st.sampled_from(sorted(OPTIONS)),
        lost=st.integers(0, 255),
        idle=st.integers(0, 15),
    ),
    min_size=2,
    max_size=14,
)
wishes = st.fixed_dictionaries({name: st.sampled_from(options) for name, options in OPTIONS.items()})


class Story:
    """A cluster that things happen to."""

    def __init__(self, wanted: dict[str, str]) -> None:
        self.wanted = wanted
        self.cluster = UnitCluster()
        self.cluster.add_machines(len(MACHINES))
        for number, name in enumerate(MACHINES):
            self.cluster.describe(name, metadata={"zone": "xy"[number % 2]})
        self.silent: set[str] = set()
        self.left: set[str] = set()
        self.unheard: set[str] = set()
        """Machines that were silent for too long: a unit may run there and elsewhere, unless it must not."""
        self.doubted: set[str] = set()
        """Machines that were registered anew, or told too late: a unit may run there and elsewhere."""
        self.late: list[WriteUnit | SetUnits] = []
        """Writes that have not arrived yet, of leaders that may be none any more."""
        self.edits = 0
        for name in wanted:
            self.set(name)

    def set(self, name: str, state: str = "launched") -> None:
        more = {"placement": {"surge": True}} if name in SURGING else {"onSilence": "Keep"} if name in SINGLE else {}
        content = f"[Unit]\nDescription={self.edits}\n{CONTENT}"
        options = self.wanted[name]
        self.cluster.set_unit(name.replace("@", "-"), options=options, state=state, name=name, content=content, **more)

    def happen(self, step: Step) -> None:
        cluster, machine, unit = self.cluster, step.machine, step.unit
        match step.what:
            case "elect":
                cluster.roster = Roster()
            case "edit":
                self.edits += 1
                self.set(unit)
            case "stop":
                self.set(unit, "inactive")
            case "drop":
                if unit.replace("@", "-") in cluster.documents:
                    cluster.drop_unit(unit.replace("@", "-"))
            case "silence":
                self.silent.add(machine)
                self.unheard.add(machine)
            case "speak":
                self.silent.discard(machine)
            case "leave":
                self.left.add(machine)
            case "return":
                self.left.discard(machine)
            case "anew" if machine in cluster.machines:
                self.doubted.add(machine)
                cluster.held[machine] = {"spec": cluster.held[machine]["spec"] | {"units": []}, "status": {}}
                cluster.change(machine, uid=cluster.machines[machine].uid + "+", boot_id="")
                cluster.boot(machine)
            case "gone" if machine in cluster.machines:
                del cluster.machines[machine], cluster.cores[machine]
                cluster.agents[machine] = {}
                cluster.held[machine] = {"spec": {"metadata": cluster.held[machine]["spec"]["metadata"]}, "status": {}}
            case "come":
                self.come(machine)
            case "late":
                for action in self.late:
                    # It may put a unit where it was to be once: with what else is there it must get on all the same.
                    self.doubted |= {action.name} & cluster.machines.keys()
                    cluster.apply(action)
                    self.check()
                self.late.clear()
            case _:
                pass
        cluster.set_lock(limit=9)
        cluster.locks["default"] = replace(
            cluster.locks["default"], holders=tuple(Holder(name, cluster.at) for name in sorted(self.left))
        )
        cluster.facts["silent"] = frozenset(self.silent)
        cluster.facts["silent_since"] = dict.fromkeys(self.silent, cluster.at - 100)

    def come(self, machine: str) -> None:
        """A machine under the name of one that is gone."""
        if machine not in self.cluster.machines:
            self.cluster.add(machine)
            self.cluster.boot(machine)

    def go_on(self, step: Step) -> None:
        """One plan, of which some writes come through, and some agents that act."""
        cluster = self.cluster
        plan = cluster.plan()
        fresh = make_plan(cluster.snapshot(), cluster.at, Roster())
        made = [action for action in plan.actions if isinstance(action, UNIT_WRITES)]
        assert made == [action for action in fresh.actions if isinstance(action, UNIT_WRITES)]
        for number, action in enumerate(made):
            if not step.lost >> (number % 8) & 1:
                cluster.apply(action)
                self.check()
            else:
                self.late.append(action)
        for number, name in enumerate(MACHINES):
            if not step.idle >> number & 1 and name not in self.silent and name in cluster.machines:
                cluster.obey(name)
                cluster.change(name, boot_id=f"boot-{name}")
                self.check()

    def check(self) -> None:
        """What must hold at every moment, of what really is on the machines."""
        cluster = self.cluster
        for machine, there in cluster.agents.items():
            for name in there:
                rivals = [other for other in there if other != name and conflicts(self.wanted[name], other)]
                assert not rivals, f"{name} and {rivals} are on {machine}"
        for name, options in self.wanted.items():
            doubted = self.doubted if name in SINGLE else self.doubted | self.unheard
            sure = [machine for machine in cluster.where(name) if machine not in doubted]
            assert "Global" in options or len(sure) <= 1 + (name in SURGING), f"{name} is on {sure}"

    def end(self) -> None:
        """Everything comes to rest."""
        self.silent.clear()
        for name in MACHINES:
            self.come(name)
        self.happen(Step("return", self.left.pop() if self.left else "m1", "a.service", 0, 0))
        for name in list(self.left):
            self.happen(Step("return", name, "a.service", 0, 0))
        for name in MACHINES:
            self.cluster.change(name, boot_id=f"boot-{name}")
        self.cluster.settle(60)
        self.check()
        check_rest(self.cluster, self.wanted)
        self.cluster.roster = Roster()
        assert self.cluster.settle() == 0


def conflicts(options: str, other: str) -> bool:
    lines = dict(line.split("=", 1) for line in options.splitlines())
    return "Conflicts" in lines and fnmatchcase(other, lines["Conflicts"])


def check_rest(cluster: UnitCluster, wanted: dict[str, str]) -> None:
    """At rest every unit is where its status says, peers are together, and who has no place could have none."""
    for name, options in wanted.items():
        document = cluster.documents.get(name.replace("@", "-"))
        where = cluster.where(name)
        if document is None or document["spec"]["desiredState"] == "inactive":
            assert where == [], f"{name} is still on {where}"
            continue
        lines = dict(line.split("=", 1) for line in options.splitlines())
        if "Global" in lines:
            assert "placements" not in document["status"]
            fit = [machine for machine in MACHINES if takes(cluster, wanted, name, lines, machine)]
            assert set(fit) <= set(where)
            continue
        places = [place["node"] for place in document["status"]["placements"]]
        assert places == where, f"{name} is on {where} and its status says {places}"
        assert len(where) <= 1
        if "MachineOf" in lines and where:
            assert lines["MachineOf"] in cluster.agents[where[0]]
        if not where:
            placed = document["status"]["conditions"][2]
            assert (placed["type"], placed["status"]) == ("Placed", "False")
            assert placed["message"]
            able = [machine for machine in MACHINES if takes(cluster, wanted, name, lines, machine)]
            assert not able, f"{name} has no place, but {able} could take it: {placed['message']}"


def takes(cluster: UnitCluster, wanted: dict[str, str], name: str, lines: dict[str, str], machine: str) -> bool:
    there = set(cluster.agents[machine]) - {name}
    metadata = cluster.held[machine]["spec"]["metadata"]
    if any(conflicts(wanted[name], other) or conflicts(wanted[other], name) for other in there):
        return False
    if any("Replaces=" + name in wanted[other] for other in there):
        return False
    if "MachineOf" in lines and lines["MachineOf"] not in there:
        return False
    if "MachineMetadata" in lines and f"zone={metadata['zone']}" != lines["MachineMetadata"]:
        return False
    return lines.get("MachineID", f"id-{machine}") == f"id-{machine}"


@given(wishes, steps)
@settings(max_examples=150, deadline=None)
def test_no_story_breaks_a_rule(wanted: dict[str, str], story: list[Step]) -> None:
    told = Story(wanted)
    for step in story:
        note(step)
        told.happen(step)
        told.go_on(step)
    told.end()


@given(wishes, st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_a_second_pass_writes_nothing(wanted: dict[str, str], budget: int) -> None:
    told = Story(wanted)
    told.cluster.facts["unit_rules"] = Rules(rebalance_budget=budget)
    told.cluster.settle(60)
    told.cluster.roster = Roster()
    assert told.cluster.settle() == 0


@given(wishes, st.sampled_from(MACHINES))
@settings(max_examples=60, deadline=None)
def test_only_machines_that_lose_or_gain_units_are_written_to(wanted: dict[str, str], lost: str) -> None:
    told = Story(wanted)
    told.cluster.settle(60)
    before = {machine: set(there) for machine, there in told.cluster.agents.items()}
    told.cluster.writes.clear()
    told.happen(Step("silence", lost, "a.service", 0, 0))
    told.cluster.settle(60, [name for name in MACHINES if name != lost])
    written = {write.name for write in told.cluster.writes if isinstance(write, SetUnits)}
    after = {machine: set(there) for machine, there in told.cluster.agents.items()}
    assert written <= {lost} | {machine for machine in MACHINES if before[machine] != after[machine]}
    assert all(isinstance(write, WriteUnit | SetUnits) for write in told.cluster.writes)
