"""What a gate says when it does not let pass."""

from dataclasses import dataclass

from careen.api.reasons import Reason


@dataclass(frozen=True, slots=True)
class Refusal:
    """A gate's no: a reason, a sentence, and when time alone may change it."""

    reason: Reason
    message: str
    until: float | None = None
