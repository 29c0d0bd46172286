"""Getting a slot ready for its one boot: kernel loaded for kexec, or known to the boot loader."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from careen.agent.host import KexecRefusedError
from careen.agent.record import Method
from careen.disk.types import DiskError, SlotName
from careen.release.manifest import Image

from .bootfiles import COPIES, BootFiles, copy_boot_files, drop_boot_files
from .cmdline import CommandLineError, NextBoot, compose_line
from .discovery import Machine
from .kexec import FALLBACK_ERRORS, KexecLoader
from .loaders import ArmedBoot, BootLoader
from .root import RUN, Root


@dataclass(frozen=True)
class Candidate:
    """The release in a slot that is to be booted. order: empty if it is no trial.

    watchdog_seconds: 0 if none is armed.
    """

    slot: SlotName
    version: str
    image: Image
    order: str
    watchdog_seconds: int

    def compose(self, running: str, method: Method) -> str:
        """The command line for a boot by `method`. Raises CommandLineError."""
        kexec = method == "Kexec"
        following = NextBoot(
            slot=self.slot.value,
            root_hash=self.image.verity_root,
            method="kexec" if kexec else "firmware",
            order=self.order if kexec else "",
            watchdog_seconds=self.watchdog_seconds if kexec else 0,
        )
        return compose_line(running, following)


class Arming:
    """The parts of arming that are outside the partition table. All may be repeated."""

    def __init__(
        self,
        root: Root,
        kexec: KexecLoader,
        loader: BootLoader,
        *,
        copy: Callable[[Path, Image, Path], BootFiles] = copy_boot_files,
    ) -> None:
        self._root = root
        self._kexec = kexec
        self._loader = loader
        self._copy = copy

    def load(self, machine: Machine, candidate: Candidate) -> None:
        """Load the slot's kernel for kexec. Raises KexecRefusedError if the kernel will not, DiskError, OSError."""
        files = self._copy_files(machine, candidate)
        try:
            self._kexec.load(files.kernel, files.initrd, candidate.compose(self._read_line(), "Kexec"))
        except CommandLineError as error:
            raise KexecRefusedError(str(error)) from error
        except OSError as error:
            if error.errno in FALLBACK_ERRORS:
                raise KexecRefusedError(f"the kernel refused to load the next one: {error.strerror}") from error
            raise
        finally:
            drop_boot_files(self._folder)

    def tell_loader(self, machine: Machine, candidate: Candidate, method: Method) -> None:
        """Let the boot loader know of the slot. Raises DiskError, OSError."""
        with self._describe(machine, candidate, method, with_files=self._loader.needs_files) as boot:
            self._loader.arm(boot)

    def commit_loader(self, machine: Machine, candidate: Candidate) -> None:
        """Let the boot loader boot the slot from now on, which is the booted one. Raises DiskError, OSError."""
        there = self._loader.is_armed(candidate.slot, candidate.image, "Kexec")
        with self._describe(machine, candidate, "Firmware", with_files=not there) as boot:
            self._loader.commit(boot)

    @contextmanager
    def _describe(
        self, machine: Machine, candidate: Candidate, method: Method, *, with_files: bool
    ) -> Iterator[ArmedBoot]:
        def compose(how: Method) -> str:
            try:
                return candidate.compose(self._read_line(), how)
            except CommandLineError as error:
                raise DiskError(str(error)) from error

        try:
            files = self._copy_files(machine, candidate) if with_files else None
            yield ArmedBoot(candidate.slot, method, candidate.version, candidate.image, files, compose)
        finally:
            drop_boot_files(self._folder)

    def unload(self) -> None:
        """Take a loaded kernel back. Raises OSError if it stays."""
        self._kexec.unload()

    def is_loaded(self) -> bool:
        """Whether a kernel is loaded for kexec."""
        return self._kexec.is_loaded()

    @property
    def _folder(self) -> Path:
        return self._root.at(f"{RUN}/{COPIES}")

    def _copy_files(self, machine: Machine, candidate: Candidate) -> BootFiles:
        if candidate.slot is machine.booted:
            # dm-verity holds its partition; what it shows is the better proof anyway.
            return self._copy(self._root.at("/usr"), candidate.image, self._folder)
        # Through the node of the slot, never through a link that udev may be about to change.
        node = self._root.at(machine[candidate.slot].node)
        return self._copy(Path(os.path.realpath(node)), candidate.image, self._folder)

    def _read_line(self) -> str:
        line = self._root.read("/proc/cmdline")
        if line is None:
            raise DiskError("/proc/cmdline can't be read")
        return line
