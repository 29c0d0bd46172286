"""Bad releases, from a policy to the disk: never armed, told in the status, tried again with longer pauses."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

import pytest

from careen.agent.imagehost import MachineFolder
from careen.agent.staging.slot import check_slot, hash_slot
from careen.agent.staging.transfer import TRIES_PER_MIRROR
from careen.disk.boot import preview
from careen.disk.image import open_slot
from careen.disk.table import read_slots
from careen.disk.types import GIVEN_UP, SlotName
from careen.sandbox.client import Api, wait_until
from careen.sandbox.controlplane import ControlPlane
from careen.sandbox.machine import SLOT_BYTES
from careen.sandbox.proxy import Proxy
from careen.sandbox.releases import ServerFault
from careen.sandbox.serving import ServerThread
from careen.sandbox.up import OUR_LOCKS, Sandbox, SandboxOptions

OURS = "/apis/careen.dev/v1alpha1"
GOOD, TOO_LARGE = "2.0.0", "9.0.0"
TRIES = 4
PATIENCE = 60.0


@dataclass
class Case:
    """One machine, one policy and one release server of its own, with one thing wrong."""

    machine: str
    wrong: str
    class_: str
    words: str
    """What the sentence in the status has to say, as a regular expression."""
    fault: ServerFault | None = None
    version: str = GOOD
    server: ServerThread = field(init=False)
    line: Proxy = field(init=False)
    """Between the machine and the server; what is cut when the server can't be reached."""
    content: str = ""
    """Digest of the running slot, to its last byte."""
    seen: set[tuple[str, str]] = field(default_factory=set)
    """Classes and sentences of errors that the machine reported."""
    phases: set[str] = field(default_factory=set)
    notes: set[tuple[str, str]] = field(default_factory=set)
    """Reasons and sentences of the operator."""

    @property
    def retried(self) -> bool:
        """Whether another try could succeed: what is larger than the partition stays so."""
        return self.version != TOO_LARGE

    def spoil(self) -> None:
        self.server.server.fault = self.fault
        if self.wrong == "unreachable":
            self.line.cut()

    def heal(self, api: Api) -> None:
        """Put right what was wrong, and nothing else."""
        self.server.server.fault = None
        self.line.restore()
        if not self.retried:
            release = {"repository": self.url, "version": GOOD}
            api.patch(f"{OURS}/updatepolicies/{self.machine}", {"spec": {"release": release}})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.line.port}"

    def policy(self) -> dict[str, Any]:
        return {
            "apiVersion": "careen.dev/v1alpha1",
            "kind": "UpdatePolicy",
            "metadata": {"name": self.machine},
            "spec": {
                "selector": {"matchLabels": {"kubernetes.io/hostname": self.machine}},
                "release": {"repository": self.url, "version": self.version},
                # Until the release is resolved, since the index comes from the same server.
                "paused": True,
            },
        }


def make_cases() -> list[Case]:
    return [
        Case("machine-1", "truncated", "Transfer", r"after \d+ of \d+ bytes", ServerFault.TRUNCATED),
        Case("machine-2", "wrong hash", "Integrity", r"signed: ", ServerFault.WRONG_BYTES),
        Case("machine-3", "more than declared", "Size", r"more than the \d+ bytes declared", ServerFault.TOO_LARGE),
        Case("machine-4", "unreachable", "Transfer", r"http://127.0.0.1:"),
        Case("machine-5", "larger than the partition", "Size", r"room for 8388608", version=TOO_LARGE),
    ]


