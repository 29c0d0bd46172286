"""A repository with a channel that people move, and the times in which it is away or not to be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from careen.api.reasons import Reason
from careen.core.releases import Fault, Lookup, Release, ReleaseKey

from .releases import CHANNEL, REPOSITORY, SimRelease

FAULTS = (
    Fault(str(Reason.TRUST_FAILED), "the signatures have expired"),
    Fault(str(Reason.RELEASE_UNAVAILABLE), "no answer"),
)


class Repository:
    """What there is, what the channel is, and what is wrong."""

    def __init__(self, releases: Sequence[SimRelease], version: str) -> None:
        self._releases = {known.release.version: known.release for known in releases}
        self.version = version
        """What the channel names."""
        self.fault: Fault | None = None

    def look_up(self, known: Mapping[ReleaseKey, Lookup], now: float) -> dict[ReleaseKey, Lookup]:
        """What a replica knows after it has looked; `known` is what it knew before, of which the last good stays."""
        return {key: self._answer(known.get(key, Lookup()), release, now) for key, release in self._list()}

    def wanted(self, spec: Mapping[str, Any]) -> str:
        """The version that a policy asks for."""
        release = spec["release"]
        return self.version if "channel" in release else str(release["version"])

    def _list(self) -> list[tuple[ReleaseKey, Release]]:
        versions = [(ReleaseKey(REPOSITORY, "version", name), release) for name, release in self._releases.items()]
        return [*versions, (ReleaseKey(REPOSITORY, "channel", CHANNEL), self._releases[self.version])]

    def _answer(self, known: Lookup, release: Release, now: float) -> Lookup:
        if self.fault is None:
            return Lookup(release, now)
        return Lookup(known.release, known.resolved_at, self.fault)
