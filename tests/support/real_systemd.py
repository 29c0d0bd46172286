"""A real systemd, a user's instance in name spaces of its own, for tests of the way to it. Needs root."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = Path("/lib/systemd/systemd")
GROUPS = Path("/sys/fs/cgroup")
HYBRID = (GROUPS / "systemd", GROUPS / "unified")
"""Where systemd makes its control groups if the machine has hierarchies of the old kind too."""
SECONDS = 30.0
TRIES = 40
# systemd refuses to be process 1 of a user, and to run where /run does not say that the machine was booted by it.
SCRIPT = """
for group in $CAREEN_TEST_GROUPS; do echo 0 >"$group/cgroup.procs" || exit 1; done
mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system || exit 1
dbus-daemon --session --address="$DBUS_SESSION_BUS_ADDRESS" --nofork --nopidfile &
while [ ! -S "$XDG_RUNTIME_DIR/bus" ]; do sleep 0.1; done
{program} --user --log-target=console --unit=basic.target
"""


class RealSystemd:
    """The instance, as far as a test needs it."""

    def __init__(self, folder: Path) -> None:
        self.runtime = folder / "runtime"
        """Its folder of the boot."""
        self.address = f"unix:path={self.runtime / 'bus'}"
        self.log = folder / "systemd.log"
        # Two such instances must not find each other's processes in their groups.
        name = f"careen-test-{secrets.token_hex(4)}"
        self._groups = [hierarchy / name for hierarchy in _find_hierarchies()]
        self._environment = {
            **os.environ,
            "CAREEN_TEST_GROUPS": " ".join(map(str, self._groups)),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "DBUS_SESSION_BUS_ADDRESS": self.address,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.runtime.mkdir(mode=0o700)
        for group in self._groups:
            group.mkdir()
        script = SCRIPT.format(program=PROGRAM)
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)
        deadline = time.monotonic() + SECONDS
        while self.control("is-active", "basic.target") != "active":
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise TimeoutError(f"systemd did not start:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.2)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        for group in self._groups:
            _remove_group(group)

    def control(self, *words: str) -> str:
        """What systemctl prints."""
        command = ["systemctl", "--user", *words]
        for _ in range(TRIES):
            done = subprocess.run(
                command, env=self._environment, capture_output=True, text=True, check=False, timeout=60
            )
            # Its private socket sees a caller from another name space as one without a process, and hangs up.
            if "not connected" not in done.stderr:
                break
            time.sleep(0.05)
        return done.stdout.strip()

    def show(self, name: str, *properties: str) -> list[str]:
        """Values of a unit's properties."""
        lines = [line for each in properties for line in self.control("show", name, "-p", each).splitlines()]
        return [line.partition("=")[2] for line in lines]


def find_obstacle() -> str | None:
    """Why there can be no such systemd here; None if there can."""
    if os.geteuid() != 0:
        return "only root can have a systemd in name spaces"
    for program in ("dbus-daemon", "systemctl", "unshare"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if not all(os.access(path, os.W_OK) for path in _find_hierarchies()):
        return "no control groups can be made here"
    return None if PROGRAM.exists() else f"there is no {PROGRAM}"


@contextmanager
def run_real_systemd(folder: Path) -> Iterator[RealSystemd]:
    """The instance, and nothing left of it afterwards."""
    made = RealSystemd(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def _find_hierarchies() -> list[Path]:
    return [path for path in HYBRID if (path / "cgroup.procs").exists()] or [GROUPS]


def _remove_group(group: Path) -> None:
    """Its processes were killed, and are gone in a moment."""
    deadline = time.monotonic() + SECONDS
    while group.exists() and time.monotonic() < deadline:
        for path in sorted([*group.rglob("*/"), group], reverse=True):
            with contextlib.suppress(OSError):
                path.rmdir()
        time.sleep(0.05)
