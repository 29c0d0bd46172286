"""Commands on the test OS: build images, write down package versions, run a machine, show a demo."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import uuid

from rich.console import Console

from careen.sandbox.binaries import SandboxError
from careen.sandbox.client import ApiError
from careen.sandbox.workspace import Workspace

from .cache import print_report
from .debian import PackageSet, TestOsError, build_root, lock_file
from .disk import Identity, make_disk
from .image import build_image, build_loader
from .machine import Machine
from .telling import DemoError, show_demo
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
    demo = commands.add_parser(
        "demo", help="update two machines by kexec, then watch a broken release stop at the first"
    )
    demo.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    demo.set_defaults(run=_demo)
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


def _demo(given: argparse.Namespace) -> None:
    """Exit code 0 if all was as it should be, 1 if not, 130 when a person ended it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        result, document = show_demo(None if given.json else Console(), print_report)
    except KeyboardInterrupt:
        sys.exit(130)
    except (DemoError, TestOsError, SandboxError, ApiError) as error:
        print(f"the demo failed: {error}", file=sys.stderr)
        sys.exit(1)
    if given.json:
        print(json.dumps(document, indent=2))
    sys.exit(0 if result.ok else 1)


if __name__ == "__main__":
    main()
