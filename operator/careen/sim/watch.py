"""The independent watch: invariants of design.md section 6, from the true state and from raw documents.

It shares no decision with the core: what is in flight, unavailable or allowed is written down here once more. People
can take the floor from under an invariant (free the lock of a machine in flight, delete a lock or a core Node); such a
machine is excused until it is granted again, and only it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from careen.agent.step import Journal, OpenOrder, Stage, Step
from careen.api.meta import CORDONED_ANNOTATION
from careen.core.actions import Action, Evict, SetOrder, WriteLock
from careen.disk.types import SlotName

from .api import Item, Refused
from .grants import GrantCheck, holders_of, is_ready
from .requests import RequestCheck, is_to_be_cured
from .schedule import BrokenError

if TYPE_CHECKING:
    from .machine import Machine
    from .operator import Basis
    from .world import World

COUNTED = ("Panic", "Watchdog", "LocalGate", "GateFailed", "Silence", "People")
PEOPLE = "people"


class Watch:
    """Sees every write and every step; raises BrokenError at the first that breaks an invariant."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.excused: set[str] = set()
        self.already: set[str] = set()
        self.lost_journals: set[str] = set()
        self.cordoned_by: dict[str, str] = {}
        self.trial_boots: dict[str, int] = {}
        self.verdicts: dict[tuple[str, str], str] = {}
        self.endings: dict[tuple[str, str], str] = {}
        self.committed: set[str] = set()
        self.condemned: dict[tuple[str, str], int] = {}
        self._basis: Basis | None = None
        self._lock_before: Item | None = None
        self._accepted: set[str] = set()
        self._came_back: dict[str, float] = {}
        self.grants = self.commits = self.rollbacks = 0
        self.requests = RequestCheck()
        world.api.listeners.append(self._see_write)

    def see_step(self, machine: Machine, step: Step) -> None:
        """Before an agent takes a step."""
        self.requests.see_step(machine, step, self._accepted)

    # The disk (invariants 2 and 3).

    def see_disk(self, machine: Machine) -> None:
        """After each change of a disk: any reset boots a complete, verified slot."""
        name = machine.disk.choose()
        if name is None or self.world.find_release(machine.disk[name].content or "") is None:
            raise BrokenError(f"invariant 3: a reset of {machine.name} would boot {name}: {machine.disk}")

    def see_slot_write(self, machine: Machine, name: SlotName) -> None:
        """Before a slot is written."""
        if name is machine.booted:
            raise BrokenError(f"invariant 2: {machine.name} writes its booted slot {name}")
        if not machine.disk[machine.booted].attributes.good:
            raise BrokenError(f"invariant 2: {machine.name} writes slot {name} while the booted one is not good")

    def see_arming(self, machine: Machine, name: SlotName) -> None:
        """Before a slot is armed."""
        self.see_slot_write(machine, name)
        digest, opened = machine.disk[name].content, machine.journal.open if machine.journal else None
        if opened is None or digest != opened.digest:
            raise BrokenError(f"{machine.name} arms slot {name} with {digest} for {opened}")
        if self.condemned.get((machine.machine_id, digest), -1) >= self._retry_of(machine):
            raise BrokenError(f"invariant 4: {machine.name} tries {digest} again, which it rejected")
        if opened.order not in self._accepted:
            raise BrokenError(f"rule 3: {machine.name} arms for {opened.order} without a word from the API server")

    def see_mark(self, machine: Machine, name: SlotName) -> None:
        """Before a slot is marked good."""
        if name is not machine.booted or machine.disk[name].attributes.priority == 0:
            raise BrokenError(f"{machine.name} marks slot {name} good: {machine.disk}, booted {machine.booted}")

    def see_abandon(self, machine: Machine, name: SlotName) -> None:
        """Before the trial's slot is given up."""
        if name is not machine.booted or not machine.disk[name.other].attributes.good:
            raise BrokenError(f"invariant 3: {machine.name} gives up slot {name}: {machine.disk}")

    def see_boot(self, machine: Machine) -> None:
        """After a boot: what runs is complete, and no order has more than one trial boot."""
        slot = machine.disk[machine.booted]
        machine.note(f"boots slot {machine.booted} {slot.version} ({slot.attributes}), fault {machine.fault}")
        if self.world.find_release(slot.content or "") is None:
            raise BrokenError(f"invariant 3: {machine.name} booted {machine.booted}: {machine.disk}")
        opened = machine.journal.open if machine.journal else None
        if opened is None or opened.kind != "Update" or slot.attributes.successful:
            return
        self.trial_boots[opened.order] = self.trial_boots.get(opened.order, 0) + 1
        if self.trial_boots[opened.order] > 1:
            raise BrokenError(f"rule 6: order {opened.order} was activated twice on {machine.name}")

    # The journal (rules 5 and 6, invariant 4).

    def see_activation(self, machine: Machine, order: str) -> None:
        """The API server accepts an activation: the lock must be held for it."""
        self._accepted.add(order)
        self._check_deadman(machine)
        holders = [h for item in self.world.api.objects["RebootLock"].values() for h in holders_of(item)]
        if not any(h.get("order") == order for h in holders) and machine.name not in self.excused:
            raise BrokenError(f"invariant 1: {machine.name} is activated for {order} without a lock: {holders}")

    def _check_deadman(self, machine: Machine) -> None:
        node = self.world.api.get("Node", machine.name)
        order: dict[str, Any] = (node.spec.get("assignment") or {}) if node is not None else {}
        permitted = "request" in order or order.get("terms", {}).get("allowNoDeadman")
        if machine.decision.deadman == "Missing" and not permitted:
            raise BrokenError(f"invariant 11: nothing would undo the trial of {order.get('id')} on {machine.name}")

    def see_journal(self, machine: Machine, journal: Journal) -> None:
        """Before the journal is replaced."""
        opened = journal.open
        if opened is not None and opened.verdict is not None:
            self._see_verdict(machine, opened)
        if opened is not None and opened.kind != "Update":
            self.world.hear_request(machine)
        known = {end.order for end in machine.journal.ended} if machine.journal else set()
        for end in journal.ended:
            if end.order in known:
                continue
            verdict = self.verdicts.get((machine.machine_id, end.order))
            kept = machine.machine_id not in self.lost_journals
            if end.phase == "Committed" and verdict == "ROLLBACK" and kept:
                raise BrokenError(f"rule 6: {end.order} on {machine.name} was ROLLBACK and ends {end.phase}")
            if end.phase == "Committed":
                self.commits += 1
            if end.phase == "RolledBack":
                self._see_rollback(machine, journal, end.cause)

    def forget_journal(self, machine: Machine) -> None:
        """The journal is lost, and with it what it promised."""
        self.lost_journals.add(machine.machine_id)
        self.condemned = {key: retry for key, retry in self.condemned.items() if key[0] != machine.machine_id}
        self.trial_boots.clear()

    def _see_verdict(self, machine: Machine, opened: OpenOrder) -> None:
        key = (machine.machine_id, opened.order)
        verdict = str(opened.verdict)
        first = self.verdicts.setdefault(key, verdict)
        if first != verdict and machine.machine_id not in self.lost_journals:
            raise BrokenError(f"rule 6: the verdict on {opened.order} was {first} and becomes {verdict}")
        was = machine.journal.open.verdict if machine.journal and machine.journal.open else None
        if was is None:
            self.world.hear_verdict(machine, opened.order)
        if verdict == "ROLLBACK" and was is None and opened.cause == "Silence":
            self._check_silence(machine, opened)
        if verdict != "COMMIT" or was == "COMMIT" or machine.disk[machine.booted].attributes.successful:
            return
        timeout = self.world.schedule.now - machine.boot_at >= opened.commit_timeout_seconds
        alone = opened.on_silence == "Commit" and timeout and not machine.api_answered
        if machine.fault == "unhealthy" or not (alone or opened.order in self.committed):
            raise BrokenError(f"invariant 4: {machine.name} commits {opened.order}, fault {machine.fault}, {alone=}")

    def _check_silence(self, machine: Machine, opened: OpenOrder) -> None:
        """Rule 7: silence undoes a trial only in a boot that had no answer, after its time, and where asked to."""
        early = self.world.schedule.now - machine.boot_at < opened.commit_timeout_seconds
        if machine.api_answered or early or opened.on_silence != "Rollback":
            raise BrokenError(
                f"rule 7: {machine.name} gives up {opened.order} for silence: answered {machine.api_answered}"
            )

    def _see_rollback(self, machine: Machine, closed: Journal, cause: str | None) -> None:
        opened = machine.journal.open if machine.journal else None
        if opened is not None and opened.kind != "Update":
            return
        self.rollbacks += 1
        lost = cause in ("TrialLost", "JournalLost") and opened is not None and opened.lost_attempts >= 1
        if opened is not None and (cause in COUNTED or lost):
            # As the agent knew it: people may ask for one more try at the very moment in which it is recorded.
            known_retries = [entry.retry for entry in closed.rejected if entry.digest == opened.digest]
            if not known_retries or known_retries[-1] > self._retry_of(machine):
                raise BrokenError(
                    f"invariant 4: {machine.name} rolled {opened.digest} back, and rejects {closed.rejected}"
                )
            self.condemned[machine.machine_id, opened.digest] = known_retries[-1]
        calm = self.world.setting.calm and cause not in ("People", "Withdrawn")
        if calm and opened is not None:
            known = self.world.find_release(opened.digest)
            if known is not None and known.fault is None:
                raise BrokenError(f"invariant 9: {machine.name} rolled back the healthy {opened.version}: {cause}")

    def _retry_of(self, machine: Machine) -> int:
        item = self.world.api.get("Node", machine.name)
        return (item.spec.get("retry") or 0) if item is not None else 0

    # The API server.

    def expect(self, action: Action, basis: Basis) -> None:
        """An action of an operator arrives now; it was planned from `basis`."""
        self._basis = basis
        self._lock_before = self.world.api.get("RebootLock", action.name) if isinstance(action, WriteLock) else None

    def done(self, action: Action, answer: Item | Refused) -> None:
        """And this came of it."""
        basis, before = self._basis, self._lock_before
        self._basis = self._lock_before = None
        if basis is None or not isinstance(answer, Item):
            return
        match action:
            case WriteLock():
                assert before is not None
                self._check_grants(action, basis, answer)
                self._check_freed(basis, before, answer)
            case SetOrder():
                self._check_order(action, answer)
            case Evict():
                self._check_eviction(action, basis)

    def _check_order(self, action: SetOrder, answer: Item) -> None:
        order, machine = action.order, self.world.machines.get(action.name)
        if machine is None:
            return
        locks = self.world.api.objects["RebootLock"].values()
        held = any(h.get("order") == order.id for item in locks for h in holders_of(item))
        again = answer.status.get("step", {}).get("id") == order.id
        if order.goal == "Activate" and not (held or again or machine.name in self.excused):
            raise BrokenError(f"invariant 1: goal Activate for {machine.name} without the lock")
        if order.goal == "Commit":
            self.committed.add(order.id)
            ready = machine.ready_at.get(machine.boot_id)
            told = answer.status.get("bootID")
            if told == machine.boot_id and (
                ready is None or self.world.schedule.now < ready + order.terms.ready_seconds - 0.01
            ):
                raise BrokenError(f"invariant 4: goal Commit for {machine.name}, Ready since {ready}")
        if order.goal == "Abort" and order.cause == "GateFailed" and machine.up:
            # A reboot by request has no second slot, so it may boot more than once. All its boots share one deadline,
            # or a machine that boots in a loop would hold its lock for ever.
            began = self._came_back.get(order.id, machine.boot_at) if order.request else machine.boot_at
            since = self.world.schedule.now - min(began, machine.boot_at)
            if since < order.terms.verify_timeout_seconds and answer.status.get("bootID") == machine.boot_id:
                raise BrokenError(f"rule 7: GateFailed for {machine.name} {since:.0f} s after its boot")

    def _check_eviction(self, action: Evict, basis: Basis) -> None:
        core = basis.objects["CoreNode"].get(action.node)
        if core is None or not core.spec.get("unschedulable"):
            raise BrokenError(f"pods of {action.node} are evicted while it is schedulable")

    def _check_grants(self, action: WriteLock, basis: Basis, lock: Item) -> None:
        if action.granted:
            self.grants += len(action.granted)
            # A grant that crossed the news that its core Node was deleted: the machine is as good as gone.
            there = self.world.api.objects["CoreNode"]
            self.excused -= {name for name in action.granted if name in there}
            GrantCheck(self.world, basis, self.excused, self.already).check(action, lock)

    def _check_freed(self, basis: Basis, before: Item, after: Item) -> None:
        """Invariant 7: a holder of the operator leaves only on evidence."""
        kept = {(h["id"], h.get("order")) for h in holders_of(after)}
        for holder in holders_of(before):
            if (holder["id"], holder.get("order")) in kept:
                continue
            machine = self.world.machines.get(holder["id"])
            if not holder.get("order"):
                raise BrokenError(f"invariant 7: the operator freed {holder['id']}, held by {holder.get('by')}")
            if machine is None or holder["id"] in self.excused:
                continue
            self._check_evidence(basis, machine, holder)

    def _check_evidence(self, basis: Basis, machine: Machine, holder: Mapping[str, Any]) -> None:
        order, node = holder["order"], self.world.api.get("Node", machine.name)
        opened = machine.journal.open if machine.journal else None
        told = node.status.get("step") or {} if node is not None else {}
        late = order not in self._accepted and _is_recorded_late(machine, opened)
        if opened is not None and opened.order == order and not late:
            raise BrokenError(f"invariant 7: {machine.name} was freed while its journal is open for {order}")
        if told.get("id") == order and told.get("phase") in ("Activating", "Verifying"):
            raise BrokenError(f"invariant 7: {machine.name} was freed in phase {told['phase']} of {order}")
        assignment = node.spec.get("assignment") or {} if node is not None else {}
        bound = assignment.get("id") == order and assignment["goal"] in ("Activate", "Commit")
        if bound and "error" not in told and told.get("phase") not in ("Committed", "RolledBack", "Idle"):
            raise BrokenError(f"invariant 7: {machine.name} was freed with goal {assignment['goal']}: {told}")
        core = basis.objects["CoreNode"].get(machine.name)
        ended = told.get("id") == order and told.get("phase") in ("Committed", "RolledBack")
        if core is None or not ended:
            return
        if core.doc["metadata"].get("annotations", {}).get(CORDONED_ANNOTATION) == order:
            raise BrokenError(f"rule 9: {machine.name} was freed before it was uncordoned")
        cured = is_to_be_cured(basis.objects["Node"].get(machine.name), holder, basis.objects["UpdatePolicy"].values())
        if not holder.get("unavailableAtGrant") and not is_ready(core) and not cured:
            raise BrokenError(f"rule 9: {machine.name} was freed while it was not Ready")

    def _see_write(self, before: Item | None, after: Item | None, by: str) -> None:
        item = after if after is not None else before
        assert item is not None
        if item.kind == "CoreNode":
            self._see_core(before, after, by)
        if item.kind == "RebootLock" and by == PEOPLE and before is not None:
            left = {h["id"] for h in holders_of(after)} if after is not None else set()
            self.excused |= {h["id"] for h in holders_of(before) if h.get("order")} - left
        if item.kind == "Node" and after is not None:
            self._see_phase(after)
            self.requests.see_node(before, after, by)

    def _see_core(self, before: Item | None, after: Item | None, by: str) -> None:
        if after is None:
            assert before is not None
            self.excused.add(before.name)
            self.cordoned_by.pop(before.name, None)
            return
        name = after.name
        was = bool(before and before.spec.get("unschedulable"))
        now = bool(after.spec.get("unschedulable"))
        if by == "operator" and before is not None and was and now and before.doc["metadata"] is not None:
            mark = (after.doc["metadata"].get("annotations") or {}).get(CORDONED_ANNOTATION)
            had = (before.doc["metadata"].get("annotations") or {}).get(CORDONED_ANNOTATION)
            if mark is not None and mark != had:
                raise BrokenError(f"invariant 6: {name} was cordoned already, and the operator put its mark on it")
        if was and not now and by == "operator" and self.cordoned_by.get(name) == PEOPLE:
            raise BrokenError(f"invariant 6: the operator uncordoned {name}, which people had cordoned")
        if now and not was:
            # A person's cordon under our mark, put back before anybody saw it gone, looks in all like our own.
            marked = CORDONED_ANNOTATION in (after.doc["metadata"].get("annotations") or {})
            self.cordoned_by[name] = "operator" if marked else by
        if was and not now:
            self.cordoned_by.pop(name, None)

    def _see_phase(self, node: Item) -> None:
        """When an order's machine first came back, and that a verdict which was told stays."""
        step = node.status.get("step") or {}
        if step.get("phase") == "Verifying":
            self._came_back.setdefault(step["id"], self.world.schedule.now)
        if step.get("phase") not in ("Committed", "RolledBack"):
            return
        key = (node.status["machineID"], step["id"])
        first = self.endings.setdefault(key, step["phase"])
        if first != step["phase"] and key[0] not in self.lost_journals:
            raise BrokenError(f"rule 6: {step['id']} on {node.name} was {first} and is {step['phase']}")


def _is_recorded_late(machine: Machine, opened: OpenOrder | None) -> bool:
    """Whether a journal that was lost before the order to reboot has been given that order in the boot after it.

    If no Activating was ever accepted, an Abort may find the order closed, and no reboot is still to come of it.
    """
    return (
        opened is not None
        and opened.kind == "Reboot"
        and opened.stage is Stage.REQUESTED
        and machine.boot_id != opened.from_boot_id
    )
