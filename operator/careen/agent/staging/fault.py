"""Why a staging did not succeed."""

from __future__ import annotations

from careen.agent.record import Fault
from careen.api.node import ErrorClass


class StageError(Exception):
    """A staging that did not succeed; `fault` is what the status will say."""

    def __init__(self, class_: ErrorClass, message: str) -> None:
        super().__init__(message)
        self.fault = Fault(class_, message)
