"""Whether this machine can and should boot by kexec, found out before anything is drained."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from careen.agent.record import Deadman
from careen.agent.view import BootDecision

from .root import Root

DENIED_VENDORS = ("Google", "Microsoft Corporation", "Raspberry Pi")
"""DMI vendors whose machines are known to hang after kexec: both clouds' guests, and the Pi."""

MEMORY_FACTOR = 3
"""Free memory must be this many times what kernel and initrd take: once here, once loaded, once unpacked."""

_SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


@dataclass(frozen=True)
class Platform:
    """What stands for or against kexec. free_bytes: None if it can't be told; vendor: empty if unknown."""

    supported: bool
    disabled: bool
    lockdown: str
    secure_boot: bool
    free_bytes: int | None
    run_bytes: int | None
    vendor: str
    watchdog: bool


@dataclass(frozen=True)
class Preflight:
    """Settings. kexec: whether it may be used at all; denied_vendors: beginnings of DMI vendors, case ignored."""

    kexec: bool = True
    denied_vendors: Sequence[str] = DENIED_VENDORS


def read_platform(root: Root, *, watchdog: bool) -> Platform:
    """Look at the machine. watchdog: whether one goes on over a kexec."""
    return Platform(
        supported=root.at("/sys/kernel/kexec_loaded").exists(),
        disabled=root.read("/proc/sys/kernel/kexec_load_disabled") == "1",
        lockdown=_read_lockdown(root),
        secure_boot=_read_secure_boot(root),
        free_bytes=_read_free(root),
        run_bytes=_read_room(root),
        vendor=root.read("/sys/class/dmi/id/sys_vendor") or "",
        watchdog=watchdog,
    )


@dataclass(frozen=True)
class Staged:
    """The staged release. boot_bytes: size of kernel and initrd; 0 if it has none, None if nothing is staged.

    trial_timer: whether it declares the timer that ends a trial. blamed: second digest that only the firmware
    could boot here.
    """

    boot_bytes: int | None = None
    trial_timer: bool = False
    blamed: str | None = None


def decide(platform: Platform, settings: Preflight, staged: Staged) -> BootDecision:
    """What the machine would do if nobody asked for a method. Pure."""
    trial_timer = staged.trial_timer
    reason, message = _refuse(platform, settings, staged) or ("Supported", "kexec is there and permitted")
    if reason == "Supported":
        timer: Deadman = "TrialTimer" if trial_timer else "Missing"
        return BootDecision("Kexec", reason, message, "HardwareWatchdog" if platform.watchdog else timer)
    return BootDecision("Firmware", reason, message, "TrialTimer" if trial_timer else "Missing")


def is_possible(platform: Platform, settings: Preflight) -> bool:
    """Whether kexec could be tried at all if somebody insists: only what is a guess is left out. Pure."""
    return _refuse_hard(platform, settings) is None


def _refuse(platform: Platform, settings: Preflight, staged: Staged) -> tuple[str, str] | None:
    boot_bytes = staged.boot_bytes
    if refusal := _refuse_hard(platform, settings):
        return refusal
    if boot_bytes == 0:
        return "NoKernel", "the staged release has no kernel that could be loaded"
    needed = MEMORY_FACTOR * boot_bytes if boot_bytes is not None else 0
    if platform.free_bytes is not None and platform.free_bytes < needed:
        return "LowMemory", f"too little memory is free: kexec of this release needs {needed} bytes"
    if boot_bytes is not None and platform.run_bytes is not None and platform.run_bytes < boot_bytes:
        return "LowMemory", f"too little room is in /run: kexec of this release needs {boot_bytes} bytes there"
    if staged.blamed is not None:
        return (
            "KexecFailed",
            f"two releases, at last {staged.blamed}, were lost by kexec here and booted by the firmware",
        )
    vendor = platform.vendor.casefold()
    if denied := next((name for name in settings.denied_vendors if name and vendor.startswith(name.casefold())), None):
        return "DenyListed", f"machines of {platform.vendor} are on the deny list for kexec ({denied})"
    return None


def _refuse_hard(platform: Platform, settings: Preflight) -> tuple[str, str] | None:
    if not settings.kexec:
        return "Unsupported", "the agent was started with --no-kexec"
    if not platform.supported:
        return "Unsupported", "the kernel was built without kexec: there is no /sys/kernel/kexec_loaded"
    if platform.disabled:
        return "Disabled", "kernel.kexec_load_disabled is 1; only a reboot clears it"
    if platform.lockdown not in ("", "none"):
        return "Lockdown", f"the kernel is locked down ({platform.lockdown}) and loads signed kernels only"
    if platform.secure_boot:
        return "SecureBoot", "Secure Boot is on, and the firmware must check the next kernel"
    return None


def _read_lockdown(root: Root) -> str:
    """The level in brackets: none, integrity or confidentiality; empty if the kernel has no lockdown."""
    text = root.read("/sys/kernel/security/lockdown") or ""
    return text.partition("[")[2].partition("]")[0]


def _read_secure_boot(root: Root) -> bool:
    try:
        # Four bytes of attributes, then the value.
        return root.at(_SECURE_BOOT).read_bytes()[4:5] == b"\x01"
    except OSError:
        return False


def _read_free(root: Root) -> int | None:
    for line in (root.read("/proc/meminfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def _read_room(root: Root) -> int | None:
    try:
        room = os.statvfs(root.at("/run"))
    except OSError:
        return None
    return room.f_bavail * room.f_frsize
