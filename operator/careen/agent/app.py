"""The agent as a process: opens its host and its session, and runs until the machine reboots or SIGTERM comes."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from careen import __version__
from careen.kube.session import RequestRecord, Session

from .clock import TrustClock
from .host import Host
from .memory import limit_arenas
from .observer import MetricsObserver
from .runner import run_agent
from .settings import Exit, Settings
from .units.systemd import UnitHost

if TYPE_CHECKING:
    from .linux.settings import LinuxSettings

logger = logging.getLogger(__name__)

TRUST_ROOT = Path("/usr/share/careen/root.json")
"""Where an image has the trust root."""


@dataclass(frozen=True)
class Options:
    """What the command line says. One of folder and linux says what the machine is."""

    node: str
    """Name of the machine's Node."""
    folder: Path | None = None
    """The machine's folder, for a machine that is one."""
    linux: LinuxSettings | None = None
    """For a real machine."""
    host_root: Path = Path("/")
    """Where the real machine's file system is seen."""
    trust_root: Path = TRUST_ROOT
    """File with the root.json that releases are trusted by; a real machine's is in its settings."""
    kubeconfig: Path | None = None
    """How to reach the API server; None as kubectl does: $KUBECONFIG, the pod's account, ~/.kube/config."""
    kexec: bool = True
    """Whether the machine that is a folder can boot by kexec."""
    units: bool = True
    """Whether the units that the operator places on the machine are run."""
    settings: Settings = field(default_factory=Settings)
    metrics_address: str = "127.0.0.1"
    """Address that metrics are served on."""
    metrics_port: int = 0
    """Port that metrics are served on; 0 serves none."""


def run_process(options: Options) -> Exit | None:
    """Run the agent; None if SIGTERM or SIGINT ended it. Raises OSError, DiskError, ConfigError."""
    limit_arenas()
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
    clock = TrustClock()
    settings, record = _open_metrics(options)
    agent = f"careen-agent/{__version__}"
    try:
        async with (
            _open_host(options, clock.now) as host,
            Session.connect(options.kubeconfig, user_agent=agent, on_request=record) as session,
        ):
            clock.follow(session.clock)
            return await run_agent(host, session, options.node, settings, _open_units(options))
    except asyncio.CancelledError:
        if not stopped:
            raise
        return None


def _open_metrics(options: Options) -> tuple[Settings, Callable[[RequestRecord], None] | None]:
    """Serve metrics if they are wanted; the settings, and what hears of requests.

    A port that is taken is no reason not to update the machine.
    """
    if options.metrics_port == 0:
        return options.settings, None
    from careen.observe.agent import AgentMetrics

    from .units.watcher import MetricsUnitObserver

    metrics = AgentMetrics()
    try:
        metrics.serve(options.metrics_port, options.metrics_address)
    except OSError as error:
        logger.error("no metrics on %s:%d: %s", options.metrics_address, options.metrics_port, error)
        return options.settings, None

    def record(request: RequestRecord) -> None:
        metrics.record_request(request.verb, request.resource, request.code, request.seconds)

    units = replace(options.settings.units, observer=MetricsUnitObserver(metrics))
    return replace(options.settings, observer=MetricsObserver(metrics), units=units), record


def _open_host(options: Options, now: Callable[[], datetime]) -> AbstractAsyncContextManager[Host]:
    # Imported here: each host brings much that the other does not need.
    if options.linux is not None:
        from .linux.host import LinuxHost
        from .linux.root import Root

        return LinuxHost(options.linux, root=Root(options.host_root), now=now)
    if options.folder is None:
        raise ValueError("the options name no machine; allowed: a folder, or the settings of a Linux machine")
    from .imagehost import ImageHost

    return ImageHost(options.folder, options.trust_root, kexec=options.kexec, now=now)


def _open_units(options: Options) -> UnitHost:
    """Where the units of the machine are. Nothing is asked or written before there is an order."""
    if options.linux is not None:
        from .linux.root import Root
        from .linux.unithost import open_units

        return open_units(Root(options.host_root), enabled=options.units)
    if options.folder is None:
        raise ValueError("the options name no machine; allowed: a folder, or the settings of a Linux machine")
    from .imagehost import open_folder_units

    return open_folder_units(options.folder, enabled=options.units)
