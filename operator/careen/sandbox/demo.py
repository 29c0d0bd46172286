"""The demo: six machines go from 1.0.0 to 2.0.0 by themselves, and a broken 2.1.0 stops at its first machine.

A systemd unit runs on one of them all the while, and is elsewhere whenever its machine boots.

What is told at the end was seen by an independent watch, on the disks, and in the API server's audit log; nothing is
taken from the operator's word alone.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from careen.api.meta import AGENT_USER, API_VERSION, OPERATOR_USER
from careen.disk.boot import choose_entry
from careen.disk.ext4 import read_ext4_file
from careen.disk.table import open_table
from careen.disk.types import Attributes
from careen.kube.resources import CORE_NODES, NODES, POLICIES, UNITS
from careen.kube.session import Session
from careen.kube.write import create, patch_merge
from careen.sandbox.audit import AuditReader, Request
from careen.sandbox.firmware import OS_RELEASE, Fault
from careen.sandbox.nodes import ZONE_LABEL
from careen.sandbox.up import NEXT_VERSION, Sandbox
from careen.sandbox.witness import Document, Moment, Witness

BROKEN_VERSION = "2.1.0"
POLICY = "os"
UNIT = "hello.service"
UNIT_FILE = """[Unit]
Description=A unit that moves away before its machine boots

[Service]
ExecStart=/usr/bin/sleep infinity
"""
MACHINES, ZONES = 6, 3
MAX_UNAVAILABLE, MAX_IN_ZONE = 2, 1
SOAK_SECONDS = 3
UNIT_SECONDS, GOOD_SECONDS, BROKEN_SECONDS = 30.0, 90.0, 60.0
QUIET_SECONDS, IDLE_SECONDS = 2.0, 10.0
SETTLE_SECONDS = 0.5
"""How long one watch may lag behind another before what they saw is judged."""
OUR_ACCOUNTS = (OPERATOR_USER, AGENT_USER)

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Good:
    """The update that works."""

    machines: int
    updated: int
    """Machines that run 2.0.0 and would boot it again, by what is on their disks."""
    seconds: float
    """From the policy's creation to its condition Complete."""
    max_unavailable_seen: int
    """Most machines down at once, by the independent watch."""
    max_in_zone_seen: int
    """The same within one zone."""


@dataclass(frozen=True)
class Broken:
    """The release that does not boot."""

    rolled_back: int
    """Machines that tried it and are back on 2.0.0."""
    untouched: int
    """Machines that were never down and whose disks are as before."""
    halted: bool
    reason: str
    """Reason and sentence of the policy's condition Halted."""


@dataclass(frozen=True)
class Moved:
    """The unit that ran during both updates, by what the agents told."""

    runs: int
    """Machines on which it runs at the end."""
    moves: int
    """How often it came to another machine."""
    interrupted: int
    """Boots of a machine while the unit still ran there."""


@dataclass(frozen=True)
class Idle:
    """The fleet at rest; Leases do not count."""

    seconds: float
    writes: int
    lists: int


@dataclass(frozen=True)
class Result:
    """What the demo has shown."""

    ok: bool
    good: Good
    broken: Broken
    units: Moved
    idle: Idle

    def dump(self) -> dict[str, Any]:
        """The JSON document of `careen sandbox demo --json`."""
        good, broken = self.good, self.broken
        return {
            "ok": self.ok,
            "good": {
                "machines": good.machines,
                "updated": good.updated,
                "seconds": round(good.seconds, 1),
                "maxUnavailableSeen": good.max_unavailable_seen,
            },
            "broken": {
                "rolledBack": broken.rolled_back,
                "untouched": broken.untouched,
                "halted": broken.halted,
                "reason": broken.reason,
            },
            "units": asdict(self.units),
            "idle": asdict(self.idle),
        }


@dataclass(frozen=True)
class Disk:
    """What is on one machine's disk."""

    boots: str
    """Version in the slot that the firmware would choose."""
    good: bool
    """Whether that slot is marked good."""
    table: tuple[Attributes, ...]
    """Attributes of both slots."""


def demo_policy(repository: str, version: str = NEXT_VERSION) -> Document:
    """The policy of the demo: a canary that soaks, then the rest, two at once and one a zone."""
    return {
        "apiVersion": API_VERSION,
        "kind": "UpdatePolicy",
        "metadata": {"name": POLICY},
        "spec": {
            "release": {"repository": repository, "version": version},
            "strategy": {
                "maxUnavailable": MAX_UNAVAILABLE,
                "topology": [{"key": ZONE_LABEL, "maxUnavailable": MAX_IN_ZONE}],
                "waves": [{"name": "canary", "count": 1, "soakSeconds": SOAK_SECONDS}],
            },
        },
    }


def demo_unit() -> Document:
    """The unit of the demo: it may run anywhere."""
    spec = {"content": UNIT_FILE, "desiredState": "launched"}
    return {"apiVersion": API_VERSION, "kind": "Unit", "metadata": {"name": UNIT}, "spec": spec}


