"""Which patterns match which names, kept up to date as both come and go."""

from bisect import bisect_left, insort
from dataclasses import dataclass, field

from careen.units.globs import META, Glob, compile_glob

CONFLICT, AVOID, REPLACE = "conflict", "avoid", "replace"
"""What a unit may claim of the names that a pattern of its matches."""


@dataclass(eq=False, slots=True)
class Pattern:
    """One pattern, however many units hold it, and where it matters."""

    text: str
    glob: Glob | None
    """None: it can't be understood, and matches nothing."""
    holders: int = 0
    names: set[str] = field(default_factory=set)
    """Known names that it matches."""
    there: dict[str, int] = field(default_factory=dict)
    """Machines that hold units with such names, and how many."""
    claims: dict[str, dict[str, int]] = field(default_factory=lambda: {CONFLICT: {}, AVOID: {}, REPLACE: {}})
    """Machines that hold units which claim something by it, and how many; by what they claim."""


class PatternIndex:
    """Patterns and names. A glob is tried only on names that begin as it does."""

    def __init__(self) -> None:
        self._patterns: dict[str, Pattern] = {}
        self._by_prefix: dict[str, set[Pattern]] = {}
        self._lengths: dict[int, int] = {}
        self._names: list[str] = []
        self._hits: dict[str, set[Pattern]] = {}

    def hits(self, name: str) -> set[Pattern]:
        """The patterns that match a known name."""
        return self._hits[name]

    def add_name(self, name: str) -> None:
        """Know a name; twice is once."""
        if name in self._hits:
            return
        found = set()
        for length in self._lengths:
            for pattern in self._by_prefix.get(name[:length], ()):
                if pattern.glob is not None and pattern.glob.matches(name):
                    found.add(pattern)
                    pattern.names.add(name)
        self._hits[name] = found
        insort(self._names, name)

    def drop_name(self, name: str) -> None:
        """Forget a name, if it is known."""
        if name not in self._hits:
            return
        for pattern in self._hits.pop(name):
            pattern.names.discard(name)
        del self._names[bisect_left(self._names, name)]

    def hold(self, text: str) -> tuple[Pattern, set[str]]:
        """The pattern, and the known names that it matches if nobody held it before."""
        pattern = self._patterns.get(text)
        fresh: set[str] = set()
        if pattern is None:
            pattern = self._patterns[text] = Pattern(text, compile_glob(text))
            prefix = _find_prefix(text)
            self._by_prefix.setdefault(prefix, set()).add(pattern)
            self._lengths[len(prefix)] = self._lengths.get(len(prefix), 0) + 1
            fresh = pattern.names = self._match(pattern, prefix)
            for name in fresh:
                self._hits[name].add(pattern)
        pattern.holders += 1
        return pattern, fresh

    def release(self, text: str) -> None:
        """The reverse of `hold`; the last one to let go takes the pattern away."""
        pattern = self._patterns[text]
        pattern.holders -= 1
        if pattern.holders:
            return
        del self._patterns[text]
        prefix = _find_prefix(text)
        self._by_prefix[prefix].discard(pattern)
        if not self._by_prefix[prefix]:
            del self._by_prefix[prefix]
        self._lengths[len(prefix)] -= 1
        if not self._lengths[len(prefix)]:
            del self._lengths[len(prefix)]
        for name in pattern.names:
            self._hits[name].discard(pattern)

    def _match(self, pattern: Pattern, prefix: str) -> set[str]:
        found: set[str] = set()
        if pattern.glob is None:
            return found
        for at in range(bisect_left(self._names, prefix), len(self._names)):
            name = self._names[at]
            if not name.startswith(prefix):
                break
            if pattern.glob.matches(name):
                found.add(name)
        return found


def _find_prefix(text: str) -> str:
    """What every name that matches begins with."""
    for at, char in enumerate(text):
        if char in META:
            return text[:at]
    return text
