"""Other programs that update or reboot this machine on their own. Two masters of one pair of slots break it."""

from __future__ import annotations

import re

from .root import Root

_MASTERS = {
    "update_engine": "it writes the passive slot on its own; stop and mask update-engine.service",
    "locksmithd": "it reboots the machine on its own; stop and mask locksmithd.service",
    "zincati": "it updates and reboots the machine on its own; stop and mask zincati.service",
    "kured": "it reboots the machine on its own; take this machine out of its DaemonSet",
}


def find_conflict(root: Root) -> str | None:
    """A sentence on another updater that runs on this machine; None if there is none."""
    for name in root.names("/proc"):
        if not name.isdigit():
            continue
        program = root.read(f"/proc/{name}/comm")
        if program in _MASTERS:
            return f"{program} runs on this machine (process {name}): {_MASTERS[program]}"
    return None


def find_kexec_hook(root: Root) -> str | None:
    """A sentence if the distribution turns each reboot into a kexec of its own kernel; None if it does not.

    Debian's kexec-tools do that with LOAD_KEXEC=true: the firmware would never get to choose the new slot.
    """
    text = root.read("/etc/default/kexec") or ""
    values = re.findall(r"^\s*LOAD_KEXEC=[\"']?(\w+)", text, re.MULTILINE)
    if values and values[-1] == "true" and root.at("/vmlinuz").exists():
        return "/etc/default/kexec has LOAD_KEXEC=true, so a reboot would start /vmlinuz by kexec; set it to false"
    return None
