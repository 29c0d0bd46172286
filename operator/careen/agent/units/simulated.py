"""A systemd that only keeps books, for machines that are folders or live in memory.

What a unit does follows from its file, so that a test can foresee it: a service whose ExecStart is `false` fails,
`true` ends at once, `sleep N` ends after N seconds, and anything else runs on; a socket listens, a timer waits. Nothing
is activated by a socket or a timer. Its books last until the next boot, and not longer, as those of a real one.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from careen.units.file import Option, UnitError, parse_options
from careen.units.names import split_name

from .shelf import MemoryShelf
from .sight import ABSENT, UnitState
from .systemd import Shelf, SystemdError, UnitHost

OURS = "/run/careen/units"
"""Where it says that the files of the shelf are."""
MACHINE_UNITS = {"careen-agent.service": "/usr/lib/systemd/system/careen-agent.service"}
"""Units that the machine has by itself, with their files; they run."""
STANDING = {
    "socket": "listening", "timer": "waiting", "path": "waiting", "mount": "mounted", "automount": "waiting",
    "swap": "active", "target": "active", "slice": "active",
}  # fmt: skip
"""Sub state of a unit that is active, by its type; services are another matter."""


@dataclass
class Entry:
    """One unit in the books."""

    load: str = "loaded"
    active: str = "inactive"
    sub: str = "dead"
    ends: float | None = None
    """Instant of CLOCK_BOOTTIME at which its process ends by itself; None: it does not."""
    linked: bool = True
    """Whether its file is in the search path."""
    enabled: bool = False
    text: str = ""
    """The file as it was when it was last read."""
    starts: int = 0
    """How often it was started in this boot."""
    stops: int = 0
    """How often it was stopped in this boot while it ran."""


@dataclass
class Faults:
    """What is to go wrong, by unit names; may be changed at any time."""

    start: set[str] = field(default_factory=set)
    """Their starts fail: the unit has failed after that."""
    stop: set[str] = field(default_factory=set)
    """Their stops fail: the unit runs on."""
    away: bool = False
    """systemd does not answer at all."""

    @classmethod
    def load(cls, path: Path) -> Faults:
        """Read them from JSON: {"start": [names], "stop": [names], "away": false}; no file: nothing goes wrong."""
        try:
            document = json.loads(path.read_bytes())
        except FileNotFoundError:
            return cls()
        return cls(set(document.get("start", ())), set(document.get("stop", ())), bool(document.get("away")))


class SimulatedSystemd:
    """The books. Two agents, one after the other, see the same if they have the same `books`.

    books: file that keeps them, in a folder that is emptied at each boot; None: this object keeps them. faults: file
    with what is to go wrong; None: the attribute `faults` says it. job_seconds: how long a start or a stop takes; the
    attribute of that name may be changed at any time.
    """

    def __init__(
        self, shelf: Shelf, *, books: Path | None = None, faults: Path | None = None, job_seconds: float = 0.0
    ) -> None:
        self.faults = Faults()
        self.job_seconds = job_seconds
        self._shelf = shelf
        self._books = books
        self._faults_file = faults
        self._entries: dict[str, Entry] = {}
        self._read = books is None
        self._on_change: Callable[[], None] = lambda: None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._jobs: set[asyncio.Task[str]] = set()

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The books as they stand, for those who check them."""
        self._turn()
        return self._entries

    def reboot(self) -> None:
        """Everything is forgotten, as at a boot; for machines without a folder."""
        self._entries = {}

    def listen(self, on_change: Callable[[], None]) -> None:
        """Call this at each change."""
        self._on_change = on_change

    async def look(self, names: Collection[str]) -> Mapping[str, UnitState]:
        """The units of these names."""
        self._turn()
        return {name: self._show(name) for name in names}

    async def link(self, name: str, *, install: bool) -> None:
        """Put it into the books."""
        self._turn()
        text = self._shelf.read(name)
        if text is None:
            raise SystemdError(f"Unit file {name} does not exist.")
        known = self._entries.get(name)
        entry = known or Entry(text=text, load=_judge(name, text))
        entry.linked, entry.enabled = True, install
        self._entries[name] = entry
        self._save()

    async def unlink(self, name: str) -> None:
        """Take its links away; what it does goes on."""
        self._turn()
        if (entry := self._entries.get(name)) is not None:
            entry.linked = entry.enabled = False
            if entry.active == "failed":
                entry.active, entry.sub = "inactive", "dead"
            self._save()

    async def reload(self) -> None:
        """Read all files again."""
        self._turn()
        for name, entry in list(self._entries.items()):
            text = self._shelf.read(name) if entry.linked else None
            if text is not None:
                entry.text, entry.load = text, _judge(name, text)
            elif entry.active in ("inactive", "failed"):
                del self._entries[name]
            else:
                entry.load = "not-found"
        self._save()
        self._on_change()

    async def start(self, name: str) -> Awaitable[str]:
        """Start it, if it can be."""
        self._turn()
        entry = self._find(name)
        if entry.load != "loaded":
            raise SystemdError(f"Unit {name} has a bad unit file setting.")

        def finish() -> str:
            if entry.active not in ("inactive", "failed", "activating"):
                return "done"
            entry.starts += 1
            entry.active, entry.sub, entry.ends = _begin(name, entry.text, _now())
            if name in self.faults.start:
                entry.active, entry.sub, entry.ends = "failed", "failed", None
            return "failed" if entry.active == "failed" else "done"

        if entry.active in ("inactive", "failed") and self.job_seconds:
            entry.active, entry.sub = "activating", "start"
        return self._work(finish)

    async def stop(self, name: str) -> Awaitable[str]:
        """Stop it."""
        self._turn()
        entry = self._find(name)

        def finish() -> str:
            if name in self.faults.stop:
                return "failed"
            entry.stops += entry.active not in ("inactive", "failed")
            entry.active, entry.sub, entry.ends = "inactive", "dead", None
            return "done"

        return self._work(finish)

    async def close(self) -> None:
        """Its jobs go on in the books of nobody, as those of a real one would."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers = {}
        await asyncio.gather(*self._jobs, return_exceptions=True)

    def _work(self, finish: Callable[[], str]) -> Awaitable[str]:
        async def work() -> str:
            await asyncio.sleep(self.job_seconds)
            result = finish()
            self._save()
            self._on_change()
            return result

        self._save()
        task = asyncio.create_task(work())
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)
        return asyncio.shield(task)

    def _find(self, name: str) -> Entry:
        entry = self._entries.get(name)
        if entry is None or not (entry.linked or entry.active not in ("inactive", "failed")):
            raise SystemdError(f"Unit {name} not found.")
        return entry

    def _turn(self) -> None:
        """Bring the books to this instant: what is to go wrong, and what has ended by itself."""
        if not self._read and self._books is not None:
            self._read = True
            if self._books.exists():
                self._entries = {name: Entry(**each) for name, each in json.loads(self._books.read_bytes()).items()}
        if self._faults_file is not None:
            self.faults = Faults.load(self._faults_file)
        if self.faults.away:
            raise SystemdError("Connection refused: the simulated systemd is switched off")
        for name, entry in self._entries.items():
            if entry.ends is None:
                continue
            if entry.ends <= _now():
                entry.active, entry.sub, entry.ends = _end(entry.text)
            else:
                self._wake_at(name, entry.ends)

    def _wake_at(self, name: str, instant: float) -> None:
        if (old := self._timers.pop(name, None)) is not None:
            old.cancel()
        loop = asyncio.get_running_loop()
        self._timers[name] = loop.call_later(max(0.0, instant - _now()) + 0.01, self._on_change)

    def _show(self, name: str) -> UnitState:
        entry = self._entries.get(name)
        if entry is not None:
            there = entry.load != "not-found"
            return UnitState(entry.load, entry.active, entry.sub, f"{OURS}/{name}" if there else "", ours=there)
        if name in MACHINE_UNITS:
            return UnitState("loaded", "active", "running", MACHINE_UNITS[name])
        return ABSENT

    def _save(self) -> None:
        if self._books is not None:
            told = {name: asdict(entry) for name, entry in self._entries.items()}
            fresh = self._books.with_suffix(".new")
            fresh.write_text(json.dumps(told))
            fresh.replace(self._books)


class MemoryUnits:
    """The units of a machine that lives in memory."""

    def __init__(self) -> None:
        self.shelf = MemoryShelf()
        self.systemd = SimulatedSystemd(self.shelf)
        self.host = UnitHost(self.shelf, self.systemd)

    def reboot(self) -> None:
        """Nothing of them is left."""
        self.shelf.clear()
        self.systemd.reboot()


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _options(text: str) -> tuple[Option, ...]:
    try:
        return parse_options(text)
    except UnitError:
        return ()


def _value(text: str, section: str, name: str) -> str:
    return next((each.value for each in _options(text) if (each.section, each.name) == (section, name)), "")


def _judge(name: str, text: str) -> str:
    """systemd's load state of a file."""
    if split_name(name).suffix == "service" and not _value(text, "Service", "ExecStart"):
        return "bad-setting"
    return "loaded"


def _begin(name: str, text: str, now: float) -> tuple[str, str, float | None]:
    """Active and sub state after a start, and when it ends by itself."""
    suffix = split_name(name).suffix
    if suffix != "service":
        return "active", STANDING.get(suffix, "active"), None
    program, *words = _value(text, "Service", "ExecStart").lstrip("-@:+!").split()
    program = Path(program).name
    oneshot = _value(text, "Service", "Type") == "oneshot"
    if program == "false":
        return "failed", "failed", None
    if program == "true":
        return _end(text)
    if program == "sleep" and words and words[0].replace(".", "", 1).isdigit():
        state = ("activating", "start") if oneshot else ("active", "running")
        return *state, now + float(words[0])
    return ("active", "exited", None) if oneshot else ("active", "running", None)


def _end(text: str) -> tuple[str, str, None]:
    """Active and sub state when its process has ended well."""
    remains = _value(text, "Service", "RemainAfterExit").lower() in ("yes", "true", "on", "1")
    return ("active", "exited", None) if remains else ("inactive", "dead", None)
