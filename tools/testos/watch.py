"""The independent watch of a site: what its API server and its consoles show."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from careen import __version__
from careen.api.meta import NAMESPACE
from careen.kube.resources import CORE_NODES, NODES
from careen.kube.session import Session
from careen.sandbox.witness import Witness, call_witness

from .debian import TestOsError
from .site import Site
from .timeline import Track


@asynccontextmanager
async def watch_site(site: Site) -> AsyncIterator[Witness]:
    """A witness of all that decides on availability, until the end of the context."""
    connect = Session.connect(site.sandbox.cluster.kubeconfig, user_agent=f"careen-testos/{__version__}")
    async with connect as session, call_witness(session, NAMESPACE) as witness:
        yield witness


async def until(site: Site, witness: Witness, check: Callable[[], bool], what: str, seconds: float) -> None:
    """Wait until something is true of what the witness sees. Raises TimeoutError, and TestOsError if a machine ends."""

    def look(_: Witness) -> bool:
        for name in site.names:
            if not site[name].running:
                raise TestOsError(f"{name} has ended by itself\n{site[name].console.tail()}")
        return check()

    await witness.until(look, what, seconds)


def track_of(site: Site, witness: Witness, name: str) -> Track:
    """All that was seen of a machine so far."""
    console = site[name].console
    return Track(
        witness.sightings(NODES, name), witness.sightings(CORE_NODES, name), tuple(console.lines), console.began
    )
