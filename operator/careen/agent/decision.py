"""How the machine boots the next slot, and what resets a trial that hangs: decided before any drain. Pure."""

from __future__ import annotations

from dataclasses import replace

from careen.api.meta import BootMethod

from .record import Deadman, Fault
from .view import BootDecision, HostFacts


def decide_boot(wish: BootMethod | None, facts: HostFacts, digest: str | None = None) -> BootDecision:
    """How this machine boots the release `digest`: by kexec where it can, unless the firmware is asked for.

    wish: of the order, or of the Node; None is Auto. Kexec overrides what the machine has only learned or guessed
    (a deny list, a boot that was lost), but not what makes it impossible.
    """
    found = facts.boot_decision or _guess(facts)
    if wish == "Firmware":
        if found.method == "Firmware":
            return found
        message = "it could boot by kexec; spec.boot.method or the policy asks for the firmware"
        return _through_firmware(facts, found, "Asked", message)
    if wish == "Kexec" and facts.kexec:
        if found.method == "Kexec":
            return found
        message = f"spec.boot.method or the policy asks for kexec, against: {found.message}"
        return replace(found, method="Kexec", reason="Asked", message=message, deadman=_kexec_deadman(facts, found))
    if found.method == "Kexec" and digest is not None and facts.kexec_suspect == digest:
        message = "the last boot of this release by kexec was lost without a word, so the firmware boots it now"
        return _through_firmware(facts, found, "KexecLost", message)
    return found


def refuse_unguarded(decision: BootDecision, *, allowed: bool) -> Fault | None:
    """Why a trial by this decision may not begin: nothing would end one that hangs. None if it may.

    The operator has looked before the drain; memory, a watchdog or the method may have gone since.
    """
    if decision.deadman != "Missing" or allowed:
        return None
    sentence = f"nothing would end a trial that hangs ({decision.method} now: {decision.message})"
    return Fault("Boot", f"{sentence}; spec.boot.allowNoDeadman of the policy permits it all the same")


def _guess(facts: HostFacts) -> BootDecision:
    if facts.kexec:
        return BootDecision("Kexec", "Supported", "it can boot by kexec", "Missing")
    return BootDecision("Firmware", "Unsupported", "it can't boot by kexec", "Missing")


def _through_firmware(facts: HostFacts, found: BootDecision, reason: str, message: str) -> BootDecision:
    # The firmware's reset stops a watchdog that was armed before it.
    lost = found.deadman == "HardwareWatchdog"
    deadman: Deadman = "TrialTimer" if facts.trial_timer else "Missing" if lost else found.deadman
    return BootDecision("Firmware", reason, message, deadman)


def _kexec_deadman(facts: HostFacts, found: BootDecision) -> Deadman:
    return "HardwareWatchdog" if facts.watchdog else found.deadman
