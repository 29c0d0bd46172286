"""The signed metadata of a repository folder: who may sign what, until when, and the changing of all that (TUF)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, get_args

from securesystemslib.signer import Key
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Role, Root, Signed, Snapshot, Targets, Timestamp

from .durable import write_durably
from .errors import PublishError
from .keys import Signers

RoleName = Literal["root", "targets", "snapshot", "timestamp"]
ROLES: tuple[RoleName, ...] = get_args(RoleName)
EXPIRY_DAYS: Mapping[RoleName, int] = {"root": 365, "targets": 365, "snapshot": 30, "timestamp": 7}
"""How long what a role signs is good for, in days. Defaults of a new repository."""
MAX_EXPIRY_DAYS = 3650

_DAYS_FIELD = "x-careen-expiry-days"
_KINDS: Mapping[str, type[Signed]] = {"root": Root, "targets": Targets, "snapshot": Snapshot, "timestamp": Timestamp}
_FILE = re.compile(r"(\d+)\.(root|targets|snapshot)\.json")


@dataclass(frozen=True)
class Note:
    """One thing that signing did, or could not do."""

    done: bool
    """False: it waits for keys that are not at hand."""
    text: str
    """A sentence for people."""


class TrustStore:
    """Metadata in `folder` (metadata/ and drafts/), changed with the keys at hand. The caller holds the lock."""

    def __init__(self, folder: Path, signers: Signers, now: datetime) -> None:
        self._metadata = folder / "metadata"
        self._drafts = folder / "drafts"
        self._signers = signers
        self._now = now.astimezone(UTC).replace(microsecond=0)

    @classmethod
    def create(
        cls,
        folder: Path,
        keys: Mapping[RoleName, list[Key]],
        signers: Signers,
        now: datetime,
        *,
        thresholds: Mapping[RoleName, int],
        days: Mapping[RoleName, int],
    ) -> TrustStore:
        """Make the first root and empty metadata. Raises PublishError if there is some, or a needed key is missing."""
        store = cls(folder, signers, now)
        if store.find_newest("root") is not None:
            raise PublishError(f"{folder} is a repository already; its keys change by rotation")
        roles: dict[str, Role] = {name: Role([], thresholds.get(name, 1)) for name in ROLES}
        root = Root(roles=roles, consistent_snapshot=True)
        root.unrecognized_fields[_DAYS_FIELD] = {name: _check_days(name, days[name]) for name in ROLES}
        for name in ROLES:
            for key in keys.get(name, []):
                root.add_key(key, name)
        _check_root(root)
        for role_name, role in roles.items():
            # No half a repository and no drafts of it: other holders' keys come in by rotation.
            if sum(keyid in signers for keyid in role.keyids) < role.threshold:
                raise PublishError(f"a repository begins with {role.threshold} private keys of {role_name} at hand")
        for place in (store._metadata, store._drafts):
            place.mkdir(parents=True, exist_ok=True)
        store.write_signed("root", root)
        store.write_signed("targets", Targets())
        store.sign()
        return store

    @property
    def root(self) -> Metadata[Root]:
        """The newest root. Raises PublishError if there is none."""
        found: Metadata[Root] | None = self.read("root")
        if found is None:
            raise PublishError(f"{self._metadata} holds no root.json; allowed: a repository made by careen")
        return found

    @property
    def days(self) -> dict[str, int]:
        """How long what each role signs is good for, as the root says."""
        kept = self.root.signed.unrecognized_fields.get(_DAYS_FIELD, {})
        return {**EXPIRY_DAYS, **kept}

    def find_newest(self, role: RoleName) -> Path | None:
        """The file with a role's newest metadata."""
        if role == "timestamp":
            path = self._metadata / "timestamp.json"
            return path if path.exists() else None
        return max(_list_versions(self._metadata, role), default=(0, None), key=lambda pair: pair[0])[1]

    def read(self, role: RoleName) -> Metadata[Any] | None:
        """A role's newest metadata that is in force."""
        path = self.find_newest(role)
        return _parse(path) if path else None

    def read_draft(self, role: RoleName) -> Metadata[Any] | None:
        """What waits for more signatures, if anything."""
        in_force = max((version for version, _ in _list_versions(self._metadata, role)), default=0)
        for version, path in _list_versions(self._drafts, role):
            if version == in_force + 1:
                return _parse(path)
            # Left by a kill after it had come into force.
            path.unlink(missing_ok=True)
        return None

    def edit_targets(self, change: Callable[[Targets], None]) -> bool:
        """Change the list of targets and sign it; False if it waits for more keys, as a draft. Drafts are changed."""
        return self._edit("targets", change)

    def edit_root(self, change: Callable[[Root], None]) -> bool:
        """Change the root and sign it by old and new keys; False if it waits for more keys, as a draft."""

        def check(root: Root) -> None:
            change(root)
            _check_root(root)

        return self._edit("root", check)

    def write_signed(self, role: RoleName, signed: Signed) -> bool:
        """Give `signed` its expiry and all signatures at hand. False: not enough yet, kept as a draft."""
        days = signed.unrecognized_fields[_DAYS_FIELD] if isinstance(signed, Root) else self.days
        signed.expires = self._now + timedelta(days=days[role])
        return self._settle(role, Metadata(signed))

    def sign(self) -> list[Note]:
        """Bring all in order with the keys at hand: drafts, targets after a rotation, snapshot, a new timestamp."""
        notes = [*self._sign_drafts(), *self._renew_targets()]
        if self._snapshot_due():
            if (meta := self._describe("targets")) is None:
                return [*notes, Note(False, "targets.json waits for its keys")]
            notes.append(self._sign_online("snapshot", Snapshot(self._next("snapshot"), meta={"targets.json": meta})))
        if (meta := self._describe("snapshot")) is None:
            return [*notes, Note(False, "snapshot.json waits for its keys")]
        return [*notes, self._sign_online("timestamp", Timestamp(self._next("timestamp"), snapshot_meta=meta))]

    def is_valid(self, role: RoleName, metadata: Metadata[Any]) -> bool:
        """Whether enough keys that the root names have signed it. Expiry is not looked at."""
        try:
            self.root.signed.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        except RepositoryError:
            return False
        return True

    def _edit(self, role: RoleName, change: Callable[[Any], None]) -> bool:
        current, draft = self.read(role), self.read_draft(role)
        if current is None:
            raise PublishError(f"{self._metadata} holds no {role}.json; allowed: a repository made by careen")
        # A draft goes on: two drafts of one version could never both come into force.
        signed = (draft or current).signed
        change(signed)
        signed.version = current.signed.version + 1
        return self.write_signed(role, signed)

    def _settle(self, role: RoleName, metadata: Metadata[Any]) -> bool:
        for signer in self._signers_of(role, metadata):
            metadata.sign(signer, append=True)
        name = f"{metadata.signed.version}.{role}.json"
        draft = self._drafts / name
        if not self._is_complete(role, metadata):
            if not metadata.signatures:
                raise PublishError(f"no key for {role}.json is at hand; it needs {self._tell_keys(role)}")
            self._drafts.mkdir(parents=True, exist_ok=True)
            write_durably(draft, metadata.to_bytes())
            return False
        data = metadata.to_bytes()
        write_durably(self._metadata / ("timestamp.json" if role == "timestamp" else name), data)
        if role == "root":
            write_durably(self._metadata / "root.json", data)
        draft.unlink(missing_ok=True)
        return True

    def _signers_of(self, role: RoleName, metadata: Metadata[Any]) -> list[Any]:
        wanted = [self.root.signed] if self.find_newest("root") else []
        if isinstance(metadata.signed, Root):
            wanted.append(metadata.signed)
        ids = dict.fromkeys(keyid for root in wanted for keyid in root.roles[role].keyids)
        return [self._signers[keyid] for keyid in ids if keyid in self._signers]

    def _is_complete(self, role: RoleName, metadata: Metadata[Any]) -> bool:
        if not isinstance(metadata.signed, Root):
            return self.is_valid(role, metadata)
        previous = self.root.signed if self.find_newest("root") else None
        result = metadata.signed.get_root_verification_result(previous, metadata.signed_bytes, metadata.signatures)
        return bool(result)

    def _sign_drafts(self) -> list[Note]:
        notes = []
        roles: tuple[RoleName, ...] = ("root", "targets")
        for role in roles:
            if (draft := self.read_draft(role)) is None:
                continue
            mine = self._signers_of(role, draft)
            signed = bool(mine) and self._settle(role, draft)
            waits = f"draft {draft.signed.version}.{role}.json waits for more keys: {self._tell_keys(role)}"
            notes.append(self._tell(role) if signed else Note(bool(mine), waits))
        return notes

    def _renew_targets(self) -> list[Note]:
        current = self.read("targets")
        if current is None or self.read_draft("targets") is not None:
            return []
        if self.is_valid("targets", current) and not self._is_ageing(current.signed):
            return []
        if not self._signers_of("targets", current):
            return [Note(False, f"targets.json is to be signed again, by {self._tell_keys('targets')}")]
        if self.edit_targets(lambda _: None):
            return [self._tell("targets")]
        return [Note(True, f"draft of targets.json waits for more keys: {self._tell_keys('targets')}")]

    def _snapshot_due(self) -> bool:
        current, targets = self.read("snapshot"), self.read("targets")
        if current is None or targets is None:
            return True
        known = current.signed.meta.get("targets.json")
        stale = known is None or known.version != targets.signed.version
        return stale or not self.is_valid("snapshot", current) or self._is_ageing(current.signed)

    def _is_ageing(self, signed: Signed) -> bool:
        """Whether less than half of its time is left."""
        return bool(signed.expires - self._now < timedelta(days=self.days[signed.type]) / 2)

    def _sign_online(self, role: RoleName, signed: Signed) -> Note:
        """Sign and put in force, if the keys at hand are enough: these roles leave no drafts."""
        known = self.root.signed.roles[role]
        if sum(keyid in self._signers for keyid in known.keyids) < known.threshold:
            return Note(False, f"{role}.json waits for {self._tell_keys(role)}: run sign where they are")
        self.write_signed(role, signed)
        return self._tell(role)

    def _describe(self, role: RoleName) -> MetaFile | None:
        """Version, length and hash of what is in force, as another role names it: so nothing can be mixed."""
        path = self.find_newest(role)
        return MetaFile.from_data(_parse(path).signed.version, path.read_bytes(), ["sha256"]) if path else None

    def _next(self, role: RoleName) -> int:
        current = self.read(role)
        return current.signed.version + 1 if current else 1

    def _tell(self, role: RoleName) -> Note:
        metadata = self.read(role)
        if metadata is None:
            raise PublishError(f"{role}.json is gone from {self._metadata}")
        signed = metadata.signed
        return Note(True, f"{role}.json version {signed.version} is good until {signed.expires:%Y-%m-%dT%H:%M:%SZ}")

    def _tell_keys(self, role: RoleName) -> str:
        found = self.root.signed.roles[role]
        return f"{found.threshold} of the keys {', '.join(keyid[:12] for keyid in found.keyids)}"


def _list_versions(folder: Path, role: str) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    matches = [(path, _FILE.fullmatch(path.name)) for path in folder.iterdir()]
    return [(int(match[1]), path) for path, match in matches if match and match[2] == role]


def _parse(path: Path) -> Metadata[Any]:
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(path.read_bytes())
    except RepositoryError as error:
        raise PublishError(f"{path} is damaged: {error}") from error
    return metadata


def _check_root(root: Root) -> None:
    for name in ROLES:
        role = root.roles[name]
        if not 1 <= role.threshold <= len(role.keyids):
            raise PublishError(f"{name} has {len(role.keyids)} keys and needs {role.threshold}; allowed: 1 to as many")


def _check_days(role: str, days: int) -> int:
    if not 1 <= days <= MAX_EXPIRY_DAYS:
        raise PublishError(f"the expiry of {role} is {days} days; allowed: 1 to {MAX_EXPIRY_DAYS}")
    return days
