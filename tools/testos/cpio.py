"""Archives for the kernel's initramfs: the same contents give the same bytes, and nobody needs to be root."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_MAGIC = b"070701"


@dataclass
class Archive:
    """Files by path, without a leading slash. Folders on the way are made by themselves; all belongs to root."""

    entries: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    def add_file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Add a file, in the place of one with the same path."""
        self._add_folders(path)
        self.entries[path] = (stat.S_IFREG | mode, data)

    def add_link(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        self._add_folders(path)
        self.entries[path] = (stat.S_IFLNK | 0o777, target.encode())

    def add_folder(self, path: str) -> None:
        """Add a folder."""
        self._add_folders(path)
        self.entries.setdefault(path, (stat.S_IFDIR | 0o755, b""))

    def dump(self) -> bytes:
        """The archive in the format that the kernel reads (newc)."""
        return b"".join(self._records())

    def _add_folders(self, path: str) -> None:
        parts = path.split("/")[:-1]
        for end in range(1, len(parts) + 1):
            self.entries.setdefault("/".join(parts[:end]), (stat.S_IFDIR | 0o755, b""))

    def _records(self) -> Iterator[bytes]:
        for number, (path, (mode, data)) in enumerate(sorted(self.entries.items()), start=1):
            yield _record(number, path, mode, data)
        yield _record(0, "TRAILER!!!", 0, b"")


def _record(number: int, path: str, mode: int, data: bytes) -> bytes:
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (number, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name), 0)
    head = _MAGIC + b"".join(b"%08x" % value for value in fields) + name
    return _pad(head) + _pad(data)


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def resolve_inside(root: Path, path: str) -> Path:
    """The file that `path` means inside a root tree; absolute links stay in the tree. Raises FileNotFoundError."""
    place = Path("/")
    rest = list(Path(path.lstrip("/")).parts)
    for _ in range(100):
        if not rest:
            return root / place.relative_to("/")
        place = place / rest.pop(0)
        real = root / place.relative_to("/")
        if real.is_symlink():
            target = real.readlink()
            rest = [*(part for part in target.parts if part != "/"), *rest]
            place = Path("/") if target.is_absolute() else place.parent
        elif not real.exists():
            break
    raise FileNotFoundError(f"{path} is not in {root}")
