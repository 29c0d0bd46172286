"""Finding releases in a repository, and believing only what the trust root's keys say of them (TUF)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError
from tuf.api.exceptions import (
    DownloadError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Root, Signed, Snapshot, TargetFile, Targets, Timestamp
from tuf.ngclient import Updater, UpdaterConfig

from .contents import Contents, RoleState, describe_role, list_contents
from .durable import hold_folder, write_durably
from .errors import ReleaseInvalidError, ReleaseMissingError, ReleaseTransferError, TrustError
from .fetcher import REQUEST_SECONDS, Fetcher
from .manifest import (
    MAX_DOCUMENT_BYTES,
    ReleaseDocument,
    Version,
    channel_path,
    digest_document,
    explain_invalid,
    parse_document,
    release_path,
)
from .versions import version_key

WAIT_SECONDS = 120.0
"""How long a lookup waits for another one of the same repository, in seconds."""
_SHOWN = 5
_KINDS: tuple[type[Signed], ...] = (Root, Targets, Snapshot, Timestamp)


@dataclass(frozen=True)
class Found:
    """A release whose document is signed, current, and what was asked for."""

    document: ReleaseDocument
    digest: str
    """`sha256:` and the hash of the document's bytes."""
    path: str
    """The document's target name, `releases/<version>.json`."""
    data: bytes
    """The document's bytes."""
    expires: datetime | None = None
    """When the first of the signatures that say so runs out; always set by a lookup."""


class Pointer(BaseModel):
    """What is said of a release in the signed list: of a channel which release it names, of a release its own."""

    version: Version
    """Version of the release."""
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    """Digest of the release."""


class ReleaseClient:
    """Looks releases up. Synchronous: call it in a thread. Safe to share between threads and processes.

    Raises TrustError for anything wrong with keys, signatures, expiry, rollback, mixed-up files or hashes,
    ReleaseTransferError when the repository can't be read, ReleaseMissingError for what it does not have, and OSError
    when the folder can't be written. After an error nothing of the answer is used; what is kept in the folder are
    signed files only, each replaced in one step.
    """

    def __init__(
        self,
        folder: Path,
        root: bytes,
        now: Callable[[], datetime] | None = None,
        *,
        request_seconds: float = REQUEST_SECONDS,
    ) -> None:
        """Take the folder for signed metadata and the trusted root.json.

        What was seen at one URL holds for all: an old state of a repository is old wherever it is served. So a folder
        is for one repository, by whatever URLs it is reached; who reads several has a folder for each.
        now: the time against which expiry is checked, with a zone; default the system's clock. request_seconds: how
        long each request may take.
        """
        self._folder = folder
        self._root = root
        self._now = now or (lambda: datetime.now(UTC))
        self._request_seconds = request_seconds

    def find_channel(self, repository: str, name: str) -> Found:
        """The release that a channel names."""
        with self._open(repository) as session:
            target = session.find(channel_path(name), f"channel {name}", "channels/")
            pointer = session.read_pointer(target)
            return session.fetch(release_path(pointer.version), pointer.digest)

    def find_version(self, repository: str, version: str) -> Found:
        """The release with this version."""
        with self._open(repository) as session:
            return session.fetch(release_path(version), None)

    def find_digest(self, repository: str, digest: str) -> Found:
        """The release with this digest (`sha256:` and 64 hex digits)."""
        with self._open(repository) as session:
            for path, target in session.targets.items():
                if path.startswith("releases/") and f"sha256:{target.hashes.get('sha256')}" == digest:
                    return session.fetch(path, digest)
            raise ReleaseMissingError(f"{repository} has no release {digest}; {session.tell_names('releases/')}")

    def read(self, repository: str, path: str, digest: str) -> Found:
        """The release at `path`, which must have this digest: what a machine does that was told both."""
        with self._open(repository) as session:
            return session.fetch(path, digest)

    def list_contents(self, repository: str) -> Contents:
        """All releases and channels, and how long each role's word is good."""
        with self._open(repository) as session:
            return list_contents(session.targets, session.describe_roles())

    @contextmanager
    def _open(self, repository: str) -> Iterator[_Session]:
        base = _check_repository(repository)
        self._folder.mkdir(parents=True, exist_ok=True)
        with hold_folder(self._folder, WAIT_SECONDS):
            now = self._now().astimezone(UTC)
            session = _Session(base, self._folder, self._root, now, Fetcher(self._request_seconds))
            session.load()
            yield session


