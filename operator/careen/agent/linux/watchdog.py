"""The hardware watchdog: armed before a kexec so that it goes on over it, fed in the trial, handed back afterwards."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import struct
from contextlib import suppress
from dataclasses import dataclass

from .root import DEADLINE_SECONDS, Answer, Commands, Root

logger = logging.getLogger(__name__)

_SET_TIMEOUT = 0xC0045706
_KEEPALIVE = 0x80045705
_SOFTWARE = ("software watchdog",)
"""Identities that are no hardware: such a timer dies with its kernel."""
_STOP_ON_REBOOT = "/sys/module/watchdog/parameters/stop_on_reboot"
_SYSTEMD_HAS = "watchdog0"
"""The one that systemd opens when it is told to have a watchdog."""
_GIVE_SECONDS = 5.0
"""How long systemd may take to answer when it is given the watchdog."""
_FEED_PARTS = 4
"""The trial feeds the watchdog this many times in its timeout."""
_FIRST_PAUSE_SECONDS = 5.0
"""Pause between two feedings while the driver's own timeout is not known."""


@dataclass(frozen=True)
class Watchdog:
    """A watchdog. survives: whether it goes on while a kexec starts the next kernel. max_seconds: None if unknown."""

    name: str
    identity: str
    survives: bool
    max_seconds: int | None

    def lasts(self, seconds: int) -> bool:
        """Whether it goes on over a kexec and can wait this long."""
        return self.survives and (self.max_seconds is None or self.max_seconds >= seconds)


class WatchdogError(OSError):
    """The watchdog can't be armed as it must be."""


def find_watchdog(root: Root) -> Watchdog | None:
    """The machine's hardware watchdog; None if there is none. Of several the same one in each boot.

    The kernel numbers them in the order in which their drivers load: the trial would else feed another one than was
    armed for it, and be reset for that. A driver is told to stop its timer at a reboot, and a kexec is one for it,
    unless watchdog.stop_on_reboot is 0.
    """
    found = []
    for name in root.names("/sys/class/watchdog"):
        identity = root.read(f"/sys/class/watchdog/{name}/identity") or ""
        hardware = identity.casefold() not in _SOFTWARE if identity else _has_device(root, name)
        if hardware and root.at(f"/dev/{name}").exists():
            found.append((not identity, identity, name))
    if not found:
        return None
    _, identity, name = min(found)
    limit = root.read(f"/sys/class/watchdog/{name}/max_timeout")
    seconds = int(limit) if limit and limit.isdigit() and int(limit) > 0 else None
    return Watchdog(name, identity, _keeps_running(root), seconds)


def _has_device(root: Root, name: str) -> bool:
    """Whether there is a device behind it: all that a kernel without attributes for watchdogs shows."""
    return root.at(f"/sys/class/watchdog/{name}/device").exists()


def _keeps_running(root: Root) -> bool:
    path = root.at(_STOP_ON_REBOOT)
    if root.read(_STOP_ON_REBOOT) == "0":
        return True
    # Read-only in kernels so far: then only the command line can set it.
    with suppress(OSError):
        if path.stat().st_mode & 0o200:
            path.write_text("0")
    return root.read(_STOP_ON_REBOOT) == "0"


