"""The agent as a process: opens its host and its session, and runs until the machine reboots or SIGTERM comes."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass, field
from pathlib import Path

from careen import __version__
from careen.kube.session import Session

from .imagehost import ImageHost
from .runner import Exit, Settings, run_agent

TRUST_ROOT = Path("/usr/share/careen/root.json")
"""Where an image has the trust root."""


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    folder: Path
    """The machine's folder."""
    node: str
    """Name of the machine's Node."""
    trust_root: Path = TRUST_ROOT
    """File with the root.json that releases are trusted by."""
    kubeconfig: Path | None = None
    """How to reach the API server; None as kubectl does: $KUBECONFIG, the pod's account, ~/.kube/config."""
    kexec: bool = True
    """Whether the machine can boot by kexec."""
    settings: Settings = field(default_factory=Settings)


def run_process(options: Options) -> Exit | None:
    """Run the agent; None if SIGTERM or SIGINT ended it. Raises OSError, DiskError, ConfigError."""
    return asyncio.run(_run(options))


async def _run(options: Options) -> Exit | None:
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True
        if task is not None:
            task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        async with (
            ImageHost(options.folder, options.trust_root, kexec=options.kexec) as host,
            Session.connect(options.kubeconfig, user_agent=f"careen-agent/{__version__}") as session,
        ):
            return await run_agent(host, session, options.node, options.settings)
    except asyncio.CancelledError:
        if not stopped:
            raise
        return None
