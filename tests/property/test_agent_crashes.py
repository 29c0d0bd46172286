"""One machine in memory under crashes, power cuts, lost journals and every goal at any moment.

The machine obeys `next_step` one action at a time. Before, half-way through and after each action the process may be
killed, or the power cut. Whatever happens, a reset must boot a complete slot, and every order must end.
"""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, replace
from typing import Any

import pytest

from careen.agent.record import Method
from careen.agent.step import (
    AbandonTrial,
    AgentView,
    ArmSlot,
    BootDecision,
    BootView,
    Disarm,
    DiskView,
    Fault,
    HostFacts,
    InvalidateSlot,
    Journal,
    MarkGood,
    RequestActivation,
    RequestReboot,
    SlotView,
    StageImage,
    Step,
    Trouble,
    VerifySlot,
    Wait,
    WriteJournal,
    WriteStatus,
    current_order,
    decode_node,
    next_step,
    next_trouble,
)
from careen.disk.boot import choose, consume
from careen.disk.types import GIVEN_UP, Attributes, SlotName

SIZE = 4096
ENDED = ("Committed", "RolledBack", "Failed", "Idle")


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


@dataclass
class MemorySlot:
    attributes: Attributes
    content: str | None
    record: str | None
    version: str | None = "1.0.0"


class CrashError(Exception):
    """The agent's process is killed, or the power is cut."""


class Machine:
    """Disk and state survive a power cut; `volatile` does not survive the process."""

    def __init__(self, rng: random.Random, *, kexec: bool, fault: str | None) -> None:
        self.rng, self.kexec, self.fault = rng, kexec, fault
        good = Attributes(1, 0, True)
        self.slots = {
            SlotName.A: MemorySlot(good, digest("a"), digest("a")),
            SlotName.B: rng.choice(
                [
                    MemorySlot(GIVEN_UP, None, None, None),
                    MemorySlot(good, digest("0"), digest("0"), "0.9.0"),
                    MemorySlot(Attributes(1, 1, False), digest("0"), digest("0"), "0.9.0"),
                ]
            ),
        }
        self.journal: Journal | None = Journal("machine")
        self.boots = 0
        self.boot(SlotName.A, "Firmware", None)

    def boot(self, slot: SlotName, method: Method, reset: Any) -> None:
        self.boots += 1
        self.booted, self.method, self.reset, self.uptime = slot, method, reset, 0.0
        self.api_answered = False
        self.start()
        content = self.slots[slot].content
        assert content is not None, f"booted a slot that is not complete: {slot}"
        self.trial = content != digest("a")

    def start(self) -> None:
        self.node: dict[str, Any] | None = None
        self.checked: dict[SlotName, str | None] = {SlotName.A: None, SlotName.B: None}
        self.refuted: dict[SlotName, str | None] = {SlotName.A: None, SlotName.B: None}
        self.granted: str | None = None
        self.trouble: Trouble | None = None
        self.requested: tuple[str, SlotName] | None = None

    def power_on(self, reset: Any = None) -> None:
        order = [SlotName.A, SlotName.B]
        chosen = choose([self.slots[name] for name in order])
        assert chosen is not None, "nothing boots"
        chosen.attributes = consume(chosen.attributes)
        self.boot(next(name for name in order if self.slots[name] is chosen), "Firmware", reset)

    def view(self) -> AgentView:
        def show(name: SlotName) -> SlotView:
            slot = self.slots[name]
            known = (slot.record, slot.version, self.checked[name], self.refuted[name])
            return SlotView(3 if name is SlotName.A else 4, 1 << 20, slot.attributes, *known)

        return AgentView(
            node=decode_node(self.node) if self.node else None,
            api_answered=self.api_answered,
            journal=self.journal,
            disk=DiskView(self.booted, show(SlotName.A), show(SlotName.B)),
            boot=BootView(f"boot-{self.boots}", "machine", self.method, self.reset, self.uptime),
            facts=HostFacts(
                kexec=self.kexec,
                boot_decision=BootDecision("Kexec" if self.kexec else "Firmware", "Drawn", "", "TrialTimer"),
            ),
            unhealthy="sick" if self.trial and self.fault == "unhealthy" else None,
            granted=self.granted,
            trouble=self.trouble,
        )

    def check(self) -> None:
        """Any reset now boots a complete slot; and the running slot is complete."""
        chosen = choose([self.slots[SlotName.A], self.slots[SlotName.B]])
        assert chosen is not None, f"nothing would boot: {self.slots}"
        assert chosen.content is not None, f"a reset would boot a half-written slot: {self.slots}"
        assert self.slots[self.booted].content is not None


