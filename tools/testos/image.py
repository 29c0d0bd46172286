"""Images of the OS as a slot holds them: file system, hash tree, and the boot block that names them."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid5

from careen.disk.ext4 import make_ext4
from careen.release.bootblock import BootBlock
from careen.release.manifest import BootFile
from careen.release.verity import BLOCK_BYTES, build_tree, hash_block

from .cache import digest_inputs, keep
from .debian import HERE, PackageSet
from .ramdisk import build_ramdisks
from .tree import Flavor
from .tree import build_tree as build_usr
from .variant import Variant, apply, copy_tree

MIB = 1 << 20
FILESYSTEM_BYTES = {Flavor.SMALL: 192 * MIB, Flavor.FULL: 480 * MIB}
"""Size of the file system: the same for all versions, so that blocks of two versions can lie in the same places."""
SLOT_BYTES = {Flavor.SMALL: 200 * MIB, Flavor.FULL: 496 * MIB}
"""Size of the slots of a machine."""
ARCHITECTURE = "x86_64"
_NAMESPACE = UUID("0b2c3f62-8a0a-5f0e-9f3e-3a4bb1c7a7de")


@dataclass(frozen=True)
class OsImage:
    """A built image."""

    variant: Variant
    flavor: Flavor
    folder: Path
    """Folder of the cache that holds its files."""

    @property
    def image(self) -> Path:
        """The file system with its hash tree."""
        return self.folder / "image"

    @property
    def block(self) -> BootBlock:
        """The boot block of a slot that holds it."""
        return BootBlock.model_validate_json((self.folder / "boot-block.json").read_text())


@dataclass(frozen=True)
class Loader:
    """The boot loader of the test machines, for QEMU's -kernel and -initrd."""

    kernel: Path
    initrd: Path


def build_loader(packages: PackageSet = PackageSet.SECURITY, flavor: Flavor = Flavor.SMALL) -> Loader:
    """The boot loader, from the cache if it is there."""
    tree = build_usr(packages, flavor)
    return Loader(tree.usr / "boot/vmlinuz", build_ramdisks(tree.root, tree.key) / "loader")


def build_image(
    variant: Variant, *, packages: PackageSet = PackageSet.SECURITY, flavor: Flavor = Flavor.SMALL
) -> OsImage:
    """The image of a version, from the cache if it is there. Needs root and Debian 12 to build it."""
    tree = build_usr(packages, flavor)
    ramdisks = build_ramdisks(tree.root, tree.key)
    here = (Path(__file__), HERE / "variant.py")
    key = digest_inputs(tree.key, ramdisks.name, variant.name, flavor, *here)

    def build(folder: Path) -> None:
        # Beside the trees, since hard links do not cross file systems.
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".variant-") as scratch:
            usr = Path(scratch) / "usr"
            copy_tree(tree.usr, usr)
            apply(variant, usr)
            shutil.copyfile(ramdisks / "initrd", usr / "boot/initrd.img")
            block = _make_image(usr, folder / "image", variant, FILESYSTEM_BYTES[flavor])
        (folder / "boot-block.json").write_text(block.model_dump_json(by_alias=True))

    return OsImage(variant, flavor, keep(f"image-{packages}-{flavor}-{variant.name}", key, build))


def _make_image(usr: Path, image: Path, variant: Variant, size: int) -> BootBlock:
    make_ext4(usr, image, size=size, uuid=uuid5(_NAMESPACE, variant.name), label=f"usr-{variant.version}"[:16])
    with image.open("rb") as file:
        leaves = b"".join(hash_block(data) for data in iter(lambda: file.read(BLOCK_BYTES), b""))
    tree = build_tree(leaves)
    with image.open("ab") as file:
        file.write(tree.data)
    return BootBlock(
        version=variant.version,
        digest=f"sha256:{hashlib.sha256(variant.name.encode() + tree.root).hexdigest()}",
        verity_root=tree.root.hex(),
        data_blocks=size // BLOCK_BYTES,
        size=image.stat().st_size,
        kernel=_describe(usr, "boot/vmlinuz"),
        initrd=_describe(usr, "boot/initrd.img"),
    )


def _describe(usr: Path, path: str) -> BootFile:
    data = (usr / path).read_bytes()
    return BootFile(path=path, length=len(data), sha256=hashlib.sha256(data).hexdigest())
