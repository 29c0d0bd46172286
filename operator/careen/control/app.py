"""The operator's process: kopf for its frame (login, signals, watching policies and locks), our loop inside."""

import asyncio
import base64
import logging
import time
from typing import Any

import kopf

from careen import __version__
from careen.api.meta import GROUP, LEADER_LEASE, VERSION
from careen.kube.credentials import Endpoint, load_endpoint
from careen.kube.errors import ApiError
from careen.kube.lease import Election
from careen.kube.session import RequestRecord, Session
from careen.observe import metrics
from careen.observe.fleet import Figures

from .execute import Executor
from .figures import read_figures
from .loop import LONGEST_SLEEP, Loop
from .probes import Probes
from .releases import ReleaseBook
from .settings import Settings
from .signed import SignedFinder
from .world import World

logger = logging.getLogger(__name__)

CRD_WAIT_SECONDS = 120.0
STUCK_SECONDS = 3 * LONGEST_SLEEP
"""A leader that has not planned for this long is stuck, and the liveness probe says so."""


class Operator:
    """One operator process: a candidate for the lead, with live stores from the start."""

    def __init__(self, session: Session, settings: Settings) -> None:
        self.settings = settings
        self._session = session
        self.wake = asyncio.Event()
        self.world = World(session, settings, self.wake.set)
        finder = SignedFinder(settings.trust_root, settings.release_cache, self.world.now)
        self.book = ReleaseBook(finder.find, self.wake.set, self.world.now, settings.resolve_seconds)
        self.loop = Loop(session, self.world, self.book, self.wake)
        self.election = Election(
            session,
            settings.namespace,
            LEADER_LEASE,
            settings.identity,
            duration=settings.lease_seconds,
            term_floor=self._highest_term,
        )

    def read_figures(self) -> Figures:
        """The figures of the fleet, for a scrape: it comes in another thread, so only copies are looked at."""
        figures: Figures = {}
        sight = self.loop.sight
        if sight is not None:
            last_seen = self.world.last_seen() if self.settings.node_metrics else None
            figures = read_figures(sight, last_seen=last_seen)
        relists = {store.resource.plural: store.relists for store in self.world.stores}
        return figures | {"careen_store_relists_total": {(kind,): count for kind, count in relists.items()}}

    async def run(self) -> None:
        """Keep the stores, stand for election, lead; until cancelled."""
        async with asyncio.TaskGroup() as group:
            stores = group.create_task(self.world.run())
            try:
                await self.election.run(self._lead, self._lost)
            finally:
                stores.cancel()
                await self.book.close()

    async def _lead(self, term: int) -> None:
        executor = Executor(
            self._session,
            self.world,
            self.settings.identity,
            wake=self.wake.set,
            may_write=self.election.holds,
        )
        await self.loop.lead(term, executor)

    def _lost(self, reason: str) -> None:
        logger.warning("standing by: %s", reason)

    def _highest_term(self) -> int:
        """No term may be used twice, even if somebody deletes the leader's Lease: the locks remember."""
        return max((lock.term for lock in self.world.locks.objects.values()), default=0)

    def find_fault(self) -> str | None:
        """What is wrong with this process in words, for the liveness probe; None when it is well."""
        if self.election.holds() and self.loop.planned_at is not None:
            age = time.monotonic() - self.loop.planned_at
            if age > STUCK_SECONDS:
                return f"the leader has not planned for {age:.0f} s"
        return None

    def find_gap(self) -> str | None:
        """What this process lacks to lead at once, for the readiness probe; None when it could."""
        missing = [store.resource.plural for store in self.world.stores if not store.synced]
        return f"not listed yet: {', '.join(missing)}" if missing else None


async def wait_for_kinds(session: Session) -> None:
    """Wait until the API server serves our kinds; ApiError or TimeoutError when it does not in time."""
    path = f"/apis/{GROUP}/{VERSION}"
    deadline = time.monotonic() + CRD_WAIT_SECONDS
    while True:
        try:
            found = {item["name"] for item in (await session.request("GET", path)).body.get("resources", ())}
            if {"nodes", "updatepolicies", "rebootlocks", "units"} <= found:
                return
            why = f"{path} serves only {', '.join(sorted(found))}"
        except ApiError as error:
            why = str(error)
        if time.monotonic() > deadline:
            raise TimeoutError(f"the kinds of {GROUP} are not installed (apply crds/): {why}")
        logger.warning("waiting for the kinds of %s: %s", GROUP, why)
        await asyncio.sleep(2.0)