class Api:
    """The Node, and an operator that only climbs the ladder."""

    def __init__(self) -> None:
        self.version = 1
        self.uid = 1
        self.accepted: set[str] = set()
        self.node: dict[str, Any] = {}
        self.make_node()

    def make_node(self) -> None:
        metadata = {"uid": f"uid-{self.uid}", "resourceVersion": str(self.version)}
        self.node = {"metadata": metadata, "spec": {}, "status": {}}

    def bump(self) -> None:
        self.version += 1
        self.node["metadata"]["resourceVersion"] = str(self.version)

    def order(self, machine_boot: str | None, **changes: Any) -> None:
        assignment = {**self.node["spec"].get("assignment", {}), **changes}
        if changes.get("goal") == "Activate":
            assignment["fromBootID"] = machine_boot
        self.node["spec"]["assignment"] = assignment
        self.bump()

    @property
    def step(self) -> dict[str, Any]:
        step: dict[str, Any] = self.node["status"].get("step", {})
        return step

    def merge(self, patch: dict[str, Any]) -> None:
        def apply(target: dict[str, Any], change: dict[str, Any]) -> None:
            for key, value in change.items():
                if value is None:
                    target.pop(key, None)
                elif isinstance(value, dict):
                    apply(target.setdefault(key, {}), value)
                else:
                    target[key] = value

        apply(self.node["status"], copy.deepcopy(patch))
        self.bump()

    def patch_json(self, patch: tuple[Any, ...]) -> bool:
        for op in patch:
            at: Any = self.node
            keys = op["path"].strip("/").split("/")
            for key in keys[:-1]:
                at = at.get(key) or {}
            if op["op"] == "test" and at.get(keys[-1]) != op["value"]:
                return False
            if op["op"] == "add":
                at[keys[-1]] = copy.deepcopy(op["value"])
                self.bump()
        return True


def assignment(order: str, letter: str, lost: int = 0) -> dict[str, Any]:
    release = {
        "repository": "http://r",
        "version": f"2.0.{letter}",
        "digest": digest(letter),
        "sizeBytes": SIZE,
        "path": letter,
    }
    terms = {
        "lock": "default",
        "readySeconds": 0,
        "verifyTimeoutSeconds": 60,
        "commitTimeoutSeconds": 20,
        "onSilence": "Rollback",
        "bootMethod": "Auto",
        "drainTimeoutSeconds": 60,
    }
    return {
        "id": order,
        "policy": {"name": "p", "uid": "p"},
        "rollout": "1",
        "release": release,
        "lostAttempts": lost,
        "goal": "Stage",
        "terms": terms,
    }


