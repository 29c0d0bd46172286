"""How the agent treats its Linux machine, as its command line says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .health import HealthSettings
from .preflight import DENIED_VENDORS

LoaderName = Literal["auto", "gptprio", "systemd-boot"]


@dataclass(frozen=True)
class LinuxSettings:
    """How the agent treats its machine. Times are in seconds."""

    trust_root: Path = Path("/usr/share/careen/root.json")
    """The root.json that releases are trusted by, as the machine sees it."""
    kexec: bool = True
    """Whether kexec may be used."""
    denied_vendors: Sequence[str] = DENIED_VENDORS
    """Beginnings of DMI vendors whose machines are not booted by kexec unless somebody asks for it."""
    loader: LoaderName = "auto"
    """What boots the machine after a reset; auto looks for systemd-boot's note."""
    watchdog_seconds: int = 180
    """How long the hardware watchdog waits for the trial to feed it, from the kexec on."""
    forced_reboot_seconds: int = 180
    """How long a shutdown may take before the machine is reset by force."""
    health: HealthSettings = field(default_factory=HealthSettings)
    """The local gates of a trial."""

    @property
    def watchdog_span(self) -> int:
        """How long the watchdog must be able to wait: nobody feeds it from the request on, through the shutdown."""
        return self.forced_reboot_seconds + self.watchdog_seconds
