"""The files of an image: a listing in one fixed order, with all that a file system keeps of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from .errors import BuildError

_PYC_TIME = slice(8, 12)
_PYC_FLAGS = slice(4, 8)


@dataclass(frozen=True)
class Entry:
    """One name in the image."""

    path: str
    """Relative to the image's root; empty for the root itself."""
    source: Path
    """Where its contents come from."""
    mode: int
    """Kind and permissions, as in st_mode."""
    uid: int
    gid: int
    mtime: int
    """Seconds since 1970."""
    size: int = 0
    """Size of a file in bytes."""
    links: int = 1
    """How many names in the image the file has."""
    same_as: str | None = None
    """Path of an earlier entry that is the same file (a hard link)."""
    attributes: Mapping[str, bytes] = field(default_factory=dict)
    """Extended attributes, such as security.capability."""

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)


def list_tree(root: Path, extra: Mapping[str, Path], *, source_date: int, all_root: bool) -> list[Entry]:
    """All that goes into the image: the root folder first, then by path, parents before what is in them.

    extra: files to put in, by path in the image. source_date: times after it are set to it, and the root's own always
    is, so that systemd sees a newer /usr. all_root: everything belongs to root, whoever owns it in the tree. Raises
    BuildError for devices, sockets and pipes, and OSError.
    """
    found = [_read_entry(root, "", source_date)]
    for path in _walk(root):
        if path not in extra:
            found.append(_read_entry(root / path, path, source_date))
    found.extend(_list_extra(extra, {entry.path for entry in found}, source_date))
    found.sort(key=lambda entry: entry.path.split("/") if entry.path else [])
    found[0] = replace(found[0], mtime=source_date)
    if all_root:
        found = [replace(entry, uid=0, gid=0) for entry in found]
    return _keep_python_times(_join_links(found))


def _walk(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            yield (Path(folder) / name).relative_to(root).as_posix()


def _read_entry(source: Path, path: str, source_date: int) -> Entry:
    state = source.lstat()
    if not (stat.S_ISDIR(state.st_mode) or stat.S_ISREG(state.st_mode) or stat.S_ISLNK(state.st_mode)):
        raise BuildError(f"{source} is a device, socket or pipe; allowed: folders, files and symbolic links")
    if "\n" in path:
        raise BuildError(f"the name {path!r} can't be put into an image; allowed: names without line breaks")
    regular = stat.S_ISREG(state.st_mode)
    return Entry(
        path,
        source,
        state.st_mode,
        state.st_uid,
        state.st_gid,
        min(int(state.st_mtime), source_date),
        size=state.st_size if regular else 0,
        attributes={} if stat.S_ISLNK(state.st_mode) else _read_attributes(source),
    )


def _read_attributes(source: Path) -> dict[str, bytes]:
    # Others are of the machine that built (security.selinux) or of its file system (system.posix_acl_*).
    names = [name for name in os.listxattr(source, follow_symlinks=False) if name == "security.capability"]
    names += [name for name in os.listxattr(source, follow_symlinks=False) if name.startswith("user.")]
    return {name: os.getxattr(source, name, follow_symlinks=False) for name in sorted(names)}


def _list_extra(extra: Mapping[str, Path], there: set[str], source_date: int) -> Iterator[Entry]:
    for path, source in sorted(extra.items()):
        if not source.is_file():
            raise BuildError(f"{source} is no file")
        parts = path.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            if folder not in there:
                there.add(folder)
                yield Entry(folder, source.parent, stat.S_IFDIR | 0o755, 0, 0, source_date)
        size = source.stat().st_size
        yield Entry(path, source.resolve(), stat.S_IFREG | 0o644, 0, 0, source_date, size=size)


def _join_links(entries: list[Entry]) -> list[Entry]:
    """Hard links become one file with several names; links from outside of the tree do not count."""
    names: dict[tuple[int, int], list[int]] = {}
    for place, entry in enumerate(entries):
        if stat.S_ISREG(entry.mode):
            state = entry.source.lstat()
            if state.st_nlink > 1:
                names.setdefault((state.st_dev, state.st_ino), []).append(place)
    joined = list(entries)
    for first, *others in names.values():
        joined[first] = replace(entries[first], links=len(others) + 1)
        for place in others:
            joined[place] = replace(entries[place], same_as=entries[first].path, size=0)
    return joined


def _keep_python_times(entries: list[Entry]) -> list[Entry]:
    """Give each Python source the time that its compiled file was made for.

    Otherwise a time set back would make every compiled file stale, and each start of Python would compile anew, on a
    /usr where the result can't be stored.
    """
    compiled: dict[str, int] = {}
    for entry in entries:
        folder, _, name = entry.path.rpartition("/")
        if name.endswith(".pyc") and folder.endswith("__pycache__") and stat.S_ISREG(entry.mode):
            with entry.source.open("rb") as file:
                head = file.read(16)
            if len(head) == 16 and not any(head[_PYC_FLAGS]):
                stem = name.split(".")[0]
                compiled[f"{folder.removesuffix('__pycache__')}{stem}.py"] = int.from_bytes(head[_PYC_TIME], "little")
    return [replace(entry, mtime=compiled[entry.path]) if entry.path in compiled else entry for entry in entries]