async def play(sandbox: Sandbox, witness: Witness, session: Session, tell: Tell) -> Result:
    """Play the demo on a sandbox that is up; `tell` hears each turn. TimeoutError when something does not happen."""
    await _start_unit(witness, session, tell)
    good = await _update(sandbox, witness, session, tell)
    broken = await _break(sandbox, witness, session, tell)
    units = judge_unit(witness, sandbox.names)
    idle = await _rest(sandbox, tell)
    ok = (
        good.updated == good.machines == len(sandbox.names)
        and 0 < good.max_unavailable_seen <= MAX_UNAVAILABLE
        and good.max_in_zone_seen <= MAX_IN_ZONE
        and (broken.rolled_back, broken.untouched, broken.halted) == (1, len(sandbox.names) - 1, True)
        and (units.runs, units.interrupted) == (1, 0)
        and units.moves > 0
        and (idle.writes, idle.lists) == (0, 0)
    )
    return Result(ok, good, broken, units, idle)


async def _start_unit(witness: Witness, session: Session, tell: Tell) -> None:
    await create(session, UNITS, demo_unit())
    where = await witness.until(find_unit, f"{UNIT} runs", UNIT_SECONDS)
    tell(f"careen unit start: {UNIT} runs on {', '.join(where)}")


async def _update(sandbox: Sandbox, witness: Witness, session: Session, tell: Tell) -> Good:
    tell(f"kubectl apply: UpdatePolicy {POLICY} asks for {NEXT_VERSION}")
    since, started = latest(witness).version, time.monotonic()
    await create(session, POLICIES, demo_policy(sandbox.releases))
    await witness.until(lambda seen: holds(seen, "Complete"), f"policy {POLICY} Complete", GOOD_SECONDS)
    seconds = time.monotonic() - started
    tell(f"Complete after {seconds:.1f} s")
    await asyncio.sleep(SETTLE_SECONDS)
    moments = [moment.unavailable for moment in witness.replay() if moment.version > since]
    disks = await asyncio.to_thread(_read_disks, sandbox)
    updated = sum(
        disk.boots == NEXT_VERSION and disk.good and runs(witness, name) == NEXT_VERSION for name, disk in disks.items()
    )
    return Good(
        machines=len(disks),
        updated=updated,
        seconds=seconds,
        max_unavailable_seen=max(map(len, moments), default=0),
        max_in_zone_seen=max((count_worst_zone(witness, down) for down in moments), default=0),
    )


async def _break(sandbox: Sandbox, witness: Witness, session: Session, tell: Tell) -> Broken:
    before, since = await asyncio.to_thread(_read_disks, sandbox), latest(witness).version
    boots = {name: boot_of(witness, name) for name in sandbox.names}
    await asyncio.to_thread(sandbox.publish, BROKEN_VERSION, Fault.PANIC)
    tell(f"{BROKEN_VERSION} is published, whose kernel panics; the policy asks for it")
    await patch_merge(session, POLICIES, POLICY, {"spec": {"release": {"version": BROKEN_VERSION}}})
    what = f"rollout of {BROKEN_VERSION} halted and all machines back"
    await witness.until(lambda seen: holds(seen, "Halted") and not latest(seen).unavailable, what, BROKEN_SECONDS)
    await asyncio.sleep(SETTLE_SECONDS)
    down = {name for moment in witness.replay() if moment.version > since for name in moment.unavailable}
    after = await asyncio.to_thread(_read_disks, sandbox)
    back = [
        name
        for name in sandbox.names
        if was_rolled_back(witness, name) and runs(witness, name) == after[name].boots == NEXT_VERSION
    ]
    untouched = [
        name
        for name in sandbox.names
        if name not in down and boot_of(witness, name) == boots[name] and after[name] == before[name]
    ]
    halted = find_condition(witness.live[POLICIES].get(POLICY), "Halted")
    tell(f"{', '.join(back) or 'no machine'} went back by itself; the rollout is halted")
    reason = f"{halted.get('reason')}: {halted.get('message')}"
    return Broken(len(back), len(untouched), halted.get("status") == "True", reason)


async def _rest(sandbox: Sandbox, tell: Tell) -> Idle:
    """Count what our accounts ask of the API server while nothing is to be done."""
    tell(f"idle for {IDLE_SECONDS:g} s")
    await asyncio.sleep(QUIET_SECONDS)
    assert sandbox.cluster.audit_log is not None, "the demo makes a control plane of its own"
    reader = AuditReader(sandbox.cluster.audit_log)
    started = time.monotonic()
    await asyncio.sleep(IDLE_SECONDS)
    counted = [request for request in reader.read() if _is_ours(request)]
    return Idle(
        seconds=round(time.monotonic() - started, 1),
        writes=sum(request.is_write for request in counted),
        lists=sum(request.verb == "list" for request in counted),
    )


def _is_ours(request: Request) -> bool:
    return request.user in OUR_ACCOUNTS and request.resource != "leases"


