"""Images of pods made from one static program, and the disk that brings a node all its images."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from testos.cache import digest_inputs, keep
from testos.cpio import resolve_inside
from testos.debian import PackageSet, build_root

PAUSE = "careen.test/pause:1"
BUSYBOX = "careen.test/busybox:1"
WAIT = ["/bin/sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait; done"]
"""Waits, and ends at once when it is told to: as the first process of a pod it would not by itself."""
_APPLETS = ("sh", "sleep", "cat", "echo", "ls")
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def build_pod_images() -> Path:
    """An OCI archive with the images PAUSE and BUSYBOX, from the cache if it is there. Raises TestOsError."""
    root = build_root(PackageSet.NODE)

    def build(folder: Path) -> None:
        write_pod_images(root / "root", folder / "pods.tar")

    return keep("pods", digest_inputs(root.name, Path(__file__)), build) / "pods.tar"


def write_pod_images(root: Path, archive: Path) -> None:
    """Write the archive with a root tree's busybox; the same tree, the same bytes."""
    blobs: dict[str, bytes] = {}
    layer = _make_layer(resolve_inside(root, "usr/bin/busybox").read_bytes())
    manifests = [_add_image(blobs, name, layer) for name in (PAUSE, BUSYBOX)]
    index = {"schemaVersion": 2, "manifests": manifests}
    files = {"oci-layout": _dump({"imageLayoutVersion": "1.0.0"}), "index.json": _dump(index), **blobs}
    with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files.items():
            _add(tar, name, data)


def write_images_disk(disk: Path, archives: Sequence[Path], aliases: Mapping[str, str]) -> None:
    """Write a tar of image archives, after a member with their hashes, to which a node compares what it has.

    aliases: further names of images, each with the name that the image has in its archive.
    """
    sums = [hashlib.sha256(archive.read_bytes()).hexdigest() for archive in archives]
    names = [f"{image} {alias}" for alias, image in aliases.items()]
    with tarfile.open(disk, "w", format=tarfile.USTAR_FORMAT) as tar:
        _add(tar, "hashes", "".join(f"{line}\n" for line in [*sums, *names]).encode())
        _add(tar, "aliases", "".join(f"{line}\n" for line in names).encode())
        for number, archive in enumerate(archives):
            _add(tar, f"{number}.tar", archive.read_bytes())


def _add_image(blobs: dict[str, bytes], name: str, layer: bytes) -> dict[str, Any]:
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Entrypoint": WAIT},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _add_blob(blobs, _CONFIG, _dump(config)),
        "layers": [_add_blob(blobs, _LAYER, layer)],
    }
    described = _add_blob(blobs, _MANIFEST, _dump(manifest))
    return {**described, "annotations": {"io.containerd.image.name": name}}


def _add_blob(blobs: dict[str, bytes], kind: str, data: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    blobs[f"blobs/sha256/{digest}"] = data
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}


def _make_layer(busybox: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        folder = tarfile.TarInfo("bin")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
        _add(tar, "bin/busybox", busybox, 0o755)
        for applet in _APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return made.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), mode
    tar.addfile(member, io.BytesIO(data))


def _dump(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True).encode()
