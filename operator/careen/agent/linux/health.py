"""The local gates of a trial: is this OS well, as far as the machine itself can tell? The API server is no gate."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

from careen.agent.units.shelf import FILES

from .mounts import read_mounts
from .root import RUN, STATE, Commands, Root

MIB = 1 << 20
KUBELET_HEALTHZ = "http://127.0.0.1:10248/healthz"
_HEALTHZ_SECONDS = 3.0
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks without a proxy: one for the release repository knows nothing of this machine's own loopback."""
_COMMAND_SECONDS = 10.0

Gate = Callable[[], str | None]


@dataclass(frozen=True)
class HealthSettings:
    """What a well OS must have.

    tolerated: patterns of units that may have failed. mounts: places where something must be mounted.
    kubelet: URL that must answer 200 when kubelet.service is there; empty: not asked. free_bytes: in the state folder.
    """

    tolerated: Sequence[str] = ()
    mounts: Sequence[str] = ()
    kubelet: str = KUBELET_HEALTHZ
    free_bytes: int = 64 * MIB


class Health:
    """The gates, asked one after the other; the first refusal is the answer."""

    def __init__(self, root: Root, commands: Commands, settings: HealthSettings) -> None:
        self._root = root
        self._commands = commands
        self._settings = settings

    def check(self) -> str | None:
        """Why the OS is not well; None if it is."""
        gates: tuple[Gate, ...] = (self._check_disk, self._check_mounts, self._check_systemd, self._check_kubelet)
        return next((refusal for gate in gates if (refusal := gate()) is not None), None)

    def _check_disk(self) -> str | None:
        status = os.statvfs(self._root.at(STATE))
        free, needed = status.f_bavail * status.f_frsize, self._settings.free_bytes
        return f"{STATE} has {free} bytes free; needed: {needed}" if free < needed else None

    def _check_mounts(self) -> str | None:
        there = {mount.place for mount in read_mounts(self._root)}
        missing = [place for place in self._settings.mounts if place not in there]
        return f"nothing is mounted at {', '.join(missing)}" if missing else None

    def _check_systemd(self) -> str | None:
        answer = self._commands.run(["systemctl", "is-system-running"], timeout=_COMMAND_SECONDS)
        state = answer.output.strip()
        if state == "running":
            return None
        if state == "starting" and self._waits_for_placed_units():
            return self._check_failed(none_is_well=True)
        if state != "degraded":
            return f"systemd says {state or answer.sentence}"
        return self._check_failed()

    def _waits_for_placed_units(self) -> bool:
        """Whether the boot would be over but for units that the cluster has placed here: a oneshot may take hours."""
        argv = ["systemctl", "list-jobs", "--plain", "--no-legend", "--full"]
        answer = self._commands.run(argv, timeout=_COMMAND_SECONDS)
        jobs = [line.split() for line in answer.output.splitlines() if line.split()]
        return answer.code == 0 and bool(jobs) and all(len(job) > 1 and self._is_placed(job[1]) for job in jobs)

    def _check_failed(self, *, none_is_well: bool = False) -> str | None:
        argv = ["systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "--full"]
        answer = self._commands.run(argv, timeout=_COMMAND_SECONDS)
        listed = [line.split()[0] for line in answer.output.splitlines() if line.split()]
        if answer.code != 0 or not (listed or none_is_well):
            # Not well, and nobody says why: no unit of that can count as tolerated.
            return f"systemd says degraded, and its failed units can't be listed: {answer.sentence}"
        failed = [unit for unit in listed if not self._is_tolerated(unit)]
        return f"units have failed: {', '.join(sorted(failed)[:8])}" if failed else None

    def _is_tolerated(self, unit: str) -> bool:
        return self._is_placed(unit) or any(fnmatch(unit, pattern) for pattern in self._settings.tolerated)

    def _is_placed(self, unit: str) -> bool:
        # What the cluster runs here says nothing of the OS: a unit that fails everywhere must not undo an update.
        return (self._root.at(RUN) / FILES / unit).exists()

    def _check_kubelet(self) -> str | None:
        url = self._settings.kubelet
        if not url or not self._has_kubelet():
            return None
        try:
            with _DIRECT.open(url, timeout=_HEALTHZ_SECONDS) as answer:
                return None if answer.status == 200 else f"kubelet answers {answer.status} at {url}"
        except urllib.error.HTTPError as error:
            return f"kubelet answers {error.code} at {url}"
        except OSError as error:
            return f"kubelet does not answer at {url}: {error}"

    def _has_kubelet(self) -> bool:
        answer = self._commands.run(["systemctl", "is-enabled", "kubelet.service"], timeout=_COMMAND_SECONDS)
        return answer.output.strip() in ("enabled", "enabled-runtime", "static", "alias", "generated")
