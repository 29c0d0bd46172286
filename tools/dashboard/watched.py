"""The demo with a Prometheus beside it."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from careen.api.meta import NAMESPACE
from careen.kube.session import Session
from careen.sandbox.demo import MACHINES, ZONES, Result, play
from careen.sandbox.up import Sandbox, SandboxOptions
from careen.sandbox.witness import call_witness

from .prometheus import Prometheus, find_port

SETTLE_SECONDS = 3.0
"""Until what happened last has been scraped."""
HOLD_SECONDS = 2.5
"""How long a turn of the demo lasts at least: more than two scrapes."""


@dataclass(frozen=True)
class Watched:
    """A demo that has been played, and the Prometheus that watched it."""

    prometheus: Prometheus
    result: Result
    started: float
    ended: float
    """Seconds since the epoch."""
    operator_port: int
    agent_ports: tuple[int, ...]


@contextmanager
def watch_demo(tell: Callable[[str], None] = lambda _: None) -> Iterator[Watched]:
    """Play the demo on a sandbox of its own, watched by Prometheus; all of it runs until the block ends."""
    operator_port, agent_ports = find_port(), tuple(find_port() for _ in range(MACHINES))
    options = SandboxOptions(
        machines=MACHINES,
        zones=ZONES,
        renew_seconds=2.0,
        agent_metrics_ports=agent_ports,
        operator_arguments=("--metrics-port", str(operator_port), "--node-metrics"),
    )
    jobs = {"careen-operator": [operator_port], "careen-agent": agent_ports}
    with (
        tempfile.TemporaryDirectory() as folder,
        Prometheus(Path(folder), jobs) as prometheus,
        Sandbox(options, report=tell) as sandbox,
    ):
        started = time.time()
        result = asyncio.run(_play(sandbox, _hold(tell)))
        time.sleep(SETTLE_SECONDS)
        yield Watched(prometheus, result, started, time.time(), operator_port, agent_ports)


def _hold(tell: Callable[[str], None]) -> Callable[[str], None]:
    """The demo goes on within a second, which a scrape would miss: here each turn lasts until it has been seen."""

    def tell_and_wait(text: str) -> None:
        tell(text)
        time.sleep(HOLD_SECONDS)

    return tell_and_wait


async def _play(sandbox: Sandbox, tell: Callable[[str], None]) -> Result:
    connect = Session.connect(sandbox.cluster.kubeconfig, user_agent="careen-dashboard")
    async with connect as session, call_witness(session, NAMESPACE) as witness:
        return await play(sandbox, witness, session, tell)