@dataclass
class World:
    """A fleet, and a bad release for each of its machines."""

    fleet: Sandbox
    cases: list[Case]

    def folder(self, case: Case) -> MachineFolder:
        return MachineFolder(self.fleet.folder_of(case.machine))

    def watch(self) -> None:
        """Look at every disk, status and lock, until each machine has failed often enough."""
        deadline = time.monotonic() + PATIENCE
        while not all(self.is_seen(case) for case in self.cases):
            assert time.monotonic() < deadline, [(case.wrong, case.seen, case.notes) for case in self.cases]
            nodes = {node["metadata"]["name"]: node for node in self.fleet.api.items(f"{OURS}/nodes")}
            for case in self.cases:
                note_status(case, nodes[case.machine]["status"])
                self.check_disk(case)
            assert self.fleet.api.get(f"{OUR_LOCKS}/default")["status"].get("holders", []) == []
            time.sleep(0.1)

    def is_seen(self, case: Case) -> bool:
        tried = len(self.failures(case)) >= TRIES or not case.retried
        return tried and any(reason == "StagingFailed" for reason, _ in case.notes)

    def check_disk(self, case: Case) -> None:
        """The new slot can't boot, and the old one is as it was."""
        slots = read_slots(self.folder(case).disk)
        assert (slots.b.attributes, slots.a.attributes.good) == (GIVEN_UP, True), case.wrong

    def hash_running(self, case: Case) -> str:
        with open_slot(self.folder(case).disk, SlotName.A) as slot:
            assert slot.size == SLOT_BYTES
            return hash_slot(slot, slot.size)

    def failures(self, case: Case) -> list[float]:
        """When the agent gave up a try, in seconds, by its log."""
        text = (self.fleet.logs / f"{case.machine}.log").read_text()
        lines = re.findall(r"^(\S+ \S+) WARNING .*StageImage for \S+ failed: (\w+)", text, re.MULTILINE)
        return [datetime.strptime(at, "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp() for at, _ in lines]

    def requests(self, case: Case) -> int:
        """How often the image's index was asked for; nothing else is asked for before it is there."""
        path = self.fleet.repository.find(case.version).built.tree.path
        return case.server.server.requests.count(path)

    def find_rollout(self, case: Case) -> Any:
        return self.fleet.api.get(f"{OURS}/updatepolicies/{case.machine}").get("status", {}).get("rollout")

    def is_complete(self, case: Case) -> bool:
        status = self.fleet.api.get(f"{OURS}/updatepolicies/{case.machine}").get("status", {})
        conditions = {entry["type"]: entry["status"] for entry in status.get("conditions", [])}
        return conditions.get("Complete") == "True" and status["rollout"]["version"] == GOOD


def note_status(case: Case, status: dict[str, Any]) -> None:
    step, note = status.get("step", {}), status.get("orchestration", {})
    case.phases.add(step.get("phase", "Idle"))
    if error := step.get("error"):
        case.seen.add((error["class"], error["message"]))
    if note:
        case.notes.add((note["reason"], note["message"]))


@pytest.fixture
def world(own_plane: ControlPlane) -> Iterator[World]:
    cases = make_cases()
    options = SandboxOptions(
        machines=len(cases), zones=1, workload=False, in_process=True, boot_seconds=0.2, lock_max=len(cases)
    )
    with ExitStack() as stack:
        fleet = stack.enter_context(Sandbox(options, cluster=own_plane))
        fleet.repository.publish(TOO_LARGE, filesystem_bytes=SLOT_BYTES)
        for case in cases:
            case.server = ServerThread(fleet.repository).start()
            stack.callback(case.server.stop)
            case.line = stack.enter_context(Proxy(int(case.server.url.rpartition(":")[2])))
        yield World(fleet, cases)


@pytest.mark.slow
def test_a_bad_release_is_never_armed_and_is_rolled_out_once_it_is_good(world: World) -> None:
    api, cases = world.fleet.api, world.cases
    for case in cases:
        case.content = world.hash_running(case)
        api.create(f"{OURS}/updatepolicies", case.policy())
    for case in cases:
        path = f"{OURS}/updatepolicies/{case.machine}"
        wait_until(partial(world.find_rollout, case), "a resolved release", 10)
        case.spoil()
        api.patch(path, {"spec": {"paused": False}})
    world.watch()
    for case in cases:
        check_report(case)
        check_tries(world, case)
        assert world.hash_running(case) == case.content, case.wrong
        assert api.get(f"{OURS}/nodes/{case.machine}")["status"]["booted"] == "A"
    for case in cases:
        case.heal(api)
    wait_until(lambda: all(map(world.is_complete, cases)), "all rollouts complete once the servers are well", PATIENCE)
    wanted = world.fleet.repository.find(GOOD)
    for case in cases:
        chosen = preview(world.folder(case).disk)
        assert chosen is not None
        assert (chosen.name, chosen.attributes.good) == (SlotName.B, True)
        with open_slot(world.folder(case).disk, SlotName.B) as slot:
            assert check_slot(slot, wanted.built) is None


def check_report(case: Case) -> None:
    """The machine and the operator both say what is wrong, and nothing else."""
    assert {class_ for class_, _ in case.seen} == {case.class_}, (case.wrong, case.seen)
    assert all(re.search(case.words, message) for _, message in case.seen), (case.wrong, case.seen)
    assert case.phases <= {"Idle", "Staging", "Failed"}, (case.wrong, case.phases)
    said = [message for reason, message in case.notes if reason == "StagingFailed"]
    assert all(re.search(f"^{case.class_}: .*{case.words}", message) for message in said), (case.wrong, said)


def check_tries(world: World, case: Case) -> None:
    """Tries with longer and longer pauses between them; none at all for what can't ever fit."""
    times = world.failures(case)
    pauses = [round(later - sooner, 2) for sooner, later in itertools.pairwise(times)]
    if not case.retried:
        assert (times, world.requests(case)) == ([], 0)
        return
    assert len(times) in (TRIES, TRIES + 1), (case.wrong, pauses)
    # 1, 2, 4 seconds, each changed by up to a fifth; then the time of the try itself, which asks three times.
    for index, pause in enumerate(pauses):
        # The log line of a failure may come a moment after its pause has begun.
        assert 0.8 * 2**index - 0.1 <= pause <= 1.2 * 2**index + 6.0, (case.wrong, pauses)
    # One more try may be on its way.
    tries = (0, 0) if case.wrong == "unreachable" else (len(times), len(times) + 1)
    asked = world.requests(case)
    assert tries[0] * TRIES_PER_MIRROR <= asked <= tries[1] * TRIES_PER_MIRROR, (case.wrong, asked, pauses)
