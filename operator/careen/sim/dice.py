"""A small seeded generator: the same seed gives the same run, on every version of Python."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

_MASK = (1 << 64) - 1


class Dice:
    """SplitMix64."""

    def __init__(self, seed: int) -> None:
        self._state = (seed * 0x9E3779B97F4A7C15 + 0x1F83D9ABFB41BD6B) & _MASK

    def _next(self) -> int:
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        z = self._state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return z ^ (z >> 31)

    def below(self, bound: int) -> int:
        """A whole number from 0 to bound - 1."""
        return self._next() % bound

    def chance(self, share: float) -> bool:
        """True in that share of all throws."""
        return self._next() < share * _MASK

    def pick(self, choices: Sequence[T]) -> T:
        """One of the choices; IndexError if there are none."""
        return choices[self._next() % len(choices)]

    def uniform(self, low: float, high: float) -> float:
        """A number between the two."""
        return low + (high - low) * (self._next() / _MASK)

    def wait(self, usual: float) -> float:
        """A delay: mostly around `usual` seconds, now and then ten times, seldom a hundred times as long."""
        throw = self._next() % 64
        stretch = 100.0 if throw == 0 else 10.0 if throw < 4 else 1.0
        return usual * stretch * self.uniform(0.3, 1.3)