class WatchdogKeeper:
    """Arms one watchdog before a kexec, and feeds one in a trial. Closing it leaves an armed one running."""

    def __init__(self, root: Root, commands: Commands, watchdog: Watchdog) -> None:
        self._root = root
        self._commands = commands
        self._watchdog = watchdog
        self._fd = -1
        self._task: asyncio.Task[None] | None = None
        self._pause = _FIRST_PAUSE_SECONDS
        self._handed_back = False

    def arm(self, seconds: int, *, shutdown: int = 0) -> None:
        """Start it with at least this many seconds, or, where systemd holds it, have systemd do so at the kexec.

        shutdown: seconds that the shutdown before the kexec may take besides. systemd feeds what it holds meanwhile;
        one that is ours is fed by nobody, since the agent is stopped first. Opened is started, whatever fails then:
        `disarm` it. Raises WatchdogError.
        """
        self._handed_back = False
        whole = seconds + shutdown
        if not self._watchdog.lasts(whole):
            raise WatchdogError(errno.EINVAL, f"{self._watchdog.identity} can't wait {whole} s over a kexec")
        if self._open():
            granted = self._set_timeout(whole)
            if granted < whole:
                raise WatchdogError(errno.EINVAL, f"{self._watchdog.name} waits {granted} s at most; needed: {whole}")
            return
        # systemd has it: its last act before the kexec is to set this timeout.
        self._tell_systemd(seconds * 1_000_000)

    def disarm(self) -> None:
        """Stop what `arm` started: the reboot was called off, or the arming failed. One that can't be stopped is fed.

        Needs a running loop.
        """
        if self._fd >= 0 or (self._is_running() and self._open()):
            self.hand_back()
        else:
            self._tell_systemd(0)

    def take_over(self, seconds: int) -> bool:
        """In a trial: hold the watchdog and feed it until `hand_back`; False if another program holds it.

        Raises WatchdogError.
        """
        if not self._open():
            logger.info("%s is held by another program, which feeds it", self._watchdog.name)
            return False
        try:
            self._set_timeout(seconds)
        finally:
            # Opened is started: with whatever timeout, it must be fed.
            self._begin_feeding()
        return True

    def hand_back(self) -> None:
        """Stop feeding, and stop the timer; if that is not surely possible, have systemd feed it, or feed on.

        It would reset the machine: systemd goes on when the agent is stopped, updated or taken away.
        """
        if self._fd < 0:
            return
        if self._root.read(f"/sys/class/watchdog/{self._watchdog.name}/nowayout") == "0":
            self._stop()
            return
        if self._give_to_systemd():
            logger.info("%s can't be stopped, as far as its driver tells; systemd feeds it now", self._watchdog.name)
            return
        logger.info("%s can't be stopped, as far as its driver tells; it is fed from now on", self._watchdog.name)
        self._handed_back = True
        self._begin_feeding()

    def close(self) -> None:
        """Leave it as it is: an armed one goes on, and resets the machine unless somebody takes over."""
        if self._fd >= 0 and self._handed_back:
            # Nobody is meant to be reset. A driver that does not know the letter, or ignores it, goes on as it would.
            self._stop()
        self._cancel()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _give_to_systemd(self) -> bool:
        """Whether systemd holds it from now on: it does not answer whether it could open it, the kernel does."""
        if self._watchdog.name != _SYSTEMD_HAS:
            return False
        os.close(self._fd)
        self._fd = -1
        microseconds = int(self._pause * _FEED_PARTS * 1_000_000)
        # Nobody feeds it meanwhile.
        self._set_property("RuntimeWatchdogUSec", microseconds, timeout=_GIVE_SECONDS)
        if self._open():
            return False
        self._cancel()
        return True

    def _is_running(self) -> bool:
        return self._root.read(f"/sys/class/watchdog/{self._watchdog.name}/state") == "active"

    def _stop(self) -> None:
        self._cancel()
        with suppress(OSError):
            os.write(self._fd, b"V")
        os.close(self._fd)
        self._fd = -1

    def _begin_feeding(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._feed(self._pause))

    async def _feed(self, pause: float) -> None:
        while True:
            try:
                os.write(self._fd, b"\0")
            except OSError as error:
                logger.warning("%s was not fed: %s", self._watchdog.name, error)
            await asyncio.sleep(pause)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _open(self) -> bool:
        if self._fd >= 0:
            return True
        path = self._root.at(f"/dev/{self._watchdog.name}")
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.EBUSY:
                return False
            raise WatchdogError(error.errno, f"{path}: {error.strerror}") from error
        return True

    def _set_timeout(self, seconds: int) -> int:
        """Start it anew with this timeout; the one that the driver took."""
        buffer = bytearray(struct.pack("i", seconds))
        try:
            fcntl.ioctl(self._fd, _SET_TIMEOUT, buffer, True)
            fcntl.ioctl(self._fd, _KEEPALIVE, bytearray(4), True)
        except OSError as error:
            raise WatchdogError(error.errno, f"{self._watchdog.name}: setting {seconds} s: {error.strerror}") from error
        granted = int(struct.unpack("i", buffer)[0])
        self._pause = granted / _FEED_PARTS
        return granted

    def _set_property(self, name: str, microseconds: int, *, timeout: float = DEADLINE_SECONDS) -> Answer:
        manager = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
        return self._commands.run(["busctl", "set-property", *manager, name, "t", str(microseconds)], timeout=timeout)

    def _tell_systemd(self, microseconds: int) -> None:
        answer = self._set_property("KExecWatchdogUSec", microseconds)
        if answer.code != 0:
            raise WatchdogError(errno.EBUSY, f"{self._watchdog.name} is held, and not by systemd: {answer.sentence}")
