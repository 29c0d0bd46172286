"""A virtual machine: QEMU under software emulation, with a real disk image, consoles, and faults on demand."""

from __future__ import annotations

import json
import shutil
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from careen.sandbox.processes import Child, kill, spawn

from .debian import TestOsError
from .image import Loader
from .monitor import Monitor
from .serial import Console
from .shell import Shell

START_SECONDS = 30.0
SAVE_SECONDS = 120.0
_SAVE_BYTES_PER_SECOND = 1 << 34
CRASH_BYTES = 1 << 20
FIRMWARE = Path("/usr/share/OVMF")
HOST_ADDRESS = "10.0.2.2"
"""Where a machine sees the loopback of its host."""
WORDS = (
    "console=ttyS0 quiet panic=5 mitigations=off no_timer_check net.ifnames=0 systemd.show_status=0 "
    "systemd.debug_shell=ttyS1"
)
"""Command line of every kernel. On a busy host an emulated timer can be so late that a kernel calls it broken."""
# Flushes are dropped: a killed QEMU leaves what it wrote to its host, and the host is not switched off.
_CACHE = {"direct": False, "no-flush": True}
_DISK = {"driver": "raw", "node-name": "disk", "cache": _CACHE}


@dataclass(frozen=True)
class BlockFault:
    """What goes wrong on the disk."""

    operation: str
    """read, write or flush."""
    sector: int | None = None
    """Which sector of 512 bytes; None: any."""
    error: int = 5
    """The error's number: 5 (EIO) or 28 (ENOSPC)."""
    once: bool = False
    """Whether it happens only once."""


@dataclass(frozen=True)
class MachineOptions:
    """What a machine is made of."""

    memory_mib: int = 768
    processors: int = 2
    words: str = ""
    """Added to the command line of the system's kernel, not to that of the loader's."""
    crash_memory: bool = True
    """Whether it has memory (ERST) in which a panicking kernel leaves its last words over a reset."""
    watchdog: bool = False
    """Whether it has a hardware watchdog (i6300esb), which resets it."""
    faults: tuple[BlockFault, ...] = ()
    """What goes wrong on its disk."""
    stop_on_fault: bool = False
    """Whether it stands still when a write goes wrong, so that it can be cut off right there; else it gets an error."""
    clock: str = ""
    """What its clock says when it is switched on, such as 2031-01-01T00:00:00; empty: the right time (UTC)."""
    uefi: bool = False
    """Start the disk's own EFI boot loader by OVMF; else our loader at each reset, as a firmware does."""
    forwards: dict[int, int] = field(default_factory=dict)
    """Ports of the host's loopback and those of the machine that they lead to."""
    address: str = "10.0.2.15"
    """The machine's own address, where those ports are."""
    media: dict[str, Path] = field(default_factory=dict)
    """Files that it sees as further disks, which it can only read, by their serial numbers."""


