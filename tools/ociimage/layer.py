"""One layer of the image: a folder as an archive, the same bytes whoever packs it, where and when."""

from __future__ import annotations

import hashlib
import tarfile
from dataclasses import dataclass
from pathlib import Path

from .tree import describe, iterate

LEVEL = 15
"""Of zstd: what it costs is paid once for each change, and every node pulls the result."""


@dataclass(frozen=True)
class Layer:
    """One layer. path: its file, compressed. contents: `sha256:` and the hash of the archive in it."""

    path: Path
    digest: str
    size: int
    contents: str


def write_layer(root: Path, path: Path) -> Layer:
    """Pack a folder: sorted, with one date and one owner."""
    # Imported here: a Dockerfile makes the tree with a Python that has no packages.
    import zstandard

    with tarfile.open(path.with_suffix(".tar"), "w", format=tarfile.GNU_FORMAT) as archive:
        for each in iterate(root):
            entry = describe(each, root)
            if entry.isfile():
                with each.open("rb") as file:
                    archive.addfile(entry, file)
            else:
                archive.addfile(entry)
    plain = path.with_suffix(".tar")
    data = plain.read_bytes()
    plain.unlink()
    # The compressor's version is in the lock, unlike zlib's; so the bytes are the same on any machine.
    packed = zstandard.ZstdCompressor(level=LEVEL, threads=0).compress(data)
    path.write_bytes(packed)
    return Layer(path, hash_bytes(packed), len(packed), hash_bytes(data))


def hash_bytes(data: bytes) -> str:
    """`sha256:` and the hash."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
