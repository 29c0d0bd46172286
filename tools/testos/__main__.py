"""Commands on the test OS: build images, write down package versions, run a machine."""

from __future__ import annotations

import argparse
import shutil
import uuid

from careen.sandbox.workspace import Workspace

from .debian import PackageSet, build_root, lock_file
from .disk import Identity, make_disk
from .image import build_image, build_loader
from .machine import Machine
from .tree import Flavor
from .variant import Fault, Variant

UP_SECONDS = 300.0


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="testos", description=__doc__)
    commands = parser.add_subparsers(required=True)
    build = commands.add_parser("build", help="build an image, or take it from the cache, and print its folder")
    build.add_argument("version")
    build.add_argument("--fault", type=Fault, choices=list(Fault))
    build.add_argument("--packages", type=PackageSet, choices=list(PackageSet), default=PackageSet.SECURITY)
    build.add_argument("--flavor", type=Flavor, choices=list(Flavor), default=Flavor.SMALL)
    build.set_defaults(run=_build)
    lock = commands.add_parser("lock", help="write down the versions of all packages that the mirror has now")
    lock.set_defaults(run=_lock)
    boot = commands.add_parser("boot", help="boot a machine with an image, and show its console")
    boot.add_argument("version")
    boot.set_defaults(run=_boot)
    given = parser.parse_args()
    given.run(given)


def _build(given: argparse.Namespace) -> None:
    print(build_image(Variant(given.version, given.fault), packages=given.packages, flavor=given.flavor).folder)


def _lock(_: argparse.Namespace) -> None:
    for packages in PackageSet:
        lock_file(packages).unlink(missing_ok=True)
        shutil.copyfile(build_root(packages) / "packages.txt", lock_file(packages))


def _boot(given: argparse.Namespace) -> None:
    workspace = Workspace()
    try:
        disk = workspace.path / "disk.img"
        make_disk(disk, build_image(Variant(given.version)), Identity(uuid.uuid4().hex))
        machine = Machine("boot", disk, build_loader(), folder=workspace.path, logs=workspace.logs)
        with machine:
            machine.console.wait_for("OS up", UP_SECONDS)
        print(machine.console.log.read_text())
    finally:
        workspace.remove()


if __name__ == "__main__":
    main()
