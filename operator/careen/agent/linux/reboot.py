"""Asking systemd for a reboot, and the program that forces one if the machine is still alive after a while."""

from __future__ import annotations

import os
from contextlib import suppress

from careen.agent.host import RebootError
from careen.agent.record import Method

from .root import RUN, Answer, Commands, Root

FORCED_UNIT = "careen-forced-reboot.service"
_REQUEST_SECONDS = 60.0
SILENCE = f"{RUN}/silence"
"""A pipe that nobody writes to."""

_FORCE = (
    # systemd's last sweep spares processes whose name begins with an @. The shell waits by itself, for what nobody ever
    # says: a `sleep` would be swept away, and the reset would come in the midst of a shutdown that goes well; and a
    # child that has ended and is not waited for keeps the sweep waiting in vain, twice for DefaultTimeoutStopSec.
    "exec -a @careen-forced-reboot bash -c '"
    "exec 9<>{silence}; read -r -t {seconds} -u 9; kexec -u 2>/dev/null; sync & read -r -t 5 -u 9; "
    "echo 1 >/proc/sys/kernel/sysrq; echo b >/proc/sysrq-trigger; exec systemctl reboot --force --force'"
)


class Rebooter:
    """Reboots by systemd's own path. forced_after: seconds after which the machine is reset by force."""

    def __init__(self, root: Root, commands: Commands, forced_after: int) -> None:
        self._root = root
        self._commands = commands
        self._forced_after = forced_after

    def request(self, method: Method) -> None:
        """Ask for a reboot and wait until systemd has accepted it. Raises RebootError if it has not."""
        self._plant()
        argv = ["systemctl", "kexec" if method == "Kexec" else "reboot"]
        answer = self._commands.run(argv, timeout=_REQUEST_SECONDS)
        # Too long is no refusal: the machine may well be going down.
        if answer.code not in (0, 124):
            self.call_off()
            raise RebootError(f"{' '.join(argv)}: {answer.sentence}")

    def call_off(self) -> None:
        """Stop the program that would force a reboot."""
        self._commands.run(["systemctl", "stop", FORCED_UNIT])

    def _plant(self) -> None:
        """Start the program that outlives shutdown. Raises RebootError: without it a hung shutdown lasts for ever."""
        self._commands.run(["systemctl", "reset-failed", FORCED_UNIT])
        answer = self._run_unit()
        if answer.code != 0 and self._commands.run(["systemctl", "is-active", FORCED_UNIT]).code != 0:
            raise RebootError(f"{FORCED_UNIT} was not started: {answer.sentence}")

    def _run_unit(self) -> Answer:
        # Without the default dependencies the shutdown does not stop it.
        properties = ("DefaultDependencies=no", "IgnoreOnIsolate=yes", "Type=exec")
        silence = self._root.at(SILENCE)
        silence.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.mkfifo(silence, 0o600)
        script = _FORCE.format(silence=SILENCE, seconds=self._forced_after)
        argv = ["systemd-run", "--quiet", f"--unit={FORCED_UNIT}", *(f"--property={entry}" for entry in properties)]
        return self._commands.run([*argv, "/bin/bash", "-c", script])
