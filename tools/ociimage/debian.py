"""The Debian packages: at the versions and hashes that were written down, as far as the mirror still has them."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from testos.cache import Report, digest_inputs, keep, print_report

from .settings import PACKAGES, ImageError, lock_file

SECONDS = 600.0


@dataclass(frozen=True)
class Package:
    """One package. sha256: of its .deb."""

    name: str
    version: str
    sha256: str


def read_lock() -> dict[str, Package]:
    """The packages written down, by name; empty while none were for this architecture."""
    path = lock_file()
    lines = path.read_text().splitlines() if path.exists() else []
    found = [Package(*line.split()) for line in lines if line and not line.startswith("#")]
    return {package.name: package for package in found}


def fetch_packages(*, strict: bool = False, report: Report = print_report) -> Path:
    """A folder of the cache with one NAME.deb for each package, each checked against its hash.

    A version that the mirror no longer has is replaced by its newest one, and `report` told so. strict: raises
    ImageError instead. Needs apt, not root.
    """
    locked = read_lock()
    key = digest_inputs(*(f"{each}" for each in sorted(locked.values(), key=lambda one: one.name)), *PACKAGES)

    def build(folder: Path) -> None:
        _download(choose(locked, strict=strict, report=report), folder)

    return keep("debs", key, build, report)


def choose(locked: Mapping[str, Package], *, strict: bool, report: Report) -> list[Package]:
    """Which packages are taken: those written down where they can be had. Raises ImageError."""
    offered = _list_offers()
    chosen = []
    for name in PACKAGES:
        offers, wanted = offered.get(name, []), locked.get(name)
        if not offers:
            raise ImageError(f"apt offers no {name}; the image is built on Debian 12, after apt-get update")
        if wanted in offers:
            chosen.append(wanted)
            continue
        newest = max(offers, key=functools.cmp_to_key(_compare))
        if wanted is not None:
            text = f"{name} {wanted.version} can't be had any more; the newest is {newest.version} (make image-lock)"
            if strict:
                raise ImageError(text)
            report(text)
        chosen.append(newest)
    return [each for each in chosen if each is not None]


def write_lock() -> None:
    """Write down the newest version of each package that apt offers now."""
    chosen = choose({}, strict=False, report=lambda _: None)
    lock_file().parent.mkdir(exist_ok=True)
    lock_file().write_text("".join(f"{one.name} {one.version} {one.sha256}\n" for one in chosen))


def _list_offers() -> dict[str, list[Package]]:
    """What apt's lists have of our packages; the lists are renewed when they are empty and that is allowed."""
    text = _run(["apt-cache", "show", *PACKAGES], check=False)
    if "\nSHA256: " not in text and os.geteuid() == 0:
        _run(["apt-get", "update", "-qq"])
        text = _run(["apt-cache", "show", *PACKAGES])
    offered: dict[str, list[Package]] = {}
    for stanza in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[0] != " ")
        # What is installed is listed too, without a hash. Backports are not Debian 12.
        if "SHA256" in fields and "~bpo" not in fields["Version"]:
            package = Package(fields["Package"], fields["Version"], fields["SHA256"])
            offered.setdefault(package.name, []).append(package)
    return offered


def _compare(a: Package, b: Package) -> int:
    if a.version == b.version:
        return 0
    less = subprocess.run(["dpkg", "--compare-versions", a.version, "lt", b.version], check=False, timeout=SECONDS)
    return -1 if less.returncode == 0 else 1


def _download(packages: Sequence[Package], folder: Path) -> None:
    """Fetch the packages by one call: apt takes longer to read its lists than to fetch a package."""
    sandbox = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
    wanted = [f"{package.name}={package.version}" for package in packages]
    _run(["apt-get", *sandbox, "-o", "Acquire::Retries=3", "-qq", "download", *wanted], cwd=folder)
    for package in packages:
        found = list(folder.glob(f"{package.name}_*.deb"))
        if len(found) != 1 or hashlib.sha256(found[0].read_bytes()).hexdigest() != package.sha256:
            raise ImageError(f"{package.name} {package.version} was downloaded with other contents than written down")
        found[0].rename(folder / f"{package.name}.deb")


def _run(command: Sequence[str], *, cwd: Path | None = None, check: bool = True) -> str:
    environment = os.environ | {"LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=SECONDS
        )
    except FileNotFoundError as error:
        raise ImageError(f"{command[0]} is not installed; the image is built on Debian 12") from error
    if check and done.returncode:
        raise ImageError(f"{' '.join(command)} failed: {done.stderr.strip()[-1000:]}")
    return done.stdout
