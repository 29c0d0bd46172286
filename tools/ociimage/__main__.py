"""Commands on the container image: build its archive, lay its file system out, check it, write packages down."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from .build import build_image, make_root
from .check import check_archive
from .debian import write_lock
from .settings import REFERENCE, TOP, ImageError


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="ociimage", description=__doc__)
    commands = parser.add_subparsers(required=True)
    build = commands.add_parser("build", help="build the OCI archive, or take it from the cache")
    build.add_argument("--output", type=Path, default=TOP / "dist/careen.oci.tar")
    build.set_defaults(run=_build)
    root = commands.add_parser("root", help="lay the image's file system out in an empty folder")
    root.add_argument("folder", type=Path)
    root.add_argument("--strict", action="store_true", help="refuse where a package written down can't be had")
    root.set_defaults(run=_root)
    check = commands.add_parser("check", help="run what is in an archive, as its user on a read-only root (needs root)")
    check.add_argument("archive", type=Path, nargs="?", default=TOP / "dist/careen.oci.tar")
    check.set_defaults(run=_check)
    lock = commands.add_parser("lock", help="write down the packages that the mirror has now")
    lock.set_defaults(run=lambda _: write_lock())
    given = parser.parse_args()
    try:
        given.run(given)
    except ImageError as error:
        sys.exit(f"ociimage: {error}")


def _build(given: argparse.Namespace) -> None:
    built = build_image()
    given.output.parent.mkdir(parents=True, exist_ok=True)
    fresh = given.output.with_name(f".{given.output.name}.new")
    shutil.copyfile(built.archive, fresh)
    fresh.replace(given.output)
    print(f"{given.output}: {REFERENCE}, {built.archive.stat().st_size / (1 << 20):.1f} MiB, {built.digest}")


def _root(given: argparse.Namespace) -> None:
    make_root(given.folder, strict=given.strict)


def _check(given: argparse.Namespace) -> None:
    for line in check_archive(given.archive):
        print(line)


if __name__ == "__main__":
    main()
