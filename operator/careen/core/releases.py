"""Releases as decisions see them: what one is, how it is looked up, and what came of that."""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Release:
    """One release, resolved from a repository's signed metadata."""

    repository: str
    version: str
    digest: str
    size_bytes: int
    path: str
    mirrors: tuple[str, ...] = ()
    """More places of its files; they come from the policy when an order is given."""
    min_version: str | None = None
    """Oldest version that may update to it; None: any."""
    capabilities: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    """Architectures that it has an image for; empty where that is not known."""


NO_RELEASE = Release("", "", "", 0, "")
"""Stands in an order that is a request."""


class ReleaseKey(NamedTuple):
    """What a release is looked up by."""

    repository: str
    kind: str
    """channel, version or digest."""
    name: str


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a release could not be looked up."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Lookup:
    """What looking up a release has come to. Either release or fault is there, or both: the last good answer stays."""

    release: Release | None = None
    resolved_at: float | None = None
    """When the release was last found."""
    fault: Fault | None = None
    """Why the last attempt failed; None when it did not."""
    expires_at: float | None = None
    """When the repository's metadata expires unless it is signed again."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """The stored outcome of a policy's last good lookup."""

    repository: str
    channel: str | None
    version: str
    digest: str
    resolved_at: float
