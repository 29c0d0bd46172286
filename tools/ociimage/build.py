"""Builds the image from what is in the cache, and keeps what was built by its contents."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from testos.cache import digest_inputs, keep

from .archive import write_archive
from .debian import fetch_packages
from .layer import LEVEL, Layer, hash_bytes, write_layer
from .settings import EPOCH_SECONDS, HERE, PYTHON, TOP, USER, ImageError
from .tree import make_base, make_program
from .wheels import fetch_wheels

ARCHIVE = "careen.oci.tar"


@dataclass(frozen=True)
class Built:
    """A built image. digest: of its manifest. archive: the OCI archive. layers: base and Careen."""

    archive: Path
    layers: tuple[Layer, Layer]
    digest: str


def build_image() -> Built:
    """The image, from the cache if it is there. Raises ImageError."""
    base = build_base()
    key = digest_inputs(base.digest, HERE / "archive.py", HERE / "settings.py", *_program_inputs())

    def build(folder: Path) -> None:
        program = pack_program(folder / "program.tar.zst")
        (folder / "digest").write_text(write_archive([base, program], folder / ARCHIVE))

    made = keep("image", key, build)
    program = read_layer(made / "program.tar.zst")
    return Built(made / ARCHIVE, (base, program), (made / "digest").read_text())


def build_base() -> Layer:
    """The layer with everything but Careen, from the cache if it is there."""
    debs, wheels = fetch_packages(), fetch_wheels()

    def build(folder: Path) -> None:
        pack_base(debs, wheels, folder / "base.tar.zst")

    return read_layer(keep("base", base_key(debs, wheels), build) / "base.tar.zst")


def base_key(debs: Path, wheels: Path) -> str:
    """Changes with everything that the base is made from."""
    constants = f"{PYTHON} {USER} {EPOCH_SECONDS} {LEVEL}"
    return digest_inputs(debs.name, wheels.name, constants, HERE / "tree.py", HERE / "layer.py")


def pack_base(debs: Path, wheels: Path, path: Path) -> Layer:
    """Make the base layer anew."""
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        root = Path(scratch)
        make_base(root, debs, wheels)
        return _finish(write_layer(root, path))


def pack_program(path: Path) -> Layer:
    """Make Careen's own layer anew."""
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        root = Path(scratch)
        make_program(root)
        return _finish(write_layer(root, path))


def make_root(root: Path, *, strict: bool = False) -> None:
    """Fill an empty folder with the image's whole file system, as a Dockerfile copies it."""
    if root.exists() and any(root.iterdir()):
        raise ImageError(f"{root} is not empty")
    root.mkdir(parents=True, exist_ok=True)
    make_base(root, fetch_packages(strict=strict), fetch_wheels())
    with tempfile.TemporaryDirectory() as scratch:
        make_program(Path(scratch))
        shutil.copytree(scratch, root, symlinks=True, dirs_exist_ok=True)
    for path in root.rglob("*"):
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if executable else 0o644)
    (root / "tmp").chmod(0o1777)
    root.chmod(0o755)


def read_layer(path: Path) -> Layer:
    """A layer that was packed before."""
    return Layer(path, hash_bytes(path.read_bytes()), path.stat().st_size, path.with_suffix(".contents").read_text())


def _finish(layer: Layer) -> Layer:
    layer.path.with_suffix(".contents").write_text(layer.contents)
    return layer


def _program_inputs() -> tuple[Path, ...]:
    return (TOP / "operator/careen", TOP / "LICENSE", HERE / "tree.py", HERE / "layer.py")
