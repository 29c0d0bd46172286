"""Releases of the OS as `careen release build` makes them, one for each version."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import careen.release
from careen.release.bootblock import BootBlock
from careen.release.build import IMAGE_NAME, Build, build_release
from careen.release.manifest import ReleaseDocument, digest_document, parse_document
from careen.release.repository import DOCUMENT_NAME

from .agent import build_agent
from .cache import digest_inputs, keep
from .debian import HERE, PackageSet
from .node.tree import build_node_tree
from .ramdisk import build_ramdisks
from .tree import PRODUCT, Flavor, enable
from .tree import build_tree as build_usr
from .variant import AGENT_UNIT, TRIAL_TIMER, Variant, apply, copy_tree

MIB = 1 << 20
FILESYSTEM_BYTES = {Flavor.SMALL: 256 * MIB, Flavor.FULL: 560 * MIB, Flavor.NODE: 384 * MIB}
"""Size of the file system: the same for all versions, so that blocks of two versions can lie in the same places."""
SLOT_BYTES = {Flavor.SMALL: 264 * MIB, Flavor.FULL: 576 * MIB, Flavor.NODE: 396 * MIB}
"""Size of the slots of a machine."""
ARCHITECTURE = "x86_64"
CAPABILITIES = ("trial-timer",)
_LEVELS = {Flavor.SMALL: 3, Flavor.FULL: 9, Flavor.NODE: 3}
_SOURCES = Path(careen.release.__file__).parent


@dataclass(frozen=True)
class OsImage:
    """A built image."""

    variant: Variant
    packages: PackageSet
    flavor: Flavor
    folder: Path
    """Folder of the cache that holds its files."""

    @property
    def image(self) -> Path:
        """The file system with its hash tree."""
        return self.folder / IMAGE_NAME

    @cached_property
    def document(self) -> ReleaseDocument:
        """What the release says of itself."""
        return parse_document((self.folder / DOCUMENT_NAME).read_bytes())

    @cached_property
    def digest(self) -> str:
        """The digest of the release."""
        return digest_document(self.document.dump())

    @cached_property
    def block(self) -> BootBlock:
        """The boot block of a slot that holds it."""
        return BootBlock.of(self.document, self.digest, ARCHITECTURE)


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
    tree = build_node_tree() if flavor is Flavor.NODE else build_usr(packages, flavor)
    ramdisks = build_ramdisks(tree.root, tree.key)
    # A node's agent comes in a pod.
    agent = None if flavor is Flavor.NODE else build_agent()
    known = agent.name if agent else ""
    key = digest_inputs(
        tree.key, ramdisks.name, known, variant.name, flavor, Path(__file__), HERE / "variant.py", *_sources()
    )

    def build(folder: Path) -> None:
        # Beside the trees, since hard links do not cross file systems.
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".variant-") as scratch:
            usr = Path(scratch) / "usr"
            copy_tree(tree.usr, usr)
            if agent is not None:
                _add_agent(usr, agent)
            apply(variant, usr)
            wanted = Build(
                usr,
                variant.version,
                PRODUCT,
                ARCHITECTURE,
                initrd=ramdisks / "initrd",
                capabilities=CAPABILITIES,
                filesystem_bytes=FILESYSTEM_BYTES[flavor],
                level=_LEVELS[flavor],
            )
            build_release(wanted, folder)

    return OsImage(variant, packages, flavor, keep(f"image-{packages}-{flavor}-{variant.name}", key, build))


def build_node_image(variant: Variant) -> OsImage:
    """The image of a version for Kubernetes nodes."""
    return build_image(variant, packages=PackageSet.NODE, flavor=Flavor.NODE)


def _add_agent(usr: Path, agent: Path) -> None:
    copy_tree(agent / "usr", usr)
    enable(usr, AGENT_UNIT, "multi-user.target")
    enable(usr, TRIAL_TIMER, "sysinit.target")


def _sources() -> list[Path]:
    """What makes an image of a tree, and how: another format must not be taken from the cache."""
    return [_SOURCES / name for name in ("build.py", "filesystem.py", "tree.py", "verity.py", "manifest.py")]
