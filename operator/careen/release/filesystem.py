"""File systems made of a listing: the same listing gives the same bytes, whoever runs it, where and when."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import UUID

from .errors import BuildError
from .tree import Entry
from .verity import BLOCK_BYTES

TOOL_SECONDS = 1800.0
"""How long one run of a tool may take, in seconds."""
LABEL = "careen-usr"

_PLACES = ("/usr/sbin", "/sbin", "/usr/local/sbin")
_STEP_BYTES = 8 << 20
_INODE_BYTES = 256
# All spelled out, and the host's mke2fs.conf switched off below: defaults differ between distributions and versions. No
# journal: it is mounted read-only.
_FEATURES = "none,ext_attr,extent,filetype,flex_bg,large_file,huge_file,extra_isize,sparse_super,metadata_csum,64bit"
_ROUNDS = 4


def make_ext4(entries: Sequence[Entry], out: Path, *, uuid: UUID, source_date: int, size: int | None = None) -> None:
    """Make `out` an ext4 file system. size: bytes, a multiple of 4096; None: what is needed, in steps of 8 MiB.

    uuid seeds all checksums, so it has to stay from release to release, else no block of metadata is ever equal. Raises
    BuildError, also when the tree does not fit, and OSError.
    """
    if size is not None:
        _fill_ext4(entries, out, size, uuid, source_date)
        return
    guess = _estimate(entries)
    for left in reversed(range(_ROUNDS)):
        try:
            _fill_ext4(entries, out, guess, uuid, source_date)
        except BuildError:
            # The estimate knows nothing of extent blocks of badly broken files; a wrong one costs only time.
            if not left:
                raise
            guess += _round_up(guess // 10, _STEP_BYTES)
        else:
            return


def make_erofs(entries: Sequence[Entry], out: Path, *, uuid: UUID, source_date: int) -> None:
    """Make `out` an uncompressed erofs file system. Raises BuildError, OSError.

    Works on a copy of the tree beside `out`, since mkfs.erofs takes times and owners from the host's files.
    """
    out.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix=".erofs-", dir=out.parent) as name:
        _copy_tree(entries, Path(name) / "usr")
        options = ["-U", str(uuid), "--quiet", str(out), f"{name}/usr"]
        if all(entry.uid == 0 and entry.gid == 0 for entry in entries):
            options = ["--all-root", *options]
        _run("mkfs.erofs", "erofs-utils", options, {"SOURCE_DATE_EPOCH": str(source_date)})
    with out.open("r+b") as file:
        file.truncate(_round_up(out.stat().st_size, BLOCK_BYTES))


def _fill_ext4(entries: Sequence[Entry], out: Path, size: int, uuid: UUID, source_date: int) -> None:
    out.unlink(missing_ok=True)
    with out.open("wb") as file:
        file.truncate(size)
    shape = ["-q", "-F", "-b", str(BLOCK_BYTES), "-N", str(_count_inodes(entries)), "-I", str(_INODE_BYTES)]
    shape += ["-G", "16", "-m", "0", "-O", _FEATURES, "-U", str(uuid), "-L", LABEL]
    shape += ["-E", f"root_owner=0:0,hash_seed={uuid},lazy_itable_init=0,nodiscard", str(out)]
    clock = {"E2FSPROGS_FAKE_TIME": str(source_date), "MKE2FS_CONFIG": "/dev/null", "DEBUGFS_PAGER": "cat"}
    _run("mkfs.ext4", "e2fsprogs", shape, clock)
    with tempfile.TemporaryDirectory(prefix=".ext4-", dir=out.parent) as scratch:
        script = "\n".join(_script_ext4(entries, Path(scratch))) + "\n"
        done = _run("debugfs", "e2fsprogs", ["-w", "-f", "-", str(out)], clock, script)
    # It exits 0 whatever happens, so its words are looked at: all but the banner are errors.
    words = [line for line in done.splitlines() if line.strip() and not line.startswith("debugfs 1")]
    if words:
        raise BuildError(f"debugfs could not fill a file system of {size} bytes: {' / '.join(words[:3])}")


def _script_ext4(entries: Sequence[Entry], scratch: Path) -> Iterator[str]:
    """debugfs commands. Not `mkfs.ext4 -d`: that keeps the host's change times and follows the host's folder order."""
    here = None
    for entry in entries:
        folder, _, name = entry.path.rpartition("/")
        if entry.path and folder != here:
            yield f"cd {_quote('/' + folder)}"
            here = folder
        if entry.path:
            yield _create_ext4(entry, name)
    for number, entry in enumerate(entries):
        if entry.is_link or entry.same_as is not None:
            continue
        path = _quote("/" + entry.path)
        yield f"sif {path} mode 0{entry.mode:o}"
        yield f"sif {path} mtime @{entry.mtime}"
        for owner, value in (("uid", entry.uid), ("gid", entry.gid), ("links_count", entry.links)):
            if value and not (owner == "links_count" and value == 1):
                yield f"sif {path} {owner} {value}"
        for index, (key, data) in enumerate(entry.attributes.items()):
            place = scratch / f"{number}-{index}"
            place.write_bytes(data)
            yield f"ea_set -f {_quote(str(place))} {path} {_quote(key)}"


def _create_ext4(entry: Entry, name: str) -> str:
    if entry.is_folder:
        return f"mkdir {_quote(name)}"
    if entry.is_link:
        return f"symlink {_quote(name)} {_quote(_read_link(entry))}"
    if entry.same_as is not None:
        return f"ln {_quote('/' + entry.same_as)} {_quote(name)}"
    return f"write {_quote(str(entry.source.absolute()))} {_quote(name)}"


def _read_link(entry: Entry) -> str:
    # Not Path.readlink(), which writes ./x as x.
    return os.readlink(entry.source)  # noqa: PTH115


def _count_inodes(entries: Sequence[Entry]) -> int:
    # In coarse steps, since another number of inodes moves everything behind the tables to another place.
    return _round_up(len(entries) * 5 // 4 + 64, 8192)


def _estimate(entries: Sequence[Entry]) -> int:
    files = sum(_round_up(entry.size, BLOCK_BYTES) for entry in entries)
    names = sum(len(os.fsencode(entry.path.rpartition("/")[2])) + 16 for entry in entries)
    folders = sum(entry.is_folder for entry in entries) * BLOCK_BYTES
    total = files + names + folders + _count_inodes(entries) * _INODE_BYTES
    return _round_up(total + total // 50 + (1 << 20), _STEP_BYTES)


def _copy_tree(entries: Sequence[Entry], root: Path) -> None:
    root.mkdir()
    own = os.geteuid() == 0
    for entry in entries:
        place = root / entry.path
        if entry.is_folder:
            place.mkdir(exist_ok=True)
        elif entry.is_link:
            os.symlink(_read_link(entry), place)  # noqa: PTH211
        elif entry.same_as is not None:
            os.link(root / entry.same_as, place)
        else:
            shutil.copyfile(entry.source, place)
    # From the inside out: a folder's time and mode are final only when nothing more is put into it.
    for entry in reversed(entries):
        place = root / entry.path
        if own:
            os.chown(place, entry.uid, entry.gid, follow_symlinks=False)
        if not entry.is_link and entry.same_as is None:
            place.chmod(entry.mode & 0o7777)
            for key, data in entry.attributes.items():
                os.setxattr(place, key, data)
        os.utime(place, (entry.mtime, entry.mtime), follow_symlinks=False)


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


def _quote(word: str) -> str:
    doubled = word.replace('"', '""')
    return f'"{doubled}"'


def _run(program: str, package: str, arguments: list[str], settings: dict[str, str], script: str = "") -> str:
    """Run a tool; what it says on standard error. Raises BuildError."""
    found = shutil.which(program, path=os.pathsep.join((os.environ.get("PATH", ""), *_PLACES)))
    if found is None:
        raise BuildError(f"{program} is not installed; install the package {package}")
    try:
        done = subprocess.run(
            [found, *arguments],
            input=os.fsencode(script),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=os.environ | settings | {"LC_ALL": "C", "TZ": "UTC"},
            timeout=TOOL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{program} did not end within {TOOL_SECONDS:g} s") from error
    words = done.stderr.decode("utf-8", "replace")
    if done.returncode:
        raise BuildError(f"{program} failed: {words.strip()}")
    return words
