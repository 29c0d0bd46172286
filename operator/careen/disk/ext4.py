"""ext4 images from a file tree, the same bytes each time, and reading files out of them: no root, no mount."""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from careen.disk.types import DiskError, ToolFailedError, ToolMissingError

BLOCK_SIZE = 4096
EPOCH_SECONDS = 1_000_000_000
"""The one time that all stamps inside a made file system carry, in seconds since 1970."""

TOOL_TIMEOUT_SECONDS = 60.0
"""How long one run of mkfs.ext4 or debugfs may take."""

_PLACES = ("/usr/sbin", "/sbin", "/usr/local/sbin")
_MAX_LINKS = 16
_FEATURES = "none,ext_attr,extent,filetype,flex_bg,large_file,huge_file,extra_isize,sparse_super,metadata_csum,64bit"
# All spelled out, and the host's mke2fs.conf switched off below: defaults differ between distributions and versions.
_SHAPE = ("-q", "-F", "-b", str(BLOCK_SIZE), "-i", "16384", "-I", "256", "-G", "16", "-m", "0", "-O", _FEATURES)


def make_ext4(tree: Path, out: Path, *, size: int, uuid: UUID, label: str) -> None:
    """Make `out` an ext4 file system of `size` bytes with everything under `tree`; an existing `out` is replaced.

    The same tree, size, uuid and label give the same bytes, whoever runs it, where and when: owner is root, all
    times are EPOCH_SECONDS, names go in sorted. size: multiple of 4096. label: up to 16 bytes. There is no journal,
    since an OS image is mounted read-only. Raises DiskError for a bad size, label or kind of file (only directories,
    files and symlinks), ToolMissingError without e2fsprogs, ToolFailedError (also when the tree does not fit).
    """
    if size <= 0 or size % BLOCK_SIZE:
        raise DiskError(f"size is {size}; allowed: a multiple of {BLOCK_SIZE} bytes")
    if len(label.encode()) > 16:
        raise DiskError(f"label is {label!r}; allowed: up to 16 bytes")
    fresh = out.with_name(f".{out.name}.new")
    try:
        with fresh.open("wb") as file:
            file.truncate(size)
        options = f"root_owner=0:0,hash_seed={uuid},lazy_itable_init=0,nodiscard"
        _run("mkfs.ext4", [*_SHAPE, "-E", options, "-U", str(uuid), "-L", label, str(fresh)])
        _debugfs(["-w", "-f", "-", str(fresh)], "\n".join(_commands(tree)) + "\n")
        fresh.replace(out)
    finally:
        fresh.unlink(missing_ok=True)


def read_ext4_file(image: Path, offset: int, path: str) -> bytes:
    """Contents of a file in the ext4 file system that begins at byte `offset` of `image` (a disk or a file).

    path: absolute, inside the file system; symlinks are followed within it. Raises FileNotFoundError if it is not
    there, IsADirectoryError, ToolFailedError if there is no file system or it is damaged, ToolMissingError if
    e2fsprogs is not installed.
    """
    if not path.startswith("/"):
        raise DiskError(f"path is {path!r}; allowed: an absolute path inside the image")
    if "?" in str(image):
        raise DiskError(f"image is {str(image)!r}; allowed: a path without '?', which begins options in e2fsprogs")
    if not image.exists():
        raise FileNotFoundError(f"{image} does not exist")
    device = f"{image}?offset={offset}"
    place = path
    try:
        for _ in range(_MAX_LINKS):
            # `cat` gives a symlink's own bytes, as if they were the file's: so look first.
            target = _read_link(device, place)
            if target is None:
                return _debugfs(["-R", f"cat {_quote(place)}", device])
            place = posixpath.join(posixpath.dirname(place), target)
    except ToolFailedError as error:
        if "File not found" in str(error):
            raise FileNotFoundError(f"{path} is not in the file system at byte {offset} of {image}") from error
        raise
    raise DiskError(f"{path} in {image} is a chain of more than {_MAX_LINKS} symlinks; allowed: {_MAX_LINKS}")


