"""Agents are killed, and machines lose their power, at random moments of a roll: each one ends on a complete slot."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from careen.agent.imagehost import BootRecord, MachineFolder
from careen.agent.journal import load_journal
from careen.agent.record import OpenOrder, Stage
from careen.agent.staging.slot import check_slot
from careen.disk.boot import preview
from careen.disk.image import open_slot
from careen.disk.table import read_slots
from careen.disk.types import GIVEN_UP, SlotName
from careen.sandbox.client import Manifest, wait_until
from careen.sandbox.controlplane import ControlPlane
from careen.sandbox.releases import ServerFault
from careen.sandbox.serving import ServerThread
from careen.sandbox.up import Sandbox, SandboxOptions

OURS = "/apis/careen.dev/v1alpha1"
MIB = 1 << 20
MACHINES = 9
AT_ONCE = 4
KILLS = {"staging": 14, "activation": 16}
SNIPED = 9
POWER_SHARE = 0.3
READY_SECONDS = 2
SEED = 11
PATIENCE = 120.0


@dataclass(frozen=True)
class Aim:
    """A kill to come."""

    part: str
    due: float
    """Monotonic time."""
    power: bool
    """Whether the machine loses its power, and not only its agent."""


@dataclass
class Roll:
    """A rollout under fire."""

    fleet: Sandbox
    server: ServerThread
    rng: random.Random = field(default_factory=lambda: random.Random(SEED))
    left: Counter[str] = field(default_factory=lambda: Counter(KILLS))
    """Kills still to come, by part of the ladder."""
    aimed: dict[str, Aim] = field(default_factory=dict)
    """Machines that will be hit."""
    hits: Counter[str] = field(default_factory=Counter)
    """Kills done, by what the machine was doing."""
    parts: Counter[str] = field(default_factory=Counter)
    sniped: int = 0
    """Kills done between the grant and the reboot: a few tenths of a second that no blind delay would hit."""
    forgiven: int = 0
    """How often a machine needed a `careen retry`."""
    version: int = 3

    def policy(self) -> Manifest:
        strategy = {"maxUnavailable": AT_ONCE, "maxStaging": MACHINES}
        # Power lost in a trial brings the old OS back, once for nothing and the second time as a failure.
        failure = {"maxFailed": sum(KILLS.values())}
        spec = {"release": self.release, "strategy": strategy, "failure": failure, "readySeconds": READY_SECONDS}
        kind = {"apiVersion": "careen.dev/v1alpha1", "kind": "UpdatePolicy", "metadata": {"name": "os"}}
        return {**kind, "spec": spec}

    @property
    def release(self) -> dict[str, str]:
        return {"repository": self.server.url, "version": f"{self.version}.0.0"}

    def publish(self, version: int) -> None:
        self.fleet.repository.publish(f"{version}.0.0", payload_bytes=MIB)

    def fire(self) -> None:
        """Kill until all kills are done; a roll that is over sooner is followed by one to the next version."""
        deadline = time.monotonic() + PATIENCE
        while any(self.left.values()):
            assert time.monotonic() < deadline, f"not within {PATIENCE} s: {self.report()}"
            granted = {holder["id"] for holder in holders(self.fleet)}
            for node in self.fleet.api.items(f"{OURS}/nodes"):
                if node["metadata"]["name"] in granted and self.sniped < SNIPED and is_staged(node):
                    self.snipe(node["metadata"]["name"])
                self.aim(node)
            now = time.monotonic()
            for name, aim in list(self.aimed.items()):
                if aim.due <= now:
                    self.hit(name, aim)
            self.forgive()
            if self.is_complete() and any(self.left.values()):
                self.version += 1
                self.publish(self.version)
                self.fleet.api.patch(f"{OURS}/updatepolicies/os", {"spec": {"release": self.release}})
            time.sleep(0.03)

    def aim(self, node: Manifest) -> None:
        """Choose the moment for a machine that is in a part of which kills are left."""
        name, part = node["metadata"]["name"], part_of(node)
        if name in self.aimed or part is None or not self.left[part] - self.coming(part) > 0:
            return
        longest = 4.0 if part == "staging" else self.rng.choice((0.3, 1.0, 3.0))
        self.aimed[name] = Aim(part, time.monotonic() + self.rng.uniform(0.0, longest), self.draw_power())

    def draw_power(self) -> bool:
        return self.rng.random() < POWER_SHARE

    def coming(self, part: str) -> int:
        return sum(aim.part == part for aim in self.aimed.values())

    def snipe(self, name: str) -> None:
        """Wait until the machine is told to activate, or until its journal says that it arms, and hit it right then."""
        folder, early = MachineFolder(self.fleet.folder_of(name)), self.rng.random() < 0.35
        deadline = time.monotonic() + 1.0
        while not (self.is_told(name) if early else open_order(folder)):
            if time.monotonic() > deadline:
                return
            time.sleep(0.001)
        time.sleep(self.rng.uniform(0.0, 0.12 if early else 0.03))
        self.sniped += self.strike(name, "activation", power=self.draw_power())

    def is_told(self, name: str) -> bool:
        return part_of(self.fleet.api.get(f"{OURS}/nodes/{name}")) == "activation"

    def hit(self, name: str, aim: Aim) -> None:
        """Hit an aimed machine now, unless it has left that part."""
        here = part_of(self.fleet.api.get(f"{OURS}/nodes/{name}")) == aim.part
        if not here or self.strike(name, aim.part, power=aim.power):
            del self.aimed[name]

    def strike(self, name: str, part: str, *, power: bool) -> bool:
        """Kill the agent or cut the power; False, and nothing done, while there is only an agent that starts."""
        folder = MachineFolder(self.fleet.folder_of(name))
        if not power and not is_at_work(self.fleet.find_agent(name), folder):
            return False
        doing = f"{describe(folder, part)} ({'power' if power else 'agent'})"
        if power:
            self.fleet.cut_power(name)
        elif not self.fleet.kill_agent(name):
            return False
        self.left[part] -= 1
        self.parts[part] += 1
        self.hits[doing] += 1
        self.check_next_boot(folder, doing)
        if power:
            self.fleet.power_on(name)
        if not self.left["staging"]:
            self.server.server.fault = None
        return True

    def check_next_boot(self, folder: MachineFolder, doing: str) -> None:
        """Whatever was hit: a reset boots a complete slot."""
        chosen = preview(folder.disk)
        assert chosen is not None, f"nothing would boot after a kill while {doing}"
        assert self.digest_in(folder, chosen.name), f"slot {chosen.name} is not complete after a kill while {doing}"

    def digest_in(self, folder: MachineFolder, name: SlotName) -> str | None:
        """Digest of the published release that the slot holds to the last byte."""
        with open_slot(folder.disk, name) as slot:
            releases = self.fleet.repository.releases.values()
            return next((each.digest for each in releases if check_slot(slot, each.built) is None), None)

    def forgive(self) -> None:
        """What people do by `careen retry` for a machine that lost two trials to us."""
        for node in self.fleet.api.items(f"{OURS}/nodes"):
            retry = node["spec"].get("retry", 0)
            if any(entry["retry"] >= retry for entry in node.get("status", {}).get("rejected", [])):
                self.forgiven += 1
                self.fleet.api.patch(f"{OURS}/nodes/{node['metadata']['name']}", {"spec": {"retry": retry + 1}})

    def is_complete(self) -> bool:
        self.forgive()
        policy = self.fleet.api.get(f"{OURS}/updatepolicies/os")
        status = policy.get("status", {})
        conditions = {entry["type"]: entry["status"] for entry in status.get("conditions", [])}
        current = status.get("observedGeneration") == policy["metadata"]["generation"]
        return current and conditions.get("Complete") == "True"

    def count(self, *doing: str) -> int:
        """How many kills hit machines that were doing one of these."""
        return sum(count for each, count in self.hits.items() if each.startswith(doing))

    def report(self) -> str:
        attempts = sum(node["spec"]["assignment"]["attempt"] for node in self.fleet.api.items(f"{OURS}/nodes"))
        hits = ", ".join(f"{count} × {doing}" for doing, count in sorted(self.hits.items()))
        ways = f"{attempts} further attempts, {self.forgiven} retries, {self.version - 1} rolls"
        return f"{dict(self.parts)}: {hits}; {ways}"


def part_of(node: Manifest) -> str | None:
    """Which part of the ladder a machine is in: staging, activation or none."""
    order, step = node["spec"].get("assignment"), node.get("status", {}).get("step", {})
    if order is None or order["goal"] == "Abort":
        return None
    phase = step.get("phase") if step.get("id") == order["id"] else None
    if phase in ("Committed", "RolledBack", "Failed"):
        return None
    if order["goal"] == "Stage":
        return None if phase == "Staged" else "staging"
    return "activation"


def describe(folder: MachineFolder, part: str) -> str:
    """What the machine is doing, by its own journal."""
    opened = open_order(folder)
    if opened is None:
        return "staging" if part == "staging" else "before arming"
    if opened.verdict:
        return f"verdict {opened.verdict}"
    if BootRecord.load(folder.boot).boot_id != opened.from_boot_id:
        return "on trial"
    return "rebooting" if opened.stage is Stage.REQUESTED else "arming"


def open_order(folder: MachineFolder) -> OpenOrder | None:
    journal = load_journal(folder.journal)
    return journal.open if journal else None


def is_staged(node: Manifest) -> bool:
    """Whether the machine holds the release and has not been heard to activate it."""
    return bool(node["status"].get("step", {}).get("phase") == "Staged")


def is_at_work(pid: int | None, folder: MachineFolder) -> bool:
    """Whether the agent has the machine open; before that it only starts, and its end changes nothing."""
    try:
        return any(fd.resolve() == (folder.state / "lock").resolve() for fd in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


@pytest.fixture
def roll(own_plane: ControlPlane) -> Iterator[Roll]:
    options = SandboxOptions(machines=MACHINES, boot_seconds=0.5, workload=False, lock_max=AT_ONCE)
    with Sandbox(options, cluster=own_plane) as fleet:
        server = ServerThread(fleet.repository).start()
        try:
            yield Roll(fleet, server)
        finally:
            server.stop()


@pytest.mark.slow
def test_killed_at_30_random_points_every_machine_ends_on_a_complete_slot(roll: Roll) -> None:
    fleet = roll.fleet
    for name in fleet.names[::2]:
        fleet.api.patch(f"{OURS}/nodes/{name}", {"spec": {"boot": {"method": "Firmware"}}})
    roll.publish(roll.version)
    roll.server.server.fault = ServerFault.SLOW
    fleet.api.create(f"{OURS}/updatepolicies", roll.policy())
    roll.fire()
    wait_until(roll.is_complete, f"the roll complete after {roll.report()}", PATIENCE)
    wait_until(lambda: not holders(fleet) and not cordoned(fleet), "no lock and no cordon left", 10)
    assert roll.parts == KILLS, roll.report()
    assert roll.count("staging (agent)"), roll.report()
    assert roll.count("staging (power)"), roll.report()
    assert roll.count("before arming", "arming", "rebooting"), roll.report()
    assert roll.count("on trial", "verdict"), roll.report()
    assert fleet.find_ended() == []
    wanted = fleet.repository.find(f"{roll.version}.0.0").digest
    for name in fleet.names:
        folder = MachineFolder(fleet.folder_of(name))
        node, slots = fleet.api.get(f"{OURS}/nodes/{name}"), read_slots(folder.disk)
        booted = SlotName(node["status"]["booted"])
        assert preview(folder.disk) == slots[booted], roll.report()
        assert slots[booted].attributes.good, roll.report()
        assert roll.digest_in(folder, booted) == wanted, roll.report()
        assert slots[booted.other].attributes == GIVEN_UP or roll.digest_in(folder, booted.other), roll.report()
    print(roll.report())


def holders(fleet: Sandbox) -> list[Any]:
    found: list[Any] = fleet.api.get(f"{OURS}/rebootlocks/default").get("status", {}).get("holders", [])
    return found


def cordoned(fleet: Sandbox) -> list[str]:
    nodes = fleet.api.items("/api/v1/nodes")
    marked = [node for node in nodes if "careen.dev/cordoned" in node["metadata"].get("annotations", {})]
    return [node["metadata"]["name"] for node in nodes if node in marked or node["spec"].get("unschedulable")]
