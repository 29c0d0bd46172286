"""A step in words, for the log."""

from __future__ import annotations

from .actions import RequestActivation, Step, WriteJournal, WriteStatus


def describe_step(step: Step) -> str:
    """The step for the log, without long contents."""
    if isinstance(step, WriteStatus):
        return f"WriteStatus {step.status.get('step') or sorted(step.status)}"
    if isinstance(step, WriteJournal):
        opened = step.journal.open
        return f"WriteJournal {f'{opened.order} {opened.stage} {opened.verdict or str()}' if opened else 'closed'}"
    return str(step) if not isinstance(step, RequestActivation) else f"RequestActivation {step.order}"