def _read_link(device: str, path: str) -> str | None:
    """Where the symlink `path` points to; None if it is a plain file. Raises IsADirectoryError for a directory."""
    shown = os.fsdecode(_debugfs(["-R", f"stat {_quote(path)}", device]))
    if "Type: regular" in shown:
        return None
    if "Type: symlink" not in shown:
        raise IsADirectoryError(f"{path} is no file")
    fast = re.search(r'^Fast link dest: "(.*)"$', shown, re.MULTILINE)
    # Targets of 60 bytes and more lie in a block of their own.
    return fast.group(1) if fast else os.fsdecode(_debugfs(["-R", f"cat {_quote(path)}", device]))


def _commands(tree: Path) -> Iterator[str]:
    """debugfs commands that build the tree.

    Not `mkfs.ext4 -d`: it keeps the host's owners and change times and follows the host's directory order, so the
    same tree would give other bytes on another machine. What debugfs makes belongs to root and carries the fake time.
    """
    seen: list[tuple[str, int]] = [("/", stat.S_IFDIR | 0o755)]
    for folder, folders, files in os.walk(tree):
        # Sorting in place also fixes the order in which os.walk goes down.
        folders.sort()
        here = "/" + Path(folder).relative_to(tree).as_posix().removeprefix(".")
        yield f"cd {_quote(here)}"
        for name in sorted(folders + files):
            source = Path(folder) / name
            mode = source.lstat().st_mode
            yield _create(source, name, mode)
            seen.append((f"{here.rstrip('/')}/{name}", mode))
    for path, mode in seen:
        if not stat.S_ISLNK(mode):
            yield f"sif {_quote(path)} mode 0{mode:o}"


def _create(source: Path, name: str, mode: int) -> str:
    if stat.S_ISDIR(mode):
        return f"mkdir {_quote(name)}"
    if stat.S_ISREG(mode):
        return f"write {_quote(str(source.resolve()))} {_quote(name)}"
    if stat.S_ISLNK(mode):
        return f"symlink {_quote(name)} {_quote(str(source.readlink()))}"
    raise DiskError(f"{source} is a special file; allowed: directories, files and symlinks")


def _quote(word: str) -> str:
    if "\n" in word or not word:
        raise DiskError(f"the name {word!r} cannot be put into an image; allowed: names without line breaks")
    doubled = word.replace('"', '""')
    return f'"{doubled}"'


def _debugfs(arguments: list[str], script: str | None = None) -> bytes:
    """Run debugfs. It exits 0 whatever happens, so its words are looked at: all but the banner are errors."""
    done = _run("debugfs", arguments, script)
    words = done.stderr.decode("utf-8", "replace").splitlines()
    errors = [line for line in words if line.strip() and not line.startswith("debugfs 1")]
    if errors:
        raise ToolFailedError(f"debugfs {arguments[-1]}: {' / '.join(errors[:3])}")
    return done.stdout


def _run(program: str, arguments: list[str], script: str | None = None) -> subprocess.CompletedProcess[bytes]:
    found = shutil.which(program, path=os.pathsep.join((os.environ.get("PATH", ""), *_PLACES)))
    if found is None:
        raise ToolMissingError(f"{program} is not installed; install the package e2fsprogs")
    settings = {"E2FSPROGS_FAKE_TIME": str(EPOCH_SECONDS), "MKE2FS_CONFIG": "/dev/null", "DEBUGFS_PAGER": "cat"}
    try:
        done = subprocess.run(
            [found, *arguments],
            input=os.fsencode(script or ""),
            capture_output=True,
            env=os.environ | settings | {"LC_ALL": "C"},
            timeout=TOOL_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ToolFailedError(f"{program} did not end within {TOOL_TIMEOUT_SECONDS:g} s") from error
    if done.returncode:
        raise ToolFailedError(f"{program} failed: {done.stderr.decode('utf-8', 'replace').strip()}")
    return done
