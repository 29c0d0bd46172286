"""Child processes that end with us, however we end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# The kernel sends the death signal when the *thread* that forked ends, not the process. So all children
# are forked by one thread that lives until the interpreter ends: a caller may start a plane from a
# short-lived thread (asyncio.to_thread, a test's fixture) without losing it with that thread.
_SPAWNER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sandbox-spawn")

_TETHER = Path(__file__).with_name("tether.py")


@dataclass(frozen=True)
class Child:
    """A running child and the file that holds its output."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def ended(self) -> bool:
        """Whether the child has ended."""
        return self.process.poll() is not None

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of the child's output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def spawn(name: str, command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None) -> Child:
    """Start a child that is killed when this process ends; its output is appended to `log`.

    The child gets a session of its own, so that Ctrl-C reaches only us and we choose the order of the
    ends. command[0] must be an absolute path. `environment` replaces ours when given.
    """
    # -I and -S keep the wrapper's start to some 20 ms: no site packages, no user's settings.
    wrapped = [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), *map(str, command)]

    def fork() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                wrapped,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    return Child(name, _SPAWNER.submit(fork).result(timeout=30), log)


def stop(children: Iterable[Child], grace_seconds: float) -> None:
    """End the children together: SIGTERM, and SIGKILL for those still there after the grace."""
    running = [child for child in children if not child.ended]
    for child in running:
        child.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    for child in running:
        with suppress(subprocess.TimeoutExpired):
            child.process.wait(max(0.0, deadline - time.monotonic()))
    kill(running)


def kill(children: Iterable[Child]) -> None:
    """End the children at once and collect them."""
    doomed = list(children)
    for child in doomed:
        if not child.ended:
            child.process.kill()
    for child in doomed:
        child.process.wait(10)