def build_registry(operator: Operator, work: asyncio.Task[None]) -> kopf.OperatorRegistry:
    """kopf's part: login, and a wake-up for each event of a policy or a lock. It keeps no state for us."""
    registry = kopf.OperatorRegistry()
    settings = operator.settings

    @kopf.on.login(registry=registry)
    async def log_in(**_: Any) -> kopf.ConnectionInfo:
        return describe_login(await load_endpoint(settings.kubeconfig, settings.context))

    @kopf.on.startup(registry=registry)
    async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        configure_kopf(settings)

    @kopf.on.cleanup(registry=registry)
    async def end_work(**_: Any) -> None:
        # After a signal kopf waits for tasks that it does not know, then cancels them one by one in any order.
        work.cancel()
        await asyncio.wait({work})

    @kopf.on.event(GROUP, VERSION, "updatepolicies", registry=registry)
    @kopf.on.event(GROUP, VERSION, "rebootlocks", registry=registry)
    async def wake(**_: Any) -> None:
        operator.wake.set()

    return registry


def describe_login(endpoint: Endpoint) -> kopf.ConnectionInfo:
    """The credentials of our own session for kopf, so that both always speak to one server as one account."""
    scheme, _, token = (endpoint.header() or "").partition(" ")
    tls = endpoint.tls
    return kopf.ConnectionInfo(
        server=endpoint.host,
        ca_data=base64.b64encode(tls.ca.encode()).decode() if tls.ca else None,
        insecure=not tls.verify,
        scheme=scheme or None,
        token=token or None,
        certificate_data=base64.b64encode(tls.cert).decode() if tls.cert else None,
        private_key_data=base64.b64encode(tls.key).decode() if tls.key else None,
        proxy_url=endpoint.proxy,
    )


def configure_kopf(settings: kopf.OperatorSettings) -> None:
    """kopf's settings, each for a reason: it must never write to an object, and never hang on a dead watch."""
    settings.watching.server_timeout = 600
    settings.watching.client_timeout = 610
    settings.watching.connect_timeout = 10
    settings.watching.reconnect_backoff = 1.0
    settings.queueing.idle_timeout = 1.0
    settings.networking.request_timeout = 30
    settings.networking.enforce_retry_after = True
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.persistence.finalizer = f"{GROUP}/kopf"
    settings.execution.max_workers = 8


def _record(record: RequestRecord) -> None:
    metrics.record_request(record.verb, record.resource, record.code, record.seconds)


async def serve(settings: Settings, stop: asyncio.Event | None = None) -> None:
    """Run the operator until a signal or `stop`, or until it breaks."""
    if settings.metrics_port is not None:
        port = metrics.serve(settings.metrics_port, settings.metrics_address)
        logger.info("metrics on http://%s:%d/metrics", settings.metrics_address, port)
    connect = Session.connect(
        settings.kubeconfig, settings.context, user_agent=f"careen-operator/{__version__}", on_request=_record
    )
    probes = Probes()
    async with probes.served(settings.probe_address), connect as session:
        await wait_for_kinds(session)
        operator = Operator(session, settings)
        metrics.FLEET.source = operator.read_figures
        probes.find_fault, probes.find_gap = operator.find_fault, operator.find_gap
        await _run(operator, stop)


async def _run(operator: Operator, stop: asyncio.Event | None) -> None:
    """Our work and kopf's beside each other, until one of them ends."""
    # kopf ends every task that was born after it started, in its own way: our work is born before.
    work = asyncio.create_task(operator.run(), name="operator")
    frame = asyncio.create_task(
        kopf.operator(
            registry=build_registry(operator, work),
            settings=kopf.OperatorSettings(),
            clusterwide=True,
            standalone=True,
            stop_flag=stop,
        ),
        name="kopf",
    )
    try:
        await asyncio.wait({work, frame}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        # Before the session closes: a leader on its way out gives the Lease back through it.
        for task in (work, frame):
            task.cancel()
        results = await asyncio.gather(work, frame, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


def run_operator(settings: Settings) -> int:
    """Run the operator in this process until SIGTERM or SIGINT; the exit code."""
    asyncio.run(serve(settings))
    return 0