class _Session(Updater):
    """One look at one repository, under the folder's lock."""

    def __init__(self, base: str, folder: Path, root: bytes, now: datetime, fetcher: Fetcher) -> None:
        self._base = base
        self._here = fetcher
        if not root:
            raise TrustError("there is no trust root: without its keys no release can be checked")
        for left in folder.glob("tmp*"):
            # Of a process that was killed while it wrote.
            left.unlink(missing_ok=True)
        metadata = f"{base}/metadata/"
        try:
            super().__init__(str(folder), metadata, fetcher=fetcher, config=UpdaterConfig(), bootstrap=root)
        except RepositoryError as error:
            raise TrustError(f"the trust root is of no use: {error}") from error
        self._trusted_set.reference_time = now

    def load(self) -> None:
        """Bring the signed metadata up to date, or raise and use none of it."""
        self._step("root.json", self._load_root)
        self._step("timestamp.json", self._load_timestamp)
        self._step("snapshot.json", self._load_snapshot)
        self._step("targets.json", lambda: self._load_targets(Targets.type, Root.type))

    @property
    def targets(self) -> dict[str, TargetFile]:
        """All that is signed, by name."""
        return self._trusted_set.targets.targets

    def describe_roles(self) -> list[RoleState]:
        """Every role, all of them valid and current."""
        known, now = self._trusted_set, self._trusted_set.reference_time
        return [describe_role(known.root, kind.type, known[kind.type], now) for kind in _KINDS]

    def find(self, path: str, what: str, folder: str) -> TargetFile:
        """The signed entry of a target."""
        if (target := self.targets.get(path)) is None:
            raise ReleaseMissingError(f"{self._base} has no {what}; {self.tell_names(folder)}")
        return target

    def tell_names(self, folder: str) -> str:
        """A half sentence on what there is below a folder of targets."""
        names = [path.removeprefix(folder).removesuffix(".json") for path in self.targets if path.startswith(folder)]
        newest = sorted(names, key=version_key)[-_SHOWN:]
        return f"it has {', '.join(newest)}" if newest else "it has none"

    def read_pointer(self, target: TargetFile) -> Pointer:
        """What is signed of a release beside its hash."""
        try:
            return Pointer.model_validate(target.custom)
        except ValidationError as error:
            raise TrustError(f"{self._base}: {target.path}: {explain_invalid(error)}") from error

    def fetch(self, path: str, digest: str | None) -> Found:
        """The release at `path`, if it has this digest (None: whatever is signed)."""
        target = self.find(path, f"release {path.removeprefix('releases/').removesuffix('.json')}", "releases/")
        signed = f"sha256:{target.hashes.get('sha256')}"
        if digest not in (None, signed):
            raise TrustError(f"{self._base}: {path} is signed with the digest {signed}; expected: {digest}")
        data: list[bytes] = []
        self._step(path, lambda: data.append(self._download(target)))
        document = self._parse(path, data[0])
        used: tuple[type[Signed], ...] = (Root, Timestamp, Snapshot, Targets)
        expires = min(self._trusted_set[kind.type].expires for kind in used)
        return Found(document, digest_document(data[0]), path, data[0], expires)

    def _download(self, target: TargetFile) -> bytes:
        if target.length > MAX_DOCUMENT_BYTES:
            raise LengthOrHashMismatchError(f"length is {target.length}; allowed: {MAX_DOCUMENT_BYTES}")
        url = f"{self._base}/targets/{target.get_prefixed_paths()[0]}"
        data = self._here.download_bytes(url, target.length)
        target.verify_length_and_hashes(data)
        return data

    def _parse(self, path: str, data: bytes) -> ReleaseDocument:
        try:
            document = parse_document(data)
        except ReleaseInvalidError as error:
            raise TrustError(f"{self._base}: {path} is signed, but of no use: {error}") from error
        if document.path != path:
            raise TrustError(f"{self._base}: {path} is signed, but is of version {document.version}")
        return document

    def _step(self, name: str, step: Callable[[], object]) -> None:
        """Do one step; what goes wrong becomes one sentence with the file and the reason."""
        try:
            step()
        except UnsignedMetadataError as error:
            raise TrustError(f"{self._base}: {name} is not signed by the keys it must be: {error}") from error
        except ExpiredMetadataError as error:
            raise TrustError(f"{self._base}: {self._tell_expired(name)}") from error
        except LengthOrHashMismatchError as error:
            raise TrustError(f"{self._base}: {name} is not the file that was signed: {error}") from error
        except (RepositoryError, DownloadLengthMismatchError) as error:
            raise TrustError(f"{self._base}: {name} is refused: {error}") from error
        except DownloadError as error:
            raise ReleaseTransferError(str(error)) from error

    def _tell_expired(self, name: str) -> str:
        now = self._trusted_set.reference_time
        for kind in _KINDS:
            # The one that is loaded and out of date; a targets.json that expired is not even loaded.
            if kind.type in self._trusted_set and (loaded := self._trusted_set[kind.type]).is_expired(now):
                return (
                    f"{kind.type}.json expired at {loaded.expires:%Y-%m-%dT%H:%M:%SZ}; it is {now:%Y-%m-%dT%H:%M:%SZ}"
                )
        return f"{name} is expired; it is {now:%Y-%m-%dT%H:%M:%SZ}"

    def _persist_file(self, filename: str, data: bytes) -> None:
        """Instead of python-tuf's: flushed too, and not at all when nothing changes."""
        path = Path(filename)
        if not path.is_file() or path.read_bytes() != data:
            write_durably(path, data)

    def _update_root_symlink(self) -> None:
        """Instead of python-tuf's: no link, since the root always comes from the caller, and links survive no kill."""


def _check_repository(repository: str) -> str:
    parts = urlsplit(repository)
    if "@" in parts.netloc:
        raise ReleaseTransferError(
            f"the repository at {parts.hostname} is named with a user or a password, which statuses and logs would "
            "show; allowed: a URL without them"
        )
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise ReleaseTransferError(f"repository is {repository!r}; allowed: an http or https URL of a folder")
    return repository.rstrip("/")
