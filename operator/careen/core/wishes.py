"""What people ask of one machine beside its release, and what came of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Request:
    """A reboot or a reset that people ask for."""

    action: str
    """Reboot or Reset."""
    id: str

    @property
    def noun(self) -> str:
        """What is asked for, for a sentence."""
        return "reset" if self.action == "Reset" else "reboot"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a request."""

    request: Request
    outcome: str
    """Done, Failed or Aborted."""
    cause: str | None
    message: str
    order: str
