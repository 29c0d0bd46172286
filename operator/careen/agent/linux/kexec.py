"""The kernel's own kexec_file_load: load the next kernel, unload it. What systemd then starts at `systemctl kexec`."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from pathlib import Path
from typing import Protocol

from .root import Root

_NUMBERS = {"x86_64": 320, "aarch64": 294, "riscv64": 294}
"""System call number of kexec_file_load."""
_UNLOAD = 1
_NO_INITRAMFS = 4

FALLBACK_ERRORS = (
    errno.EPERM, errno.ENOSYS, errno.EBUSY, errno.ENOEXEC, errno.ENOMEM, errno.EACCES, errno.EKEYREJECTED,
    errno.ENOKEY, errno.EBADMSG, errno.EADDRNOTAVAIL, errno.ENOPKG,
)  # fmt: skip
"""What the kernel answers when it will not take this kernel now or ever: the firmware may still boot it."""


class KexecLoader(Protocol):
    """Loading and unloading the next kernel."""

    def load(self, kernel: Path, initrd: Path | None, line: str) -> None:
        """Load a kernel. Raises OSError with the kernel's errno."""

    def unload(self) -> None:
        """Take a loaded kernel back; nothing happens if there is none."""

    def is_loaded(self) -> bool:
        """Whether a kernel is loaded."""
        ...


class FileLoader:
    """kexec_file_load(2). The kernel passes on EFI tables and RSDP itself, unlike with the older call."""

    def __init__(self, root: Root) -> None:
        self._root = root

    def load(self, kernel: Path, initrd: Path | None, line: str) -> None:
        """Load a kernel. Raises OSError with the kernel's errno."""
        kernel_fd = os.open(kernel, os.O_RDONLY | os.O_CLOEXEC)
        try:
            initrd_fd = os.open(initrd, os.O_RDONLY | os.O_CLOEXEC) if initrd else -1
            try:
                _call(kernel_fd, initrd_fd, line.encode() + b"\0", 0 if initrd else _NO_INITRAMFS)
            finally:
                if initrd_fd >= 0:
                    os.close(initrd_fd)
        finally:
            os.close(kernel_fd)

    def unload(self) -> None:
        """Take a loaded kernel back. Raises OSError if one stays loaded."""
        if self.is_loaded():
            _call(-1, -1, None, _UNLOAD)

    def is_loaded(self) -> bool:
        """Whether a kernel is loaded."""
        return self._root.read("/sys/kernel/kexec_loaded") == "1"


def _call(kernel_fd: int, initrd_fd: int, line: bytes | None, flags: int) -> None:
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"kexec_file_load is not known for {platform.machine()}")
    libc = ctypes.CDLL(None, use_errno=True)
    length = ctypes.c_ulong(len(line) if line else 0)
    ctypes.set_errno(0)
    answer = libc.syscall(number, kernel_fd, initrd_fd, length, line, ctypes.c_ulong(flags))
    if answer != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"kexec_file_load: {os.strerror(code)}")
