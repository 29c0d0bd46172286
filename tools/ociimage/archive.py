"""The OCI archive: a layout with an index, which older tools read as what `docker save` writes."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .layer import Layer, hash_bytes
from .settings import (
    ENTRYPOINT,
    ENVIRONMENT,
    EPOCH_SECONDS,
    LABELS,
    REFERENCE,
    USER,
    VERSION,
    WORKING_FOLDER,
    debian_architecture,
)

CREATED = datetime.fromtimestamp(EPOCH_SECONDS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
_OCI = "application/vnd.oci.image"


def describe_image(layers: Sequence[Layer]) -> dict[str, Any]:
    """The image's configuration."""
    return {
        "architecture": debian_architecture(),
        "os": "linux",
        "created": CREATED,
        "config": {
            "User": f"{USER}:{USER}",
            "Env": [f"{name}={value}" for name, value in ENVIRONMENT.items()],
            "Entrypoint": list(ENTRYPOINT),
            "WorkingDir": WORKING_FOLDER,
            "Labels": LABELS,
        },
        "rootfs": {"type": "layers", "diff_ids": [layer.contents for layer in layers]},
        "history": [{"created": CREATED, "created_by": "tools/ociimage"} for _ in layers],
    }


def write_archive(layers: Sequence[Layer], path: Path) -> str:
    """Write the archive; the digest of its manifest."""
    config = _encode(describe_image(layers))
    manifest = _encode(
        {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": _point(f"{_OCI}.config.v1+json", config),
            "layers": [
                {"mediaType": f"{_OCI}.layer.v1.tar+zstd", "digest": layer.digest, "size": layer.size}
                for layer in layers
            ],
        }
    )
    names = {"io.containerd.image.name": REFERENCE, "org.opencontainers.image.ref.name": VERSION}
    entry = _point(f"{_OCI}.manifest.v1+json", manifest) | {
        "annotations": names,
        "platform": {"architecture": debian_architecture(), "os": "linux"},
    }
    index = {"schemaVersion": 2, "mediaType": f"{_OCI}.index.v1+json", "manifests": [entry]}
    saved = {"Config": _blob(config), "RepoTags": [REFERENCE], "Layers": [_place(each.digest) for each in layers]}
    small = {
        "oci-layout": _encode({"imageLayoutVersion": "1.0.0"}),
        "index.json": _encode(index),
        "manifest.json": _encode([saved]),
        _blob(config): config,
        _blob(manifest): manifest,
    }
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name in ("blobs", "blobs/sha256"):
            folder = _head(name, 0)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(folder)
        for name, data in small.items():
            archive.addfile(_head(name, len(data)), io.BytesIO(data))
        for layer in layers:
            with layer.path.open("rb") as file:
                archive.addfile(_head(_place(layer.digest), layer.size), file)
    return hash_bytes(manifest)


def _encode(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _point(kind: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "digest": hash_bytes(data), "size": len(data)}


def _blob(data: bytes) -> str:
    return _place(hash_bytes(data))


def _place(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _head(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = size, EPOCH_SECONDS, 0o644
    return entry
