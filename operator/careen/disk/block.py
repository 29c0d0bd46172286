"""One open disk: locked, read and written at byte offsets, and read back past the page cache."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from careen.disk.gpt import SECTOR_SIZES, SIGNATURE
from careen.disk.types import DiskBusyError, DiskError, DiskIoError, ReadBackError
from careen.disk.writes import Plan

LOCK_WAIT_SECONDS = 5.0
"""How long an open waits for the disk's lock by default; udev holds it for moments only."""

_LOCK_PAUSE_SECONDS = 0.02
_DIRECT_ALIGNMENT = 4096
_BLKSSZGET = 0x1268


class BlockFile:
    """A plain file or block device, held under flock: exclusive if writable, else shared.

    udev and other partition tools take the same lock. `size` is in bytes, `sector_size` in bytes of a logical
    sector. Close it, or use it in a `with`.
    """

    def __init__(self, path: Path, fd: int, size: int, sector_size: int) -> None:
        self.path = path
        self.size = size
        self.sector_size = sector_size
        self._fd = fd
        # Kept, since getting a megabyte from the kernel anew costs as much as reading it.
        self._buffer: mmap.mmap | None = None
        self._guard = threading.Lock()

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        writable: bool = False,
        sector_size: int | None = None,
        wait_seconds: float = LOCK_WAIT_SECONDS,
    ) -> Self:
        """Open and lock `path`.

        sector_size: bytes; None asks the device, or looks for the table in a file (512 if there is none).
        Raises DiskBusyError if the lock is not free within wait_seconds, DiskError for what is no disk, and OSError.
        """
        # Without O_EXCL: the kernel gives EBUSY for it on every disk that has a mounted partition.
        fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        try:
            mode = os.fstat(fd).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
                raise DiskError(f"{path} is not a disk; allowed: a block device or a plain file")
            _lock(fd, path, exclusive=writable, wait_seconds=wait_seconds)
            size = os.lseek(fd, 0, os.SEEK_END)
            return cls(path, fd, size, sector_size or _detect_sector_size(fd, mode, size))
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def open_unlocked(cls, path: Path, *, writable: bool, sector_size: int) -> Self:
        """Open `path` for the bytes inside partitions, which the table's lock does not guard. Raises OSError."""
        fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        return cls(path, fd, os.lseek(fd, 0, os.SEEK_END), sector_size)

    def close(self) -> None:
        """Close it and give the lock back."""
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self, offset: int, length: int) -> bytes:
        """Read bytes through the page cache; fewer only at the end of the disk. Raises DiskIoError."""
        parts = bytearray()
        try:
            while len(parts) < length:
                part = os.pread(self._fd, length - len(parts), offset + len(parts))
                if not part:
                    break
                parts += part
        except OSError as error:
            raise DiskIoError(f"reading {self.path} at byte {offset + len(parts)}: {error.strerror}") from error
        return bytes(parts)

    def write(self, offset: int, data: bytes) -> None:
        """Write all of `data`; not durable before `sync`. Raises DiskIoError."""
        view, done = memoryview(data), 0
        try:
            while done < len(view):
                count = os.pwrite(self._fd, view[done:], offset + done)
                if count == 0:
                    raise DiskIoError(f"writing {self.path} at byte {offset + done}: the disk takes no more")
                done += count
        except OSError as error:
            raise DiskIoError(f"writing {self.path} at byte {offset + done}: {error.strerror}") from error

    def sync(self) -> None:
        """Flush everything written so far to the medium. Raises DiskIoError."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise DiskIoError(f"flushing {self.path}: {error.strerror}") from error

    def drop_cached(self, offset: int, length: int) -> None:
        """Let go of the page cache of a range; what is not flushed yet stays in it. Best effort."""
        with suppress(OSError):
            os.posix_fadvise(self._fd, offset, length, os.POSIX_FADV_DONTNEED)

    def read_back(self, offset: int, length: int) -> bytes:
        """Read from the medium, past the page cache where the file system can do that. Raises DiskIoError."""
        direct = self._read_direct(offset, length)
        if direct is not None:
            return direct
        self._drop_all_cached()
        return self.read(offset, length)

    def execute(self, plan: Plan) -> None:
        """Carry out a plan: each window written, flushed, read back and compared before the next one begins.

        Raises ReadBackError, with the later windows unwritten, if the disk does not hold what it was given.
        """
        for window in plan:
            for write in window:
                self.write(write.offset, write.data)
            try:
                self.sync()
            except DiskIoError as error:
                # What could not be written stays in the page cache, looking as if it had been: the next reader must
                # see the disk, which is all that a reset will see.
                self._drop_all_cached()
                places = ", ".join(f"the {write.what} at byte {write.offset}" for write in window)
                raise DiskIoError(f"{error}, after writing {places}") from error
            for write in window:
                if self.read_back(write.offset, len(write.data)) != write.data:
                    raise ReadBackError(
                        f"{self.path}: the {write.what} at byte {write.offset} read back other than written; "
                        "the disk or its controller loses writes"
                    )

    def _drop_all_cached(self) -> None:
        with suppress(OSError):
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def _read_direct(self, offset: int, length: int) -> bytes | None:
        """Read with O_DIRECT, or None where that is not supported."""
        start = offset - offset % _DIRECT_ALIGNMENT
        span = -(-(offset + length - start) // _DIRECT_ALIGNMENT) * _DIRECT_ALIGNMENT
        try:
            # A second open file: setting O_DIRECT on the first would forbid its unaligned writes. Closing it
            # leaves the lock alone, since flock belongs to the open file and not to the process.
            fd = os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            with self._guard:
                if self._buffer is None or len(self._buffer) < span:
                    self._buffer = mmap.mmap(-1, span)
                with memoryview(self._buffer) as view, view[:span] as room:
                    got = os.preadv(fd, [room], start)
                if got < offset + length - start:
                    return None
                return self._buffer[offset - start : offset - start + length]
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
                return None
            raise DiskIoError(f"reading {self.path} at byte {offset}: {error.strerror}") from error
        finally:
            os.close(fd)


def _lock(fd: int, path: Path, *, exclusive: bool, wait_seconds: float) -> None:
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise DiskBusyError(f"{path} is locked by another process, for more than {wait_seconds:g} s") from None
            time.sleep(_LOCK_PAUSE_SECONDS)
        else:
            return


def _detect_sector_size(fd: int, mode: int, size: int) -> int:
    """Logical sector size: the device's word, or for a file the one at which a GPT header lies."""
    if stat.S_ISBLK(mode):
        return int(struct.unpack("I", fcntl.ioctl(fd, _BLKSSZGET, bytes(4)))[0])
    for sector_size in SECTOR_SIZES:
        last = (size // sector_size - 1) * sector_size
        for place in (sector_size, last):
            # An unreadable sector is told by whoever reads the table; the other copy may still show the size.
            with suppress(OSError):
                if place > 0 and os.pread(fd, 8, place) == SIGNATURE:
                    return sector_size
    return SECTOR_SIZES[0]
