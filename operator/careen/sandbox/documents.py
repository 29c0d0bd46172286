"""Signed releases without contents, for machines in memory that fetch nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from tuf.api.metadata import TargetFile, Targets

from careen.release.keys import create_key, load_keys, load_public_key
from careen.release.manifest import Image, ReleaseDocument, StaticFile, digest_document
from careen.release.repository import create_repository
from careen.release.trust import ROLES, TrustStore
from careen.release.verity import BLOCK_BYTES, count_tree_bytes

_BLOCKS = 16


def make_document(number: int) -> ReleaseDocument:
    """The document of release number.0.0: in order, but none of its files is anywhere."""
    digest = f"{number:064x}"
    size = _BLOCKS * BLOCK_BYTES + count_tree_bytes(_BLOCKS)
    files = {kind: StaticFile(path=f"files/{digest}.{kind}", length=1, sha256=digest) for kind in _KINDS}
    image = Image(filesystem="ext4", size=size, sha256=digest, data_blocks=_BLOCKS, verity_root=digest, **files)
    return ReleaseDocument(
        version=f"{number}.0.0", product="careen-memory", capabilities=("trial-timer",), images={"x86_64": image}
    )


_KINDS = ("tree", "table", "frames")


@cache
def digest_of(number: int) -> str:
    """The digest of release number.0.0."""
    return digest_document(make_document(number).dump())


def sign_documents(folder: Path, numbers: Sequence[int]) -> Path:
    """Make a repository of these releases in folder/public, and return the file with its trust root."""
    public, keys = folder / "public", folder / "keys"
    keys.mkdir(parents=True)
    create_key(keys / "all.pem")
    key = load_public_key(keys / "all.pem")
    signers = load_keys([keys])
    root = folder / "root.json"
    root.write_bytes(create_repository(public, {role: [key] for role in ROLES}, signers))
    targets = dict(_write_target(public, make_document(number)) for number in numbers)

    def change(signed: Targets) -> None:
        signed.targets.update(targets)

    # All at once: publishing one after the other would sign a hundred times.
    store = TrustStore(public, signers, datetime.now(UTC))
    store.edit_targets(change)
    store.sign()
    return root


def _write_target(public: Path, document: ReleaseDocument) -> tuple[str, TargetFile]:
    data = document.dump()
    target = TargetFile.from_data(document.path, data, ["sha256"])
    target.unrecognized_fields["custom"] = {"version": document.version, "digest": digest_document(data)}
    place = public / "targets" / target.get_prefixed_paths()[0]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    return document.path, target
