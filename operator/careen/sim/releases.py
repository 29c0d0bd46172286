"""The releases of a simulated repository, each with what goes wrong in its trial boots."""

import hashlib
from dataclasses import dataclass

from careen.core.releases import Release

REPOSITORY = "http://releases.example"
CHANNEL = "stable"

FAULTS = ("panic", "hang", "no-agent", "unhealthy", "never-ready", "no-api", "second", "no-fetch", "corrupt")
"""panic: panics some time into the boot. hang: stands still until the watchdog bites. no-agent: the agent never
starts, and the trial's timer resets. unhealthy: the local gates never pass. never-ready: the kubelet never reports
Ready. no-api: the agent does not reach the API server. second: the first boot on each machine is lost, the next one is
good. no-fetch: the image can't be fetched. corrupt: it has another digest than promised."""


@dataclass(frozen=True, slots=True)
class SimRelease:
    """A release and its fault, if any."""

    release: Release
    fault: str | None

    @property
    def good(self) -> bool:
        """Whether it runs, sooner or later, on every machine."""
        return self.fault in (None, "second")


def make_release(number: int, fault: str | None) -> SimRelease:
    """Release `number`.0.0."""
    version = f"{number}.0.0"
    release = Release(
        REPOSITORY, version, f"sha256:{hashlib.sha256(version.encode()).hexdigest()}", 4096, f"images/{version}"
    )
    return SimRelease(release, fault)
