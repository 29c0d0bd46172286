"""Looks into an archive, and runs what is in it: by chroot, as the image's user, on a read-only root."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .settings import ENVIRONMENT, USER, ImageError

SECONDS = 120.0
COMMANDS = (("--version",), ("operator", "--help"), ("agent", "--help"), ("release", "build", "--help"))
_IMPORT_ALL = """
import importlib, pkgutil, careen
names = [each.name for each in pkgutil.walk_packages(careen.__path__, "careen.") if not each.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""
_ENTER = (
    'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && mount -t tmpfs tmpfs "$1/tmp" && shift'
    ' && root=$1 && shift && exec chroot "--userspec=$USER_ID:$USER_ID" --groups= "$root" "$@"'
)


@dataclass(frozen=True)
class Content:
    """What an archive holds: its configuration, its reference, and the entries of its layers, lowest first."""

    config: dict[str, Any]
    reference: str
    layers: tuple[bytes, ...]

    def entries(self) -> Iterator[tarfile.TarInfo]:
        """All entries of all layers."""
        for data in self.layers:
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                yield from archive


def read_archive(path: Path) -> Content:
    """Read an archive by its index and check every hash in it. Raises ImageError."""
    import zstandard

    with tarfile.open(path) as archive:
        blobs = {name: _read(archive, name) for name in archive.getnames() if archive.getmember(name).isfile()}
    for name, data in blobs.items():
        if name.startswith("blobs/") and hashlib.sha256(data).hexdigest() != Path(name).name:
            raise ImageError(f"{path}: {name} has other contents than its name says")
    entry = json.loads(blobs["index.json"])["manifests"][0]
    manifest = json.loads(blobs[_place(entry)])
    config = json.loads(blobs[_place(manifest["config"])])
    expand = zstandard.ZstdDecompressor().decompress
    layers = tuple(expand(blobs[_place(layer)]) for layer in manifest["layers"])
    found = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in layers]
    saved = json.loads(blobs["manifest.json"])[0]
    if found != config["rootfs"]["diff_ids"] or saved["Layers"] != [_place(each) for each in manifest["layers"]]:
        raise ImageError(f"{path}: the layers are not those that its configuration and manifest.json name")
    return Content(config, entry["annotations"]["io.containerd.image.name"], layers)


@contextmanager
def unpacked(content: Content) -> Iterator[Path]:
    """The file system in a folder, for as long as the `with` lasts. Files belong to whoever asks."""
    with tempfile.TemporaryDirectory(prefix="careen-image-") as name:
        root = Path(name) / "root"
        root.mkdir(mode=0o755)
        Path(name).chmod(0o755)
        for data in content.layers:
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                archive.extractall(root, filter="fully_trusted")  # noqa: S202 - the archive is ours
        yield root


def run_inside(root: Path, command: Sequence[str], environment: dict[str, str] | None = None) -> str:
    """Run a program of an unpacked image as the image's user on a read-only root; its output.

    Needs root, for the mounts. Raises ImageError when it is missing, or when the program fails.
    """
    if os.geteuid() != 0:
        raise ImageError("running what is in the image needs root: it is mounted read-only, and entered by chroot")
    alone = ["unshare", "--mount", "--pid", "--fork", "--net"]
    outside = [*alone, "sh", "-c", _ENTER, "sh", str(root), str(root), *command]
    variables = ENVIRONMENT | {"USER_ID": str(USER)} | (environment or {})
    done = subprocess.run(outside, env=variables, capture_output=True, text=True, check=False, timeout=SECONDS)
    if done.returncode:
        raise ImageError(f"{' '.join(command)} failed in the image ({done.returncode}): {done.stderr[-1500:]}")
    return done.stdout


def check_archive(path: Path) -> list[str]:
    """Run the commands that every role begins with; what was seen, a line each. Raises ImageError."""
    content = read_archive(path)
    lines = []
    with unpacked(content) as root:
        for arguments in COMMANDS:
            output = run_inside(root, [*content.config["config"]["Entrypoint"], *arguments])
            lines.append(f"careen {' '.join(arguments)}: {len(output.splitlines())} lines")
        lines.append(f"modules imported: {run_inside(root, ['python3', '-c', _IMPORT_ALL]).strip()}")
    return lines


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None
    return file.read()


def _place(entry: dict[str, Any]) -> str:
    return f"blobs/{str(entry['digest']).replace(':', '/')}"