def carry_out(machine: Machine, api: Api, step: Step, chance: float) -> None:
    """One action, with a crash of the process or the power before, half-way through or after it."""
    rng = machine.rng

    def risk() -> None:
        if rng.random() < chance:
            raise CrashError

    risk()
    match step:
        case WriteStatus(_, status, _):
            api.merge(dict(status))
            risk()
            machine.node = copy.deepcopy(api.node)
        case RequestActivation(_, order, patch):
            accepted = api.patch_json(patch)
            if accepted:
                api.accepted.add(order)
            risk()
            machine.node = copy.deepcopy(api.node)
            machine.granted = order if accepted else None
        case WriteJournal(journal):
            machine.journal = journal
        case InvalidateSlot(name):
            assert name is not machine.booted
            assert machine.slots[machine.booted].attributes.good
            machine.slots[name].record = machine.slots[name].version = None
            risk()
            machine.slots[name].attributes = GIVEN_UP
        case StageImage():
            stage(machine, step, risk)
        case VerifySlot(name, wanted, _, version, purpose):
            slot = machine.slots[name]
            if slot.content == wanted:
                slot.record, slot.version, machine.checked[name] = wanted, version, purpose
            else:
                machine.refuted[name] = wanted
                slot.record = None if slot.record == wanted else slot.record
        case ArmSlot(name, method):
            assert machine.slots[machine.booted].attributes.good
            assert machine.slots[name].content is not None
            assert api.accepted, "armed without a word from the API server"
            machine.slots[name].attributes = Attributes(2, 0 if method == "Kexec" else 1, False)
            machine.slots[machine.booted].attributes = Attributes(1, 0, True)
        case Disarm(name):
            assert name is not machine.booted
            if not machine.slots[name].attributes.successful:
                machine.slots[name].attributes = GIVEN_UP
        case MarkGood(name):
            assert name is machine.booted
            machine.slots[name].attributes = Attributes(2, 0, True)
            other = machine.slots[name.other]
            other.attributes = replace(other.attributes, priority=min(1, other.attributes.priority))
        case AbandonTrial(name):
            assert name is machine.booted
            assert machine.slots[name.other].attributes.good
            machine.slots[name].attributes = GIVEN_UP
        case RequestReboot(method, name):
            reboot(machine, method, name)
        case Wait():
            machine.uptime += 5
            machine.node = copy.deepcopy(api.node)
            machine.api_answered = True
    machine.check()
    risk()


def stage(machine: Machine, step: StageImage, risk: Any) -> None:
    slot = machine.slots[step.slot]
    assert step.slot is not machine.booted
    assert slot.attributes == GIVEN_UP
    slot.record, slot.content = None, None
    machine.check()
    risk()
    if machine.rng.random() < 0.2:
        fault = Fault("Transfer", "the body is short")
        order = current_order(machine.view())
        machine.trouble = next_trouble(machine.trouble, order, "StageImage", fault, now=machine.uptime)
        return
    slot.content = slot.record = step.digest
    slot.version, machine.checked[step.slot] = step.version, "stage"
    machine.refuted[step.slot] = machine.trouble = None


def reboot(machine: Machine, method: Method, name: SlotName) -> None:
    if method == "Firmware":
        machine.power_on()
    else:
        machine.boot(name, "Kexec", None)
    if machine.trial and machine.fault == "panic" and not machine.slots[machine.booted].attributes.successful:
        machine.power_on("Panic")


def drive(seed: int, *, chance: float, rounds: int = 150) -> tuple[Machine, Api, random.Random]:
    rng = random.Random(seed)
    fault = rng.choice([None, None, "panic", "unhealthy"])
    machine, api = Machine(rng, kexec=rng.random() < 0.5, fault=fault), Api()
    api.node["spec"]["assignment"] = assignment("order-1", "b")
    abort_at, lose_at, forget_at = (rng.randrange(120) for _ in range(3))
    abort, lose, forget = (rng.random() < share for share in (0.3, 0.2, 0.2))
    for turn in range(2 * rounds):
        climb(api)
        if abort and turn == abort_at and api.step.get("phase") not in ("Committed", "RolledBack"):
            api.order(None, goal="Abort", cause=rng.choice(["People", "Withdrawn", "GateFailed"]))
        if lose and turn == lose_at:
            machine.journal = None
            machine.start()
        if forget and turn == forget_at:
            kept = api.node["spec"]["assignment"]
            api.uid += 1
            api.make_node()
            api.node["spec"]["assignment"] = kept
            api.bump()
        crashy = chance if turn < rounds else 0.0
        step = next_step(machine.view())
        if (
            turn > rounds
            and step == Wait()
            and machine.node == api.node
            and machine.journal
            and not machine.journal.open
        ):
            break
        try:
            carry_out(machine, api, step, crashy)
        except CrashError:
            machine.power_on() if rng.random() < 0.4 else machine.start()
        machine.check()
    return machine, api, rng