def latest(witness: Witness) -> Moment:
    """What is true now, as far as the watches have come."""
    moment = Moment()
    for moment in witness.replay():  # noqa: B007
        pass
    return moment


def count_worst_zone(witness: Witness, down: Iterable[str]) -> int:
    """Most of these machines that are in one zone."""
    zones = Counter(zone_label(witness.live[CORE_NODES].get(name)) for name in down)
    return max(zones.values(), default=0)


def zone_label(core: Document | None) -> str:
    """The zone of a core Node; empty when it has none."""
    return str(((core or {}).get("metadata", {}).get("labels") or {}).get(ZONE_LABEL, ""))


def holds(witness: Witness, condition: str) -> bool:
    """Whether the policy's condition is True for the policy as it is now."""
    policy = witness.live[POLICIES].get(POLICY)
    found = find_condition(policy, condition)
    current = policy is not None and found.get("observedGeneration") == policy["metadata"]["generation"]
    return current and found.get("status") == "True"


def find_condition(document: Document | None, name: str) -> Document:
    """A condition of an object; empty when it has none of that name."""
    conditions = ((document or {}).get("status") or {}).get("conditions") or ()
    return next((each for each in conditions if each["type"] == name), {})


def runs(witness: Witness, name: str) -> str:
    """Version that the machine's agent reports."""
    status = (witness.live[NODES].get(name) or {}).get("status") or {}
    slot = (status.get("slots") or {}).get(status.get("booted")) or {}
    return str(slot.get("version") or "")


def boot_of(witness: Witness, name: str) -> str:
    """Boot id that the machine's kubelet reports."""
    core = witness.live[CORE_NODES].get(name) or {}
    return str(core.get("status", {}).get("nodeInfo", {}).get("bootID", ""))


def was_rolled_back(witness: Witness, name: str) -> bool:
    """Whether the machine was seen to activate the broken release and to go back from it."""
    activated = went_back = False
    for node in witness.history(NODES, name):
        order = (node.get("spec") or {}).get("assignment") or {}
        step = (node.get("status") or {}).get("step") or {}
        if order.get("release", {}).get("version") == BROKEN_VERSION and step.get("id") == order.get("id"):
            activated |= step.get("phase") == "Activating"
            went_back |= activated and step.get("phase") == "RolledBack"
    return went_back


def find_unit(witness: Witness) -> list[str]:
    """Machines on which the unit runs now, as their agents tell."""
    return [name for name, node in witness.live[NODES].items() if _runs_unit(node)]


def judge_unit(witness: Witness, machines: Iterable[str]) -> Moved:
    """What happened to the unit from its start on."""
    moves, interrupted = -1, 0
    for name in machines:
        boot, ran = "", False
        for node in witness.history(NODES, name):
            status = node.get("status") or {}
            if boot and status.get("bootID") != boot:
                interrupted += ran
                ran = False
            moves += _runs_unit(node) and not ran
            boot, ran = status.get("bootID", ""), _runs_unit(node)
    return Moved(len(find_unit(witness)), moves, interrupted)


def _runs_unit(node: Document) -> bool:
    reports = (node.get("status") or {}).get("units") or ()
    return any(each["name"] == UNIT and each["active"] == "active" for each in reports)


def _read_disks(sandbox: Sandbox) -> dict[str, Disk]:
    return {name: read_disk(sandbox.folder_of(name) / "disk.img") for name in sandbox.names}


def read_disk(path: Path) -> Disk:
    """Look at a machine's disk as its firmware would."""
    with open_table(path) as opened:
        chosen = choose_entry(opened.table)
        slots = tuple(entry.attributes for entry in opened.table.entries if entry.label.startswith("USR-"))
    if chosen is None:
        return Disk("", good=False, table=slots)
    lines = read_ext4_file(path, chosen.start, OS_RELEASE).decode().splitlines()
    version = next(line.partition("=")[2] for line in lines if line.startswith("VERSION_ID="))
    return Disk(version, chosen.attributes.successful, slots)


def explain_result(result: Result) -> list[str]:
    """The figures as sentences."""
    good, broken, units, idle = result.good, result.broken, result.units, result.idle
    down = f"{good.max_unavailable_seen} down at once (allowed: {MAX_UNAVAILABLE})"
    zone = f"{good.max_in_zone_seen} in one zone (allowed: {MAX_IN_ZONE})"
    halted = "halted" if broken.halted else "NOT halted"
    return [
        f"{NEXT_VERSION}: {good.updated} of {good.machines} machines updated in {good.seconds:.1f} s",
        f"       at most {down}, {zone}",
        f"{BROKEN_VERSION}: {broken.rolled_back} machine back by itself, {broken.untouched} never touched; {halted}",
        f"       {broken.reason}",
        f"unit:  {UNIT} moved {units.moves} times; boots while it ran there: {units.interrupted}",
        f"idle:  {idle.writes} writes and {idle.lists} lists by operator and agents in {idle.seconds:g} s",
        "all of it was observed" if result.ok else "NOT all of it was observed",
    ]
