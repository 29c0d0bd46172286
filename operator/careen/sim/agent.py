"""An agent process: it obeys the agent's own `next_step`, one step at a time, and may die at each point of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from careen.agent.step import (
    AbandonTrial,
    AgentView,
    ArmSlot,
    BootView,
    Disarm,
    DiskView,
    DropReset,
    Fault,
    HostFacts,
    InvalidateSlot,
    MarkGood,
    Moved,
    PrepareReset,
    RepairTable,
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
    next_step,
    next_trouble,
    report_progress,
    still_wanted,
)
from careen.disk.types import GIVEN_UP, SlotName

from .api import AGENTS_STATUS, Item, Refused, merge, patch_json
from .disk import GARBAGE
from .schedule import BrokenError

if TYPE_CHECKING:
    from .machine import Machine

CAPACITY = 1 << 20


class _DeadError(Exception):
    """The process or the machine died in the middle of a step."""


class Agent:
    """The process and what it holds in memory. `life` counts its starts and deaths; `ticket` its plans to think."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.alive = False
        self.life = self._ticket = 0
        self.due = 0.0
        """When the last change of the Node arrives here: the watch keeps their order."""
        self._forget()

    def _forget(self) -> None:
        self.seen: Item | None = None
        self.checked: dict[SlotName, str | None] = {SlotName.A: None, SlotName.B: None}
        self.refuted: dict[SlotName, str | None] = {SlotName.A: None, SlotName.B: None}
        self.granted: str | None = None
        self.trouble: Trouble | None = None
        self.request_failed: str | None = None
        self.api_not_before = 0.0
        self.moved = Moved()
        self._busy = False
        self._staging: StageImage | None = None

    def start(self) -> None:
        """A new process."""
        self.life += 1
        self.alive = True
        self._forget()
        self._after(self.machine.world.dice.uniform(0.1, 3.0), self._read)
        self._think_soon()

    def kill(self) -> None:
        """The process is gone, with all it knew."""
        self.life += 1
        self.alive = False
        self.machine.lose_contact()

    def hear(self, item: Item | None) -> None:
        """The watch on the own Node brings a version, or that it is deleted."""
        if not self.alive or not self.machine.reaches_api:
            return
        self.machine.make_contact()
        if item is not None and self.seen is not None and item.version <= self.seen.version:
            return
        self.seen = item
        if self._staging is not None and not still_wanted(self._view(), self._staging):
            self._staging, self._busy = None, False
        self._think_soon()

    def _after(self, delay: float, call: Any, *arguments: Any) -> None:
        life = self.life

        def run() -> None:
            if life == self.life:
                call(*arguments)

        self.machine.world.schedule.after(delay, run)

    def _read(self) -> None:
        """GET the own Node, until somebody answers."""
        if self.machine.reaches_api:
            self.machine.make_contact()
            self.hear(self.machine.world.api.get("Node", self.machine.name))
        else:
            self._after(5.0, self._read)

    def _think_soon(self, delay: float = 0.0) -> None:
        self._ticket += 1
        self._after(delay + self.machine.world.dice.uniform(0.01, 0.1), self._think, self._ticket)

    def _think(self, ticket: int) -> None:
        if ticket != self._ticket or self._busy:
            return
        step = next_step(self._view())
        if isinstance(step, Wait):
            if step.until is not None:
                self._think_soon(max(0.0, self.machine.boot_at + step.until - self.machine.world.schedule.now))
            return
        if self.machine.world.schedule.tracing:
            self.machine.note(f"agent: {describe(step)}")
        try:
            self._risk()
            self._do(step)
        except _DeadError:
            return
        if not self._busy and self.alive:
            self._think_soon()

    def _risk(self) -> None:
        """The one point at which the agent or the power may die."""
        world, machine = self.machine.world, self.machine
        if not world.dice.chance(world.crash_share):
            return
        if world.dice.chance(0.3):
            machine.go_down(world.dice.wait(6.0))
        else:
            machine.note("agent is killed")
            self.kill()
            world.schedule.after(world.dice.wait(2.0), machine.start_agent, machine.epoch)
        raise _DeadError

    def _view(self) -> AgentView:
        machine = self.machine
        return AgentView(
            node=self.seen.node_view if self.seen is not None else None,
            api_answered=machine.api_answered,
            journal=machine.journal,
            disk=DiskView(machine.booted, self._show(SlotName.A), self._show(SlotName.B)),
            boot=BootView(
                machine.boot_id, machine.machine_id, machine.method, machine.last_reset,
                machine.world.schedule.now - machine.boot_at,
            ),
            facts=HostFacts(kexec=machine.kexec, boot_decision=machine.decision),
            reset_prepared=machine.reset_prepared,
            unhealthy="a service fails" if machine.fault == "unhealthy" else None,
            granted=self.granted,
            request_failed=self.request_failed,
            trouble=self.trouble,
            api_not_before=self.api_not_before,
            moved=self.moved,
        )  # fmt: skip

    def _show(self, name: SlotName) -> SlotView:
        slot = self.machine.disk[name]
        partition = 3 if name is SlotName.A else 4
        known = (slot.record, slot.version, self.checked[name], self.refuted[name])
        return SlotView(partition, CAPACITY, slot.attributes, *known)

    def _do(self, step: Step) -> None:
        machine, disk = self.machine, self.machine.disk
        machine.world.watch.see_step(machine, step)
        match step:
            case WriteStatus() | RequestActivation():
                self._send(step)
                return
            case StageImage():
                self._stage(step)
                return
            case WriteJournal(journal):
                machine.world.watch.see_journal(machine, journal)
                machine.journal = journal
                if journal.open is None:
                    self.request_failed = None
            case InvalidateSlot(name):
                machine.world.watch.see_slot_write(machine, name)
                disk[name].record = disk[name].version = None
                self._risk()
                disk[name].attributes = GIVEN_UP
            case VerifySlot():
                self._verify(step)
            case ArmSlot(name, method):
                machine.world.watch.see_arming(machine, name)
                disk.arm(name, kexec=method == "Kexec")
            case Disarm(name):
                machine.world.watch.see_slot_write(machine, name)
                if not disk[name].attributes.successful:
                    disk[name].attributes = GIVEN_UP
            case MarkGood(name):
                machine.world.watch.see_mark(machine, name)
                disk.mark_good(name)
            case AbandonTrial(name):
                machine.world.watch.see_abandon(machine, name)
                disk[name].attributes = GIVEN_UP
            case PrepareReset() | DropReset():
                machine.reset_prepared = isinstance(step, PrepareReset)
            case RepairTable():
                raise BrokenError(f"{machine.name} repairs a partition table that has no fault")
            case RequestReboot():
                self._reboot(step)
                return
        machine.world.watch.see_disk(machine)
        self._risk()

    def _reboot(self, step: RequestReboot) -> None:
        if self.machine.world.dice.chance(self.machine.world.crash_share):
            self.request_failed = "kexec: the image was refused"
            self._note_trouble(step, Fault("Boot", self.request_failed))
            self._think_soon()
            return
        self.machine.reboot(step.method, step.slot)

    def _verify(self, step: VerifySlot) -> None:
        slot = self.machine.disk[step.slot]
        if slot.content == step.digest:
            slot.record, slot.version = step.digest, step.version
            self.checked[step.slot], self.refuted[step.slot] = step.purpose, None
            return
        self.refuted[step.slot] = step.digest
        slot.record = None if slot.record == step.digest else slot.record

    def _stage(self, step: StageImage) -> None:
        machine, slot = self.machine, self.machine.disk[step.slot]
        machine.world.watch.see_slot_write(machine, step.slot)
        slot.record = slot.content = None
        machine.world.watch.see_disk(machine)
        self._risk()
        self._busy, self._staging = True, step
        duration = machine.world.dice.wait(3.0)
        write = report_progress(self._view(), step, Moved(fetched=step.size // 2))
        if write is not None:
            self._after(duration / 2, self._report_progress, step, write)
        self._after(duration, self._end_staging, step)

    def _note_trouble(self, step: Step, fault: Fault) -> None:
        order, now = current_order(self._view()), self.machine.world.schedule.now - self.machine.boot_at
        self.trouble = next_trouble(self.trouble, order, type(step).__name__, fault, now=now)

    def _report_progress(self, step: StageImage, write: WriteStatus) -> None:
        if self._staging is step and self.machine.reaches_api:
            self._apply(write)

    def _end_staging(self, step: StageImage) -> None:
        if self._staging is not step:
            return
        machine = self.machine
        self._busy, self._staging = False, None
        slot, known = machine.disk[step.slot], machine.world.find_release(step.digest)
        fault = known.fault if known is not None and not machine.world.mended else None
        if fault in ("no-fetch", "corrupt") or machine.world.dice.chance(machine.world.crash_share):
            slot.content = GARBAGE if fault == "corrupt" else None
            problem = Fault("Integrity" if fault == "corrupt" else "Transfer", "the image did not come as promised")
            self._note_trouble(step, problem)
        else:
            slot.content = slot.record = step.digest
            slot.version, self.checked[step.slot], self.refuted[step.slot] = step.version, "stage", None
            self.trouble, self.moved = None, Moved(fetched=step.size)
        self._think_soon()

    def _send(self, step: WriteStatus | RequestActivation) -> None:
        """A request on its way: it arrives whether or not the process lives on."""
        self._busy = True
        world, life = self.machine.world, self.life
        world.schedule.after(world.dice.wait(0.1), self._arrive, step, life)
        try:
            self._risk()
        except _DeadError:
            self._busy = False
            raise

    def _arrive(self, step: WriteStatus | RequestActivation, life: int) -> None:
        world = self.machine.world
        answer: Item | Refused = Refused.DOWN
        if self.machine.reaches_api and not self.machine.retired:
            answer = self._apply(step)
        if world.dice.chance(world.crash_share):
            answer = Refused.DOWN
        if life == self.life:
            self._after(world.dice.wait(0.1), self._take_answer, step, answer)

    def _apply(self, step: WriteStatus | RequestActivation) -> Item | Refused:
        api, name = self.machine.world.api, self.machine.name
        if isinstance(step, WriteStatus):
            if set(step.status) - AGENTS_STATUS:
                raise BrokenError(f"invariant 8: the agent writes {sorted(step.status)}")
            patch: Mapping[str, Any] = {"status": step.status}
            return api.update(
                "Node", name, lambda doc: merge(doc, patch), by="agent", uid=step.uid, version=step.resource_version
            )
        item = api.get("Node", name)
        if item is None:
            return Refused.NOT_FOUND
        patched = patch_json(item.doc, step.patch)
        if patched is None:
            return Refused.CONFLICT
        self.machine.world.watch.see_activation(self.machine, step.order)
        return api.update("Node", name, lambda _: patched, by="agent")

    def _take_answer(self, step: WriteStatus | RequestActivation, answer: Item | Refused) -> None:
        self._busy = False
        machine = self.machine
        if isinstance(answer, Item):
            machine.make_contact()
            if self.seen is None or answer.version > self.seen.version:
                self.seen = answer
            if isinstance(step, RequestActivation):
                self.granted = step.order
            self._think_soon()
            return
        if answer is Refused.DOWN or not machine.reaches_api:
            self.api_not_before = machine.world.schedule.now - machine.boot_at + 5.0
            self._think_soon()
            return
        if isinstance(step, RequestActivation):
            self.granted = None
        self.seen = machine.world.api.get("Node", machine.name)
        self._think_soon(0.2)


def describe(step: Step) -> str:
    """A step in one line of a trace."""
    match step:
        case WriteStatus(_, status, _):
            told = status.get("step") or {}
            return f"status {' '.join(f'{k}={v}' for k, v in told.items())} {sorted(set(status) - {'step'})}"
        case RequestActivation(_, order, _):
            return f"asks for the activation of {order}"
        case WriteJournal(journal):
            opened, ended = journal.open, journal.ended[-1] if journal.ended else None
            if opened is None:
                return f"journal: nothing open, last {ended}"
            return f"journal: {opened.order} {opened.stage} verdict={opened.verdict} cause={opened.cause}"
        case StageImage():
            return f"stages {step.version} into {step.slot} for {step.order}"
        case _:
            return str(step)