def climb(api: Api) -> None:
    order, step = api.node["spec"]["assignment"], api.step
    if step.get("id") != order["id"]:
        return
    if order["goal"] == "Stage" and step["phase"] == "Staged":
        api.order(api.node["status"]["bootID"], goal="Activate")
    elif (order["goal"], step["phase"]) == ("Activate", "Verifying") and (
        api.node["status"]["bootID"] != order["fromBootID"]
    ):
        api.order(None, goal="Commit")


@pytest.mark.parametrize("block", range(8))
def test_every_order_ends_on_a_complete_slot(block: int) -> None:
    for seed in range(block * 75, block * 75 + 75):
        machine, api, _ = drive(seed, chance=0.06)
        step, order = api.step, api.node["spec"]["assignment"]
        told = f"seed {seed}: {step}, {order['goal']}, {machine.journal}, {machine.slots}"
        assert step["id"] == "order-1", told
        assert step["phase"] in ENDED, told
        assert step["observedGoal"] == order["goal"], told
        assert machine.journal is not None, told
        assert machine.journal.open is None, told
        booted = machine.slots[machine.booted]
        assert booted.attributes.good, told
        assert (booted.content == digest("b")) == (step["phase"] == "Committed"), told
        assert api.node["status"]["bootID"] == f"boot-{machine.boots}", told
        slots = api.node["status"]["slots"]
        for name, slot in machine.slots.items():
            assert slots[name.value]["priority"] == slot.attributes.priority, told
        if step["phase"] == "RolledBack":
            assert machine.slots[SlotName.B].attributes == GIVEN_UP, told


def test_without_trouble_an_update_takes_few_writes() -> None:
    seeds = [seed for seed in range(400) if random.Random(seed).choice([None, None, "panic", "unhealthy"]) is None]
    for seed in seeds[:20]:
        rng = random.Random(seed)
        machine, api = Machine(rng, kexec=True, fault=None), Api()
        api.node["spec"]["assignment"] = assignment("order-1", "b")
        writes = 0
        for _ in range(60):
            climb(api)
            step = next_step(machine.view())
            if isinstance(step, StageImage):
                machine.rng = random.Random(1)
            writes += isinstance(step, WriteStatus | RequestActivation)
            carry_out(machine, api, step, 0.0)
        assert api.step["phase"] == "Committed"
        assert writes <= 6
        assert isinstance(next_step(machine.view()), Wait)


@pytest.mark.parametrize("fault", ["panic", "unhealthy"])
def test_a_bad_release_is_rolled_back_and_not_tried_again(fault: str) -> None:
    machine, api = Machine(random.Random(1), kexec=True, fault=fault), Api()
    api.node["spec"]["assignment"] = assignment("order-1", "b")
    expected = {"panic": "Panic", "unhealthy": "LocalGate"}[fault]
    for _ in range(80):
        climb(api)
        carry_out(machine, api, next_step(machine.view()), 0.0)
    assert (api.step["phase"], api.step["cause"]) == ("RolledBack", expected)
    assert api.node["status"]["rejected"] == [{"digest": digest("b"), "cause": expected, "retry": 0}]
    api.node["spec"]["assignment"] = assignment("order-2", "b")
    for _ in range(10):
        carry_out(machine, api, next_step(machine.view()), 0.0)
    assert api.step["error"]["class"] == "Refused"
    api.node["spec"]["retry"] = 1
    machine.fault = None
    for _ in range(80):
        climb(api)
        carry_out(machine, api, next_step(machine.view()), 0.0)
    assert api.step["phase"] == "Committed"
