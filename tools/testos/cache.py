"""Built things, kept in a folder of the user's cache by the content of what went into them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from careen.sandbox.binaries import cache_folder

UNUSED_SECONDS = 14 * 24 * 3600.0
"""How long something is kept that nobody asks for."""
CROWDED_SECONDS = 6 * 3600.0
"""The same for what has newer ones of its kind: each edit of the agent makes a new image of every version."""
CROWD = 3

Report = Callable[[str], None]


def print_report(text: str) -> None:
    """Tell a person what is being built, on standard error."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def digest_inputs(*inputs: str | bytes | Path) -> str:
    """A name for what these inputs make: texts, bytes, and the contents of files and folders."""
    digest = hashlib.sha256()
    for item in inputs:
        if isinstance(item, Path):
            for path in sorted(item.rglob("*")) if item.is_dir() else [item]:
                if path.is_file() and path.suffix != ".pyc":
                    _add(digest, str(path.relative_to(item.parent)).encode(), path.read_bytes())
        else:
            _add(digest, item if isinstance(item, bytes) else item.encode())
    return digest.hexdigest()[:16]


def keep(kind: str, key: str, build: Callable[[Path], None], report: Report = print_report) -> Path:
    """The folder with what `build` makes; built only if the cache lacks it, complete or not at all.

    kind, key: its name. build: fills the empty folder that it is given. A second caller waits for the first one's
    build. Raises what `build` raises.
    """
    base = cache_folder() / "images"
    base.mkdir(parents=True, exist_ok=True)
    made = base / f"{kind}-{key}"
    with (base / f".{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            fresh = base / f".{kind}-{key}.new"
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            began = time.monotonic()
            report(f"building {kind} {key}")
            try:
                build(fresh)
            except KeyboardInterrupt:
                # Whoever ends a build by hand may never start another one, which would clear this away.
                shutil.rmtree(fresh, ignore_errors=True)
                raise
            fresh.rename(made)
            report(f"built {kind} {key} in {time.monotonic() - began:.1f} s")
            _sweep(base, kind)
    os.utime(made)
    return made


def _add(digest: hashlib._Hash, *parts: bytes) -> None:
    for part in parts:
        # With its length, so that no two lists of inputs run together to the same bytes.
        digest.update(len(part).to_bytes(8, "little") + part)


def _sweep(base: Path, kind: str) -> None:
    """Remove what nobody asked for in a long time, and what killed builds left behind."""
    found = sorted((path for path in base.iterdir() if path.is_dir()), key=lambda path: -path.stat().st_mtime)
    crowded = [path for path in found if path.name.rpartition("-")[0] == kind][CROWD:]
    for path in found:
        allowed = CROWDED_SECONDS if path in crowded else UNUSED_SECONDS
        if time.time() - path.stat().st_mtime > allowed:
            shutil.rmtree(path, ignore_errors=True)
