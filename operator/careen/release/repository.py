"""A repository folder, for any web server to serve: publishing releases, naming channels, changing keys."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from securesystemslib.signer import Key
from tuf.api.metadata import Root, TargetFile, Targets

from .durable import FRESH_SUFFIX, hold_folder, sync_folder, write_durably
from .errors import PublishError, ReleaseInvalidError
from .keys import Signers
from .manifest import Name, ReleaseDocument, StaticFile, channel_path, digest_document, parse_document, release_path
from .trust import EXPIRY_DAYS, Note, RoleName, TrustStore

DOCUMENT_NAME = "release.json"
"""Name of the document in the folder of a built release."""
WAIT_SECONDS = 60.0
"""How long a change waits for another one of the same folder, in seconds."""
_COPY_BYTES = 1 << 20
_CHANNEL: TypeAdapter[str] = TypeAdapter(Name)


@dataclass(frozen=True)
class Published:
    """What a change of a repository led to."""

    version: str
    digest: str
    in_force: bool
    """False: the list of targets waits for more signatures (`sign`)."""
    notes: tuple[Note, ...]
    """What was signed, and what waits."""


@dataclass(frozen=True)
class Rotation:
    """A change of keys."""

    add: Sequence[tuple[RoleName, Key]] = ()
    """Keys that may sign from now on."""
    remove: Sequence[tuple[RoleName, str]] = ()
    """Ids, or unique beginnings of ids, of keys that may no longer."""
    thresholds: Mapping[RoleName, int] | None = None
    """How many keys of a role must sign; what is not named stays."""


def create_repository(
    folder: Path,
    keys: Mapping[RoleName, list[Key]],
    signers: Signers,
    *,
    thresholds: Mapping[RoleName, int] | None = None,
    days: Mapping[RoleName, int] | None = None,
    now: Callable[[], datetime] | None = None,
) -> bytes:
    """Make an empty repository and return its first root.json, which goes into the image as the trust root.

    keys: who may sign what. signers: private keys at hand, by id. thresholds: default 1 each. days: how long what a
    role signs is good for. Raises PublishError, OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _open_store(folder, signers, now, create=(keys, thresholds or {}, {**EXPIRY_DAYS, **(days or {})})) as store:
        root = store.find_newest("root")
        for name in ("metadata", "targets", "targets/releases", "targets/channels", "files"):
            (folder / name).mkdir(exist_ok=True)
            # For the web server, whatever the umask.
            (folder / name).chmod(0o755)
        return root.read_bytes() if root else b""


def publish_release(
    folder: Path,
    builds: Sequence[Path],
    signers: Signers,
    *,
    channels: Sequence[str] = (),
    now: Callable[[], datetime] | None = None,
) -> Published:
    """Put built architectures (folders made by build_release) into the repository as one release, and name channels.

    Publishing the same again changes nothing but channels. Nothing is named by signed metadata before it lies in the
    folder, and what is there is never changed. Raises PublishError when the builds do not belong together, the version
    is there with other contents, or a file is not what its document says; OSError.
    """
    document, sources = merge_builds(builds)
    data = document.dump()
    digest = digest_document(data)
    with _open_store(folder, signers, now) as store:
        _require_new(store, document, digest)
        for file, source in sources:
            _place_file(folder, file, source)
        targets = {document.path: _place_target(folder, document.path, data, document.version, digest)}
        return _name_channels(folder, store, targets, version=document.version, digest=digest, channels=channels)


def set_channels(
    folder: Path,
    version: str,
    signers: Signers,
    *,
    channels: Sequence[str],
    now: Callable[[], datetime] | None = None,
) -> Published:
    """Let channels name a version that is published already. Raises PublishError if it is not; OSError."""
    with _open_store(folder, signers, now) as store:
        metadata = store.read_draft("targets") or store.read("targets")
        known: dict[str, TargetFile] = metadata.signed.targets if metadata else {}
        if (target := known.get(release_path(version))) is None:
            raise PublishError(f"{folder} has no release {version}; publish it first")
        digest = f"sha256:{target.hashes['sha256']}"
        return _name_channels(folder, store, {}, version=version, digest=digest, channels=channels)


def sign_repository(folder: Path, signers: Signers, *, now: Callable[[], datetime] | None = None) -> list[Note]:
    """Sign all that waits for the keys at hand, and a new timestamp. Returns what was done. Raises PublishError."""
    with _open_store(folder, signers, now) as store:
        return store.sign()


def rotate_keys(
    folder: Path, signers: Signers, rotation: Rotation, *, now: Callable[[], datetime] | None = None
) -> list[Note]:
    """Make the next root.json, signed by enough of the old and of the new root keys, and sign what follows from it.

    An empty rotation only gives the root a new expiry. Returns what was done and what waits. Raises PublishError.
    """

    def change(root: Root) -> None:
        for role, key in rotation.add:
            root.add_key(key, role)
        for role, keyid in rotation.remove:
            root.revoke_key(_find_key(root, role, keyid), role)
        for role, threshold in (rotation.thresholds or {}).items():
            root.roles[role].threshold = threshold

    with _open_store(folder, signers, now) as store:
        if not store.edit_root(change):
            return store.sign()
        return [Note(True, f"root.json is now version {store.root.signed.version}"), *store.sign()]


