"""What the machine tells about itself and about this boot."""

from __future__ import annotations

import json
import logging
import platform
import re
import shlex
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from careen.agent.record import Method
from careen.release.durable import PRIVATE, write_durably

from .cmdline import find_word
from .root import Root

logger = logging.getLogger(__name__)

BOOT_WORD = "careen.boot"
ORDER_WORD = "careen.order"
_KEXEC_LOADER = 0xD
"""Upper part of bootloader_type when kexec started the kernel."""


@dataclass(frozen=True)
class BootFacts:
    """This boot. started, seen: seconds of CLOCK_REALTIME at which the kernel started and at which this was read."""

    boot_id: str
    machine_id: str
    method: Method
    os_image: str | None
    version: str | None
    started: float
    seen: float


def read_boot(root: Root) -> BootFacts:
    """Facts of this boot; they do not change while it lasts. Raises OSError if the machine has no identity."""
    boot_id = root.read("/proc/sys/kernel/random/boot_id")
    machine_id = root.read("/etc/machine-id")
    if not boot_id or not machine_id:
        missing = "/etc/machine-id" if boot_id else "/proc/sys/kernel/random/boot_id"
        raise OSError(f"{root.at(missing)} is empty or can't be read; expected: the machine's identity")
    release = read_os_release(root)
    seen = time.time()
    return BootFacts(
        boot_id=boot_id,
        machine_id=machine_id,
        method=read_method(root),
        os_image=release.get("PRETTY_NAME"),
        version=release.get("IMAGE_VERSION") or release.get("VERSION_ID"),
        started=seen - time.clock_gettime(time.CLOCK_BOOTTIME),
        seen=seen,
    )


def read_method(root: Root) -> Method:
    """How this kernel was started.

    The word on the command line goes first: a boot loader that is itself a kernel starts everything by kexec. Without
    it the kernel's own note of its loader, which is there on x86 only.
    """
    word = find_word(root.read("/proc/cmdline") or "", BOOT_WORD)
    if word in ("kexec", "firmware"):
        return "Kexec" if word == "kexec" else "Firmware"
    kind = root.read("/proc/sys/kernel/bootloader_type")
    return "Kexec" if kind and kind.isdigit() and int(kind) >> 4 == _KEXEC_LOADER else "Firmware"


def read_os_release(root: Root) -> dict[str, str]:
    """The fields of os-release; empty if there is none."""
    text = root.read("/etc/os-release") or root.read("/usr/lib/os-release") or ""
    fields = {}
    for key, value in re.findall(r"^([A-Z_0-9]+)=(.*)$", text, re.MULTILINE):
        try:
            fields[key] = " ".join(shlex.split(value))
        except ValueError:
            fields[key] = value
    return fields


@dataclass(frozen=True)
class BootTimes:
    """When kernel and first agent of this boot started, by the machine's clock at that time (RFC 3339)."""

    kernel: str
    agent: str


def note_times(path: Path, boot: BootFacts) -> BootTimes:
    """The times of this boot: those in the file of its first agent, which this one may be. Raises OSError."""
    try:
        return BootTimes(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        pass
    except (ValueError, TypeError) as error:
        logger.warning("%s can't be read and is made anew: %s", path, error)
    times = BootTimes(_format(boot.started), _format(boot.seen))
    write_durably(path, json.dumps(asdict(times)).encode(), mode=PRIVATE)
    return times


def _format(instant: float) -> str:
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_uptime() -> float:
    """Seconds of CLOCK_BOOTTIME, which begins anew at each boot, also by kexec."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def read_kernel() -> str:
    """Release of the running kernel."""
    return platform.release()
