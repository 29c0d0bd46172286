"""What a repository holds, and who answers for it until when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from tuf.api.metadata import Root, Signed, TargetFile

from .versions import version_key


@dataclass(frozen=True)
class RoleState:
    """One role of a repository."""

    role: str
    version: int
    expires: datetime
    expired: bool
    threshold: int
    """How many of the keys must sign."""
    key_ids: tuple[str, ...]
    valid: bool = True
    """Whether enough of the keys have signed."""
    waits: bool = False
    """Whether a draft of the next version waits for more signatures."""


@dataclass(frozen=True)
class Contents:
    """What a repository holds."""

    roles: tuple[RoleState, ...]
    releases: dict[str, str]
    """Digest by version, oldest first."""
    channels: dict[str, str]
    """Version by channel."""


def list_contents(targets: Mapping[str, TargetFile], roles: Iterable[RoleState]) -> Contents:
    """Releases and channels of the signed list."""
    versions = {_stem(name, "releases/"): target for name, target in targets.items() if name.startswith("releases/")}
    channels = {
        _stem(name, "channels/"): str(target.custom.get("version"))
        for name, target in sorted(targets.items())
        if name.startswith("channels/") and isinstance(target.custom, dict)
    }
    digests = {version: f"sha256:{versions[version].hashes['sha256']}" for version in sorted(versions, key=version_key)}
    return Contents(tuple(roles), digests, channels)


def describe_role(root: Root, role: str, signed: Signed, now: datetime) -> RoleState:
    """A role's metadata as the root sees it."""
    keys = root.roles[role]
    expired = signed.is_expired(now.astimezone(UTC))
    return RoleState(role, signed.version, signed.expires, expired, keys.threshold, tuple(keys.keyids))


def _stem(name: str, folder: str) -> str:
    return name.removeprefix(folder).removesuffix(".json")