class Machine:
    """A machine on one disk. It may be started, cut off and started again; nothing is left when this process ends."""

    def __init__(
        self,
        name: str,
        disk: Path,
        loader: Loader,
        *,
        folder: Path,
        logs: Path,
        options: MachineOptions | None = None,
    ) -> None:
        """folder: for its sockets; its path must be short, as that of every unix socket. logs: for its consoles."""
        self.name = name
        self.disk = disk
        self.options = options or MachineOptions()
        self.console = Console(logs / f"{name}-console.log")
        self._loader = loader
        self._folder = folder
        self._logs = logs
        self._child: Child | None = None
        self._monitor: Monitor | None = None
        self._shell: Shell | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.cut_power()

    @property
    def running(self) -> bool:
        """Whether QEMU runs."""
        return self._child is not None and not self._child.ended

    @property
    def monitor(self) -> Monitor:
        """QEMU's control socket. Raises TestOsError while the machine is off."""
        if self._monitor is None:
            raise TestOsError(f"{self.name} is off")
        return self._monitor

    @property
    def shell(self) -> Shell:
        """A root shell in the machine. Raises TestOsError while the machine is off."""
        if self._shell is None:
            raise TestOsError(f"{self.name} is off")
        return self._shell

    def start(self, saved: Path | None = None) -> None:
        """Switch it on. Raises TestOsError if QEMU does not start.

        saved: go on from what `save` wrote, on a copy of that machine's disk, with the same memory and processors.
        """
        if self.running:
            raise TestOsError(f"{self.name} is on")
        self.console.note("power on")
        command = self._command() + (["-incoming", f"exec:cat {saved}"] if saved else [])
        self._child = spawn(f"{self.name}-qemu", command, self._logs / f"{self.name}-qemu.log")
        # QEMU waits with the boot until somebody reads the console: no line is lost.
        connection = self._connect("console")
        self.console.attach(connection)
        self._await("monitor")
        self._monitor = Monitor(self._socket("monitor"))
        self._await("shell")
        self._shell = Shell(self._socket("shell"))
        if saved:
            self._wait_while("inmigrate")
            self.monitor.execute("cont")

    def save(self, path: Path) -> None:
        """Write all but its disk to a file, and end it. Raises TestOsError."""
        self.monitor.execute("stop")
        self.monitor.execute("migrate-set-parameters", **{"max-bandwidth": _SAVE_BYTES_PER_SECOND})
        self.monitor.execute("migrate", uri=f"exec:cat > {path}")
        deadline = time.monotonic() + SAVE_SECONDS
        while (status := self.monitor.execute("query-migrate").get("status")) != "completed":
            if status == "failed" or time.monotonic() > deadline:
                raise TestOsError(f"{self.name} can't be saved: {self.monitor.execute('query-migrate')}")
            time.sleep(0.1)
        self.console.note("saved")
        self.cut_power()

    def cut_power(self) -> None:
        """Cut it off in the middle of whatever it does. What it wrote to its disk stays."""
        if self._child is not None:
            kill([self._child])
            self.console.note("power cut")
        for part in (self._monitor, self._shell):
            if part is not None:
                part.close()
        self._child = self._monitor = self._shell = None

    def reset(self) -> None:
        """Press its reset button."""
        self.console.note("reset")
        self.monitor.execute("system_reset")

    def spoil(self, *faults: BlockFault) -> None:
        """Let things go wrong on the disk of a running machine, until it is switched off."""
        rules = {"driver": "blkdebug", "node-name": "spoiled", "image": "medium"}
        self.monitor.execute("blockdev-add", **rules, **{"inject-error": [_rule(fault) for fault in faults]})
        self.monitor.execute("blockdev-reopen", options=[{**_DISK, "file": "spoiled"}])
        self.console.note(f"the disk is spoiled: {faults}")

    def set_network(self, up: bool) -> None:
        """Pull its network cable, or plug it in again; it stays that way over a reset."""
        self.monitor.execute("set_link", name="net", up=up)
        self.console.note(f"network {'up' if up else 'down'}")

    @property
    def stopped(self) -> bool:
        """Whether a write went wrong, and it stands still for that."""
        return bool(self.monitor.execute("query-status")["status"] == "io-error")

    def _wait_while(self, status: str) -> None:
        deadline = time.monotonic() + SAVE_SECONDS
        while self.monitor.execute("query-status")["status"] == status:
            self._check(deadline, f"end of {status}")
            time.sleep(0.05)

    def _socket(self, name: str) -> Path:
        return self._folder / f"{self.name}.{name}"

    def _await(self, name: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._socket(name).exists():
            self._check(deadline, name)
            time.sleep(0.02)

    def _connect(self, name: str) -> socket.socket:
        deadline = time.monotonic() + START_SECONDS
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(self._socket(name)))
            except OSError:
                connection.close()
                self._check(deadline, name)
                time.sleep(0.02)
            else:
                return connection

    def _check(self, deadline: float, name: str) -> None:
        assert self._child is not None
        if self._child.ended or time.monotonic() > deadline:
            raise TestOsError(f"QEMU has no {name} for {self.name}:\n{self._child.log_tail()}")

    def _command(self) -> list[str]:
        program = shutil.which("qemu-system-x86_64")
        if program is None:
            raise TestOsError("qemu-system-x86_64 is not installed; run tools/packages vm as root")
        for name in ("console", "monitor", "shell"):
            self._socket(name).unlink(missing_ok=True)
        options = self.options
        forwards = "".join(
            f",hostfwd=tcp:127.0.0.1:{ours}-{options.address}:{theirs}" for ours, theirs in options.forwards.items()
        )
        on_error = "stop" if options.stop_on_fault else "report"
        command = [
            program, "-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg,thread=multi", "-cpu", "max",
            "-m", str(options.memory_mib), "-smp", str(options.processors), "-device", "virtio-rng-pci",
            "-serial", f"unix:{self._socket('console')},server=on,wait=on",
            "-serial", f"unix:{self._socket('shell')},server=on,wait=off",
            "-qmp", f"unix:{self._socket('monitor')},server=on,wait=off",
            "-netdev", f"user,id=net{forwards}", "-device", "virtio-net-pci,netdev=net,romfile=",
            "-blockdev", json.dumps(self._block_device()),
            # QEMU's own answer to a full disk is to stop the machine; a real disk tells the system.
            "-device", f"virtio-blk-pci,drive=disk,rerror=report,werror={on_error}",
        ]  # fmt: skip
        for serial, path in options.media.items():
            medium = {"driver": "raw", "node-name": serial, "read-only": True}
            command += ["-blockdev", json.dumps({**medium, "file": {"driver": "file", "filename": str(path)}})]
            command += ["-device", f"virtio-blk-pci,drive={serial},serial={serial}"]
        if options.clock:
            command += ["-rtc", f"base={options.clock}"]
        if options.crash_memory:
            memory = f"memory-backend-file,id=erst,mem-path={self._socket('erst')},size={CRASH_BYTES},share=on"
            command += ["-object", memory, "-device", "acpi-erst,memdev=erst"]
        if options.watchdog:
            command += ["-device", "i6300esb", "-action", "watchdog=reset"]
        return command + (self._boot_by_uefi() if options.uefi else self._boot_by_loader())

    def _boot_by_loader(self) -> list[str]:
        words = " ".join([WORDS, *(f"os:{word}" for word in self.options.words.split())])
        kernel, initrd = self._loader.kernel, self._loader.initrd
        return ["-kernel", str(kernel), "-initrd", str(initrd), "-append", words]

    def _boot_by_uefi(self) -> list[str]:
        variables = self._folder / f"{self.name}-efi-variables"
        if not variables.exists():
            shutil.copyfile(FIRMWARE / "OVMF_VARS_4M.fd", variables)
        return [
            "-machine", "q35", "-drive", f"if=pflash,format=raw,readonly=on,file={FIRMWARE / 'OVMF_CODE_4M.fd'}",
            "-drive", f"if=pflash,format=raw,file={variables}",
        ]  # fmt: skip

    def _block_device(self) -> dict[str, Any]:
        file: dict[str, Any] = {"driver": "file", "node-name": "medium", "filename": str(self.disk), "cache": _CACHE}
        if self.options.faults:
            rules = [_rule(fault) for fault in self.options.faults]
            file = {"driver": "blkdebug", "image": file, "inject-error": rules}
        return {**_DISK, "file": file}


def _rule(fault: BlockFault) -> dict[str, Any]:
    rule: dict[str, Any] = {
        "event": "none",
        "iotype": fault.operation,
        "errno": fault.error,
        "once": fault.once,
    }
    return rule if fault.sector is None else rule | {"sector": fault.sector}
