"""When a sentence that stays true is worth another line of the log."""

from __future__ import annotations

import math


class Reminder:
    """Remembers the last sentence. seconds: how long it stands in the log before it is said again."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._sentence: str | None = None
        self._said = -math.inf

    def is_due(self, sentence: str, now: float) -> bool:
        """Whether to say it now: it is another one than the last, or that was long ago. now: seconds of any clock."""
        if sentence == self._sentence and now - self._said < self._seconds:
            return False
        self._sentence, self._said = sentence, now
        return True

    def forget(self) -> bool:
        """It is true no more; whether there was one."""
        there, self._sentence = self._sentence is not None, None
        return there