def merge_builds(builds: Sequence[Path]) -> tuple[ReleaseDocument, list[tuple[StaticFile, Path]]]:
    """One document for all built architectures, and where each of its files lies. Raises PublishError, OSError."""
    if not builds:
        raise PublishError("no build is given; allowed: folders made by build")
    documents = [_read_build(build) for build in builds]
    first = documents[0]
    images = dict(first.images)
    for build, document in zip(builds[1:], documents[1:], strict=True):
        for field in type(document).model_fields:
            here, there = getattr(document, field), getattr(first, field)
            if field != "images" and here != there:
                raise PublishError(f"{build}: {field} is {here!r}; the first build has {there!r}: all must be alike")
        if twice := images.keys() & document.images.keys():
            raise PublishError(f"{build}: architecture {min(twice)} is in another build too")
        images |= document.images
    sources = [
        (file, build / file.path)
        for build, document in zip(builds, documents, strict=True)
        for image in document.images.values()
        for file in (image.tree, image.table, image.frames)
    ]
    return first.model_copy(update={"images": images}), sources


@contextmanager
def _open_store(
    folder: Path,
    signers: Signers,
    now: Callable[[], datetime] | None,
    create: tuple[Mapping[RoleName, list[Key]], Mapping[RoleName, int], Mapping[RoleName, int]] | None = None,
) -> Iterator[TrustStore]:
    if not folder.is_dir():
        raise PublishError(f"{folder} is no folder; allowed: a repository made by careen")
    with hold_folder(folder, WAIT_SECONDS):
        at = (now or (lambda: datetime.now(UTC)))()
        if create is not None:
            keys, thresholds, days = create
            yield TrustStore.create(folder, keys, signers, at, thresholds=thresholds, days=days)
            return
        store = TrustStore(folder, signers, at)
        if store.find_newest("root") is None:
            raise PublishError(f"{folder} holds no root.json; allowed: a repository made by careen")
        yield store


def _read_build(build: Path) -> ReleaseDocument:
    try:
        return parse_document((build / DOCUMENT_NAME).read_bytes())
    except ReleaseInvalidError as error:
        raise PublishError(f"{build / DOCUMENT_NAME}: {error}") from error


def _require_new(store: TrustStore, document: ReleaseDocument, digest: str) -> None:
    for metadata in (store.read("targets"), store.read_draft("targets")):
        target = metadata.signed.targets.get(document.path) if metadata else None
        if target is not None and f"sha256:{target.hashes['sha256']}" != digest:
            raise PublishError(
                f"version {document.version} is there with the digest sha256:{target.hashes['sha256']}; "
                f"this one has {digest}: a version is never changed, give it another"
            )


def _place_file(folder: Path, file: StaticFile, source: Path) -> None:
    """Copy a file of the document to its place, if it is what the document says."""
    place = folder / file.path
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_file() and place.stat().st_size == file.length and _hash_file(place) == file.sha256:
        return
    fresh = place.with_name(f".{place.name}{FRESH_SUFFIX}")
    try:
        with source.open("rb") as origin, fresh.open("wb") as copy:
            shutil.copyfileobj(origin, copy, _COPY_BYTES)
            copy.flush()
            os.fsync(copy.fileno())
        if (found := _hash_file(fresh)) != file.sha256:
            raise PublishError(f"{source} has the hash {found}; its document says {file.sha256}: build it again")
        fresh.chmod(0o644)
        fresh.replace(place)
    finally:
        fresh.unlink(missing_ok=True)
    sync_folder(place.parent)


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _place_target(folder: Path, path: str, data: bytes, version: str, digest: str) -> TargetFile:
    """Write a target under its hashed name, and say what is to be signed of it."""
    target = TargetFile.from_data(path, data, ["sha256"])
    target.unrecognized_fields["custom"] = {"version": version, "digest": digest}
    for name in target.get_prefixed_paths():
        place = folder / "targets" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        write_durably(place, data)
    return target


def _name_channels(
    folder: Path,
    store: TrustStore,
    targets: dict[str, TargetFile],
    *,
    version: str,
    digest: str,
    channels: Sequence[str],
) -> Published:
    for name in channels:
        _check_channel(name)
        data = json.dumps({"version": version, "digest": digest}, sort_keys=True).encode() + b"\n"
        path = channel_path(name)
        targets[path] = _place_target(folder, path, data, version, digest)

    def change(signed: Targets) -> None:
        signed.targets.update(targets)

    metadata = store.read_draft("targets") or store.read("targets")
    known = metadata.signed.targets if metadata else {}
    changed = any(known.get(path) != target for path, target in targets.items())
    in_force = store.edit_targets(change) if changed else store.read_draft("targets") is None
    return Published(version, digest, in_force, tuple(store.sign()))


def _check_channel(name: str) -> None:
    try:
        _CHANNEL.validate_python(name)
    except ValidationError as error:
        raise PublishError(f"channel is {name!r}; allowed: letters, digits, '.', '_' and '-', up to 64") from error


def _find_key(root: Root, role: RoleName, beginning: str) -> str:
    found = [keyid for keyid in root.roles[role].keyids if keyid.startswith(beginning)]
    if len(found) != 1 or not beginning:
        known = ", ".join(keyid[:12] for keyid in root.roles[role].keyids)
        raise PublishError(f"{beginning!r} is the beginning of {len(found)} keys of {role}; allowed: one of {known}")
    return found[0]
