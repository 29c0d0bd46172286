"""Looking into releases and repositories: what they hold, how long it is good for, and what an update would fetch."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import zstandard
from tuf.api.metadata import Metadata, TargetFile, Targets

from .contents import Contents, describe_role, list_contents
from .errors import ReleaseError, ReleaseInvalidError, ReleaseMissingError
from .manifest import Image, ReleaseDocument, StaticFile, channel_path, digest_document, parse_document, release_path
from .repository import DOCUMENT_NAME
from .trust import ROLES, TrustStore
from .verity import HASH_BYTES, ZERO_LEAF, check_tree
from .versions import version_key

MAX_TREE_BYTES = 1 << 31


@dataclass(frozen=True)
class Delta:
    """What a machine with one image has to fetch for another one, at most: zeros and blocks it has are not fetched."""

    blocks: int
    """Blocks of the file system."""
    same_place: int
    """Of them, those equal to the block at the same place: not even written."""
    reused: int
    """Of them, those found elsewhere in the old image."""
    zero: int
    missing: int
    """Of them, those to be fetched."""
    frames: int
    """Frames with a missing block."""
    frame_bytes: int
    """Compressed size of these frames."""
    index_bytes: int
    """Compressed size of the hash tree and the table of frames."""

    @property
    def fetched_bytes(self) -> int:
        """All that is fetched."""
        return self.frame_bytes + self.index_bytes


def read_contents(folder: Path, now: datetime) -> Contents:
    """What a repository folder holds, whether or not it would be believed. Raises ReleaseError, OSError."""
    store = TrustStore(folder, {}, now)
    roles = []
    for name in ROLES:
        metadata: Metadata[Any] | None = store.read(name)
        if metadata is not None:
            state = describe_role(store.root.signed, name, metadata.signed, now)
            valid, waits = store.is_valid(name, metadata), store.read_draft(name) is not None
            roles.append(replace(state, valid=valid, waits=waits))
    return list_contents(_read_targets(folder, now), roles)


def read_release(
    place: Path, now: datetime, *, version: str | None = None, channel: str | None = None
) -> tuple[ReleaseDocument, str]:
    """The document and digest of a built release, or of one in a repository folder. Raises ReleaseError, OSError."""
    if (place / DOCUMENT_NAME).exists():
        data = (place / DOCUMENT_NAME).read_bytes()
        return parse_document(data), digest_document(data)
    targets = _read_targets(place, now)
    if channel is not None:
        target = _find(targets, channel_path(channel), f"channel {channel}")
        version = str(target.custom["version"]) if isinstance(target.custom, dict) else ""
    target = _find(targets, release_path(version or ""), f"release {version}")
    data = (place / "targets" / target.get_prefixed_paths()[0]).read_bytes()
    if (found := digest_document(data)) != f"sha256:{target.hashes['sha256']}":
        raise ReleaseInvalidError(f"{target.path} has the digest {found}; signed: sha256:{target.hashes['sha256']}")
    return parse_document(data), found


def read_file(place: Path, file: StaticFile) -> bytes:
    """Contents of a file of a document, below a build's or repository's folder. Raises ReleaseInvalidError, OSError."""
    data = (place / file.path).read_bytes()
    check_file(file, data)
    return data


def check_file(file: StaticFile, data: bytes) -> None:
    """Raises ReleaseInvalidError if `data` is not what the document says of the file."""
    found = digest_document(data).removeprefix("sha256:")
    if found != file.sha256:
        raise ReleaseInvalidError(f"{file.path} has the hash {found}; its document says {file.sha256}")


def read_leaves(image: Image, tree: bytes) -> bytes:
    """The leaves, 32 bytes each, from the contents of an image's tree file. Raises ReleaseError."""
    return check_tree(_unpack(image.tree, tree, image.tree_bytes), image.data_blocks, bytes.fromhex(image.verity_root))


def read_table(image: Image, table: bytes) -> tuple[int, ...]:
    """The compressed length of every frame, from the contents of an image's table file. Raises ReleaseError."""
    count = image.frame_count
    lengths = struct.unpack(f"<{count}I", _unpack(image.table, table, 4 * count))
    if sum(lengths) != image.frames.length:
        raise ReleaseInvalidError(f"the table adds up to {sum(lengths)} bytes; the frames have {image.frames.length}")
    return lengths


def measure_delta(image: Image, leaves: bytes, lengths: tuple[int, ...], old: bytes) -> Delta:
    """What is to be fetched for `image`, with its leaves and frame lengths, over an image with the leaves `old`."""
    known = {old[at : at + HASH_BYTES] for at in range(0, len(old), HASH_BYTES)}
    same = reused = zero = missing = 0
    frames: set[int] = set()
    for block in range(image.data_blocks):
        at = block * HASH_BYTES
        leaf = leaves[at : at + HASH_BYTES]
        if leaf == old[at : at + HASH_BYTES]:
            same += 1
        elif leaf == ZERO_LEAF:
            zero += 1
        elif leaf in known:
            reused += 1
        else:
            missing += 1
            frames.add(block // image.frame_blocks)
    return Delta(
        blocks=image.data_blocks,
        same_place=same,
        reused=reused,
        zero=zero,
        missing=missing,
        frames=len(frames),
        frame_bytes=sum(lengths[frame] for frame in frames),
        index_bytes=image.tree.length + image.table.length,
    )


def _unpack(file: StaticFile, data: bytes, size: int) -> bytes:
    """Decompress to exactly `size` bytes: no more memory than the document announces, whatever the file says."""
    if size > MAX_TREE_BYTES:
        raise ReleaseInvalidError(f"{file.path} would have {size} bytes; allowed: {MAX_TREE_BYTES}")
    try:
        unpacked = zstandard.ZstdDecompressor().stream_reader(data).read(size + 1)
    except zstandard.ZstdError as error:
        raise ReleaseInvalidError(f"{file.path} can't be decompressed: {error}") from error
    if len(unpacked) != size:
        raise ReleaseInvalidError(f"{file.path} has {len(unpacked)} bytes or more when decompressed; expected: {size}")
    return unpacked


def _read_targets(folder: Path, now: datetime) -> dict[str, TargetFile]:
    metadata: Metadata[Targets] | None = TrustStore(folder, {}, now).read("targets")
    if metadata is None:
        raise ReleaseError(f"{folder} holds neither a build nor a repository")
    return metadata.signed.targets


def _find(targets: dict[str, TargetFile], path: str, what: str) -> TargetFile:
    if (target := targets.get(path)) is None:
        folder = path.split("/", maxsplit=1)[0] + "/"
        names = [name.removeprefix(folder).removesuffix(".json") for name in targets if name.startswith(folder)]
        raise ReleaseMissingError(f"there is no {what}; there is {', '.join(sorted(names, key=version_key)) or 'none'}")
    return target
