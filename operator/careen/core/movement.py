"""What units have to do with updates: which machines they block, and who has yet to leave which machine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .refusal import Refusal

Asker = Callable[[str, tuple[str, ...]], Refusal | None]


def _let_pass(_machine: str, _granted: tuple[str, ...]) -> Refusal | None:
    return None


@dataclass(frozen=True, slots=True)
class Movement:
    """The units' part in one plan."""

    blocked: Mapping[str, Refusal] = field(default_factory=dict)
    """Machines that are to be left, and a unit can't leave them: the activation is taken back."""
    moving: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Machines that are to be left, with the units that are still there; none when the machine may be activated."""
    ask: Asker = _let_pass
    """Why a machine can't be activated because of its units, if the others are activated too; None if it can."""


STILL = Movement()
"""There are no units."""
