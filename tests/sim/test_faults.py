"""The model is worth its time only if it finds faults: each of these is put in by hand, and an invariant must break."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from careen.agent import step as agent_step
from careen.agent import trial
from careen.agent.step import MarkGood, Stage, WriteJournal
from careen.core import budgets, fleet, locks, orders, plan
from careen.core.snapshot import Machine
from careen.sim import agent, execute
from careen.sim.world import run_seed

Patch = pytest.MonkeyPatch
SEEDS = 400


def free_without_word(patch: Patch) -> None:
    """(a) An Abort after Activate ends an order at once, without a word from the agent."""
    closed = Machine._is_closed

    def is_closed(machine: Machine) -> bool:
        return closed(machine) or (machine.order is not None and machine.order.goal == "Abort")

    patch.setattr(Machine, "_is_closed", is_closed)


def forget_in_flight(patch: Patch) -> None:
    """(b) The budgets count only machines that are down by themselves, not those that hold or are in flight."""
    explain = fleet.explain_unavailable

    def explain_unavailable(snapshot: Any, machine: Any, core: Any, holds: bool) -> str | None:
        if holds or machine.in_flight:
            return None
        return explain(snapshot, machine, core, holds)

    patch.setattr(fleet, "explain_unavailable", explain_unavailable)


def arm_unasked(patch: Patch) -> None:
    """(c) The agent arms without asking the API server (rule 3)."""
    original = agent_step.next_step

    def next_step(view: Any) -> Any:
        order = view.node.assignment if view.node else None
        return original(replace(view, granted=order.id if order else None))

    patch.setattr(agent, "next_step", next_step)


def uncordon_any(patch: Patch) -> None:
    """(d) The operator puts its mark on whatever is unschedulable, and so uncordons what people cordoned."""
    drain = orders.drain

    def _drain(view: Any, machine: Any, core: Any, order: Any, holder: Any) -> Any:
        return drain(view, machine, replace(core, unschedulable=core.cordoned_for is not None), order, holder)

    patch.setattr(orders, "drain", _drain)


def never_sweep(patch: Patch) -> None:
    """(e) Cordon marks whose order holds no lock are left behind."""
    patch.setattr(plan, "sweep_marks", lambda view: [])


def write_blindly(patch: Patch) -> None:
    """(f) Locks are written without a resourceVersion: a late write of a deposed leader is not refused."""
    write = execute.write_lock

    def write_lock(api: Any, action: Any, now: float) -> Any:
        known = api.get("RebootLock", action.name)
        version = action.resource_version if known is None else str(known.version)
        return write(api, replace(action, resource_version=version), now)

    patch.setattr(execute, "write_lock", write_lock)


def change_verdict(patch: Patch) -> None:
    """(g) A goal that comes after the verdict overwrites it."""
    aim = trial._aim_trial

    def _aim_trial(view: Any, journal: Any, opened: Any) -> Any:
        order = view.node.assignment if view.node else None
        if order and order.id == opened.order and order.goal == "Abort" and opened.verdict == "COMMIT":
            return trial._decide(journal, opened, "ROLLBACK", order.cause)
        return aim(view, journal, opened)

    patch.setattr(trial, "_aim_trial", _aim_trial)


def free_on_terminal(patch: Patch) -> None:
    """(h) The lock is released as soon as the order ended, whether or not the core Node is Ready in this boot."""
    patch.setattr(locks, "_is_as_before", lambda *_: True)


def ignore_control_plane(patch: Patch) -> None:
    """(i) The control-plane cap is forgotten."""
    patch.setattr(budgets.Budgets, "_refuse_control_plane", lambda self, machine: None)


def skip_journal(patch: Patch) -> None:
    """(j) The agent requests the reboot without recording it, so that a lost trial looks like a power cut."""
    arm = trial._aim_arm

    def _aim_arm(view: Any, journal: Any, opened: Any, order: Any) -> Any:
        aim = arm(view, journal, opened, order)
        asks = isinstance(aim.action, WriteJournal) and aim.action.journal.open is not None
        if asks and aim.action.journal.open.stage is Stage.REQUESTED:
            return replace(aim, action=trial.RequestReboot(opened.method, opened.to_slot))
        return aim

    patch.setattr(trial, "_aim_arm", _aim_arm)


def never_adopt(patch: Patch) -> None:
    """(k) Holder sets that lost entries are not completed."""
    patch.setattr(locks, "_adopt", lambda view, drafts: None)


def commit_at_once(patch: Patch) -> None:
    """(l) The gates after the boot are not asked."""
    patch.setattr(orders, "find_blocker", lambda *_: None)


def boot_unguarded(patch: Patch) -> None:
    """(m) Nobody asks what would undo a trial that hangs."""
    for module, name in ((plan, "ACTIVATE_GATES"), (orders, "HELD_GATES")):
        kept = tuple(gate for gate in getattr(module, name) if gate.__name__ != "check_deadman")
        patch.setattr(module, name, kept)
    patch.setattr(agent_step, "refuse_unguarded", lambda *_, **__: None)


def believe_in_the_reset(patch: Patch) -> None:
    """(n) After a power cut, a reset counts as done although it may not even have been prepared."""
    aim = trial.aim_open_request

    def aim_open_request(view: Any, journal: Any, opened: Any) -> Any:
        if opened.stage is Stage.ARMED and view.boot.boot_id != opened.from_boot_id:
            opened = replace(opened, stage=Stage.REQUESTED)
        return aim(view, journal, opened)

    patch.setattr(trial, "aim_open_request", aim_open_request)


def mark_after_reboot(patch: Patch) -> None:
    """(o) A reboot that went well marks its slot good, as an update does."""
    aim = trial.aim_open_request

    def aim_open_request(view: Any, journal: Any, opened: Any) -> Any:
        made = aim(view, journal, opened)
        ends = isinstance(made.action, WriteJournal) and made.action.journal.open is None
        return replace(made, action=MarkGood(view.disk.booted)) if ends else made

    patch.setattr(trial, "aim_open_request", aim_open_request)


def forget_the_outcome(patch: Patch) -> None:
    """(p) What came of a request is not stored, so that it is done again and again."""
    patch.setattr(orders, "store_outcome", lambda machine: None)


FAULTS = (
    free_without_word, forget_in_flight, arm_unasked, uncordon_any, never_sweep, write_blindly, change_verdict,
    free_on_terminal, ignore_control_plane, never_adopt, commit_at_once, boot_unguarded,
    believe_in_the_reset, mark_after_reboot, forget_the_outcome,
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_the_model_finds_the_fault(fault: Callable[[Patch], None], monkeypatch: Patch) -> None:
    fault(monkeypatch)
    for seed in range(SEEDS):
        outcome = run_seed(seed)
        if outcome.broken is not None:
            assert not outcome.broken.startswith("crash"), outcome.broken
            return
    pytest.fail(f"no seed below {SEEDS} finds it: {fault.__doc__}")
