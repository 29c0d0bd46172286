"""A service on a private bus that answers as systemd does, as far as units need it, forgetfulness included."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from dbus_fast import Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from careen.agent.units.busnames import MANAGER, PROPERTIES, ROOT_PATH, SERVICE, UNIT, to_name, to_path
from careen.units.file import parse_options

CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={path}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""
GC_SECONDS = 0.02


class Bus:
    """A dbus-daemon of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.address = f"unix:path={folder / 'bus'}"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        config = self._folder / "bus.conf"
        config.write_text(CONFIG.format(path=self._folder / "bus"))
        (self._folder / "bus").unlink(missing_ok=True)
        command = ["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile", "--print-address"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), "dbus-daemon did not start"

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


@dataclass
class FakeUnit:
    load: str = "not-found"
    active: str = "inactive"
    sub: str = "dead"
    fragment: str = ""


class RefusedError(Exception):
    """An error as an answer: its name and its sentence."""


class FakeSystemd:
    """systemd's side of the bus."""

    def __init__(self, address: str, search_path: Path) -> None:
        self._address = address
        self.search_path = search_path
        """Folder that units are linked into."""
        search_path.mkdir(exist_ok=True)
        self._bus: MessageBus | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._job = 0
        self.links: dict[str, Path] = {}
        """Files in the search path, by unit."""
        self.enabled: set[str] = set()
        self.memory: dict[str, FakeUnit] = {}
        """Units that it has not forgotten."""
        self.own: dict[str, FakeUnit] = {}
        """Units of the machine itself."""
        self.calls: list[str] = []
        """Methods that were called, with their units."""
        self.starts: dict[str, int] = {}
        self.subscribed = 0
        self.hold: set[str] = set()
        """Units whose jobs do not end until `release`."""
        self.results: dict[str, str] = {}
        """Results of jobs that do not end with done, by unit."""
        self.results_first = False
        """Whether a job's result is told before the answer to who asked for it."""
        self.refuse: dict[str, str] = {}
        """Sentences that methods are refused with."""
        self.then: dict[str, Callable[[], None]] = {}
        """What happens once, right after the answer to a method."""
        self._held: dict[str, tuple[str, str, str]] = {}

    async def start(self) -> None:
        self._bus = await MessageBus(bus_address=self._address).connect()
        self._bus.add_message_handler(self._handle)
        await self._bus.request_name(SERVICE)

    async def stop(self) -> None:
        if self._bus is not None and self._bus.connected:
            self._bus.disconnect()
            await self._bus.wait_for_disconnect()
        self._bus = None

    def tell_reload(self) -> None:
        """Somebody else has had all files read again."""
        self._signal(ROOT_PATH, MANAGER, "Reloading", "b", [False])

    def become(self, name: str, active: str, sub: str) -> None:
        """A unit changes by itself, and everybody is told."""
        unit = self._get(name)
        unit.active, unit.sub = active, sub
        changed = {"ActiveState": Variant("s", active), "SubState": Variant("s", sub)}
        self._signal(to_path(name), PROPERTIES, "PropertiesChanged", "sa{sv}as", [UNIT, changed, []])
        self._forget_soon(name)

    def release(self, name: str) -> None:
        """Let a job that was held end."""
        kind, path, _ = self._held.pop(name)
        self.hold.discard(name)
        self._finish(kind, name, path)

    def _handle(self, message: Message) -> Message | bool:
        if message.message_type is not MessageType.METHOD_CALL or message.interface not in (MANAGER, PROPERTIES):
            return False
        name = to_name(message.path or "") or next((str(each) for each in message.body if isinstance(each, str)), "")
        self.calls.append(f"{message.member} {name}".strip())
        try:
            if (sentence := self.refuse.get(message.member or "")) is not None:
                raise RefusedError("org.freedesktop.systemd1.Refused", sentence)
            answer: Message | bool = getattr(self, f"_{message.member}")(message, *message.body)
            if isinstance(answer, Message) and (happen := self.then.pop(message.member or "", None)) is not None:
                assert self._bus is not None
                self._bus.send(answer)
                happen()
                return True
            return answer
        except RefusedError as error:
            return Message.new_error(message, *error.args)

    def _Subscribe(self, message: Message) -> Message:  # noqa: N802
        self.subscribed += 1
        return Message.new_method_return(message)

    def _LinkUnitFiles(self, message: Message, paths: list[str], runtime: bool, force: bool) -> Message:  # noqa: N802
        assert runtime
        assert force
        for path in paths:
            if not Path(path).exists():
                raise RefusedError("org.freedesktop.DBus.Error.FileNotFound", f"File {path} not found.")
            link = self.search_path / Path(path).name
            link.unlink(missing_ok=True)
            link.symlink_to(path)
            self.links[link.name] = Path(path)
        return Message.new_method_return(message, "a(sss)", [[]])

    def _EnableUnitFiles(self, message: Message, names: list[str], runtime: bool, force: bool) -> Message:  # noqa: N802
        assert runtime
        assert force
        self.enabled |= set(names)
        return Message.new_method_return(message, "ba(sss)", [True, []])

    def _DisableUnitFiles(self, message: Message, names: list[str], runtime: bool) -> Message:  # noqa: N802
        assert runtime
        for name in names:
            if self.links.pop(name, None) is None:
                raise RefusedError("org.freedesktop.DBus.Error.FileNotFound", f"Unit file {name} does not exist.")
            (self.search_path / name).unlink()
            self.enabled.discard(name)
        return Message.new_method_return(message, "a(sss)", [[]])

    def _ResetFailedUnit(self, message: Message, name: str) -> Message:  # noqa: N802
        if name not in self.memory:
            raise RefusedError("org.freedesktop.systemd1.NoSuchUnit", f"Unit {name} not loaded.")
        if self.memory[name].active == "failed":
            self.become(name, "inactive", "dead")
        return Message.new_method_return(message)

    def _Reload(self, message: Message) -> Message:  # noqa: N802
        self._signal(ROOT_PATH, MANAGER, "Reloading", "b", [True])
        for name, unit in self.memory.items():
            fresh = self._read(name)
            unit.load, unit.fragment = fresh.load, fresh.fragment
        self._signal(ROOT_PATH, MANAGER, "Reloading", "b", [False])
        return Message.new_method_return(message)

    def _StartUnit(self, message: Message, name: str, mode: str) -> Message:  # noqa: N802
        if self._get(name).load != "loaded":
            raise RefusedError("org.freedesktop.systemd1.NoSuchUnit", f"Unit {name} not found.")
        return self._queue(message, "start", name)

    def _StopUnit(self, message: Message, name: str, mode: str) -> Message:  # noqa: N802
        return self._queue(message, "stop", name)

    def _ListUnitsByPatterns(self, message: Message, states: list[str], patterns: list[str]) -> Message:  # noqa: N802
        listed = [
            [name, "", unit.load, unit.active, unit.sub, "", to_path(name), 0, "", "/"]
            for name, unit in self.memory.items()
            if any(fnmatchcase(name, pattern) for pattern in patterns)
        ]
        return Message.new_method_return(message, "a(ssssssouso)", [listed])

    def _GetAll(self, message: Message, interface: str) -> Message:  # noqa: N802
        assert interface == UNIT
        name = to_name(message.path or "")
        unit = self._get(name)
        values = {
            "LoadState": Variant("s", unit.load),
            "ActiveState": Variant("s", unit.active),
            "SubState": Variant("s", unit.sub),
            "FragmentPath": Variant("s", unit.fragment),
        }
        self._forget_soon(name)
        return Message.new_method_return(message, "a{sv}", [values])

    def _queue(self, message: Message, kind: str, name: str) -> Message:
        self._job += 1
        path = f"{ROOT_PATH}/job/{self._job}"
        answer = Message.new_method_return(message, "o", [path])
        if name in self.hold:
            self._held[name] = (kind, path, "")
        elif self.results_first:
            self._finish(kind, name, path)
        else:
            assert self._bus is not None
            self._bus.send(answer)
            self._finish(kind, name, path)
            return True  # type: ignore[return-value]
        return answer

    def _finish(self, kind: str, name: str, path: str) -> None:
        result = self.results.get(name, "done")
        if kind == "start":
            self.starts[name] = self.starts.get(name, 0) + 1
            ends = "failed" if result == "failed" or self._has(name, "ExecStart", "/bin/false") else "active"
            result = "failed" if ends == "failed" else result
            self.become(name, ends, "failed" if ends == "failed" else "running")
        elif result == "done":
            self.become(name, "inactive", "dead")
        body = [int(path.rpartition("/")[2]), path, name, result]
        self._signal(ROOT_PATH, MANAGER, "JobRemoved", "uoss", body)

    def _has(self, name: str, option: str, value: str) -> bool:
        path = self.links.get(name)
        options = parse_options(path.read_text()) if path is not None and path.exists() else ()
        return any((each.name, each.value) == (option, value) for each in options)

    def _get(self, name: str) -> FakeUnit:
        if name not in self.memory:
            self.memory[name] = self._read(name)
            self._signal(ROOT_PATH, MANAGER, "UnitNew", "so", [name, to_path(name)])
        return self.memory[name]

    def _read(self, name: str) -> FakeUnit:
        path = self.links.get(name)
        if path is not None and path.exists():
            return FakeUnit("loaded", fragment=str(self.search_path / name))
        return self.own.get(name, FakeUnit())

    def _forget_soon(self, name: str) -> None:
        """Units at rest that nobody needs leave its memory."""

        async def forget() -> None:
            await asyncio.sleep(GC_SECONDS)
            unit = self.memory.get(name)
            if unit is not None and unit.active == "inactive" and self._bus is not None:
                del self.memory[name]
                self._signal(ROOT_PATH, MANAGER, "UnitRemoved", "so", [name, to_path(name)])

        task = asyncio.create_task(forget())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _signal(self, path: str, interface: str, member: str, signature: str, body: list[Any]) -> None:
        if self._bus is not None and self._bus.connected:
            self._bus.send(Message.new_signal(path, interface, member, signature, body))


@asynccontextmanager
async def run_systemd(folder: Path) -> AsyncIterator[tuple[Bus, FakeSystemd]]:
    """A bus with a systemd on it."""
    bus = Bus(folder)
    await asyncio.to_thread(bus.start)
    systemd = FakeSystemd(bus.address, folder / "search")
    try:
        await systemd.start()
        yield bus, systemd
    finally:
        await systemd.stop()
        bus.stop()
