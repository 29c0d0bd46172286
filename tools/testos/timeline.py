"""When each step of a machine's update was seen: by a watch of the API server, and on the machine's console.

All instants are seconds of this host's monotonic clock; no machine's clock is asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from careen.sandbox.witness import Sighting

from .serial import Line

SHOW_SHUTDOWN = "systemd.show_status=1"
"""Word of the command line that lets the console show when a shutdown begins, by systemd's lines about its units."""
_LEAVING = re.compile(r"\bStopp(ing|ed)\b|\bUnmounting\b|Shutting down")
_ENTERED = re.compile(r"INITRD (\d+\.\d+) started")
_PANIC = re.compile(r"Kernel panic|OS fault: panic")


class NotSeenError(Exception):
    """A step of an update was not seen; the message says which."""


@dataclass(frozen=True)
class Track:
    """All that was seen of one machine."""

    nodes: Sequence[Sighting]
    """Versions of its Node."""
    cores: Sequence[Sighting]
    """Versions of its core Node."""
    lines: Sequence[Line]
    """Its console."""
    switched_on: float
    """The instant from which the console's lines count."""


@dataclass(frozen=True)
class Moves:
    """What the staging did with the image's bytes."""

    total: int
    fetched: int
    reused: int
    skipped: int


@dataclass(frozen=True)
class Passage:
    """When the steps of one update of one machine were seen."""

    ordered: float
    """The order to stage the release was written."""
    staged: float
    """The release was reported complete and verified in the passive slot."""
    cordoned: float
    """The machine's turn came: it had the lock, and no new pods came to it."""
    drained: float
    """Its pods were gone, and it was told to activate."""
    requested: float
    """systemd had begun with the reboot that the agent requested."""
    kernel_started: float
    """The kernel of the system that came back had started."""
    agent_back: float
    """The agent of the new boot was heard at the API server."""
    ended: float
    """The order was reported Committed or RolledBack."""
    moves: Moves
    """What the staging did."""

    @property
    def outage(self) -> float:
        """Seconds from the request for the reboot until the agent was back."""
        return self.agent_back - self.requested

    def list_steps(self) -> list[tuple[str, float]]:
        """Each step and its seconds since the one before."""
        names = ("staged", "waited", "drained", "requested", "kernelStarted", "agentBack", "ended")
        instants = (
            self.ordered, self.staged, self.cordoned, self.drained,
            self.requested, self.kernel_started, self.agent_back, self.ended,
        )  # fmt: skip
        return [(name, instants[i + 1] - instants[i]) for i, name in enumerate(names)]


def read_passage(track: Track, version: str, since: float) -> Passage:
    """The update of a machine to a version that was ordered after `since`.

    Raises NotSeenError when a step of it was not seen.
    """
    nodes = [seen for seen in track.nodes if seen.at >= since and _ordered(seen.document) == version]
    ordered = _first(nodes, lambda _: True, "ordered")
    staged = _first(nodes, lambda node: _phase(node) == "Staged", "staged")
    cordoned = _first(
        [seen for seen in track.cores if seen.at >= ordered],
        lambda core: bool(core.get("spec", {}).get("unschedulable")),
        "cordoned",
    )
    drained = _first(nodes, lambda node: node["spec"]["assignment"]["goal"] == "Activate", "drained")
    activating = _first(nodes, lambda node: _phase(node) == "Activating", "activating")
    requested = find_line(track, _LEAVING, activating, "the shutdown")
    back = _first(nodes, _is_another_boot, "back", after=requested)
    ended = _first(nodes, lambda node: _phase(node) in ("Committed", "RolledBack"), "ended")
    return Passage(
        ordered, staged, max(cordoned, staged), drained, requested, _find_kernel(track, requested, back), back, ended,
        _read_moves(nodes),
    )  # fmt: skip


def find_line(track: Track, pattern: re.Pattern[str], since: float, what: str) -> float:
    """When a line appeared on the console, the first one from `since` on. Raises NotSeenError when none did."""
    for line in track.lines:
        if track.switched_on + line.seconds >= since and pattern.search(line.text):
            return track.switched_on + line.seconds
    raise NotSeenError(f"{what} was not seen on the console")


def find_panic(track: Track, since: float) -> float:
    """When a kernel panicked. Raises NotSeenError when none did."""
    return find_line(track, _PANIC, since, "a panic")


def _find_kernel(track: Track, since: float, until: float) -> float:
    """When the kernel started whose system came back: its initrd tells how long that has been up."""
    found = [
        track.switched_on + line.seconds - float(match[1])
        for line in track.lines
        if since <= track.switched_on + line.seconds <= until and (match := _ENTERED.search(line.text))
    ]
    if not found:
        raise NotSeenError("the kernel's start was not seen on the console")
    return found[-1]


def _first(
    sightings: Iterable[Sighting], check: Callable[[dict[str, Any]], bool], what: str, *, after: float = 0.0
) -> float:
    for seen in sightings:
        if seen.at >= after and seen.document is not None and check(seen.document):
            return seen.at
    raise NotSeenError(f"the machine was not seen {what}")


def _ordered(node: dict[str, Any] | None) -> str:
    order = ((node or {}).get("spec") or {}).get("assignment") or {}
    return str(order.get("release", {}).get("version", ""))


def _phase(node: dict[str, Any]) -> str:
    """Phase of the order that the Node has now; empty when the agent speaks of another one."""
    step = (node.get("status") or {}).get("step") or {}
    return str(step.get("phase", "")) if step.get("id") == node["spec"]["assignment"]["id"] else ""


def _is_another_boot(node: dict[str, Any]) -> bool:
    return bool(node["status"].get("bootID")) and node["status"]["bootID"] != node["spec"]["assignment"].get(
        "fromBootID"
    )


def _read_moves(nodes: Sequence[Sighting]) -> Moves:
    """The last progress of the staging that was reported."""
    for seen in reversed(nodes):
        if seen.document is not None and _phase(seen.document) in ("Staging", "Staged"):
            told = seen.document["status"]["step"].get("progress")
            if told:
                return Moves(
                    told["bytesTotal"],
                    told.get("bytesFetched", 0),
                    told.get("bytesReused", 0),
                    told.get("bytesSkipped", 0),
                )
    raise NotSeenError("the bytes of the staging were not seen")
