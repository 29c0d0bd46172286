"""All objects of a live cluster, read once, for the verbs that look at the whole."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

from careen.api.meta import AGENT_LEASE_PREFIX, GROUP, LEADER_LEASE, SWITCH_CONFIGMAP
from careen.cli.target import CommandError
from careen.core.assemble import Facts, Objects, find_silent, group_pods, read_switch
from careen.core.decode import decode_core_node, decode_lock, decode_machine, decode_pod, decode_policy
from careen.core.unitdocs import decode_unit
from careen.kube.errors import NotFound
from careen.kube.resources import CONFIGMAPS, CORE_NODES, LEASES, LOCKS, NODES, PODS, POLICIES, UNITS, Resource
from careen.kube.session import Session
from careen.kube.store import Store

Document = dict[str, Any]
Each = Iterable[Document]
PAGE = 500
SYNC_SECONDS = 30.0
LIVE_PODS = "status.phase!=Succeeded,status.phase!=Failed"


@dataclass(frozen=True)
class Reading:
    """Objects as decisions see them, the documents behind them, and the API server's time."""

    objects: Objects
    documents: dict[str, Document] = field(default_factory=dict)
    """careen Nodes as documents, by name."""
    now: float = 0.0


async def read_objects(session: Session) -> Reading:
    """Machines, core Nodes, policies and locks; no pods. CommandError when the kinds are not installed."""
    try:
        nodes, policies, locks = await asyncio.gather(*(list_all(session, kind) for kind in (NODES, POLICIES, LOCKS)))
    except NotFound as error:
        raise CommandError(
            f"this cluster has no kinds of {GROUP}: `careen crds | kubectl apply --server-side -f -` installs them"
        ) from error
    cores = await list_all(session, CORE_NODES)
    return _read(session, nodes, cores, policies, locks)


async def read_facts(session: Session, reading: Reading, namespace: str) -> tuple[Objects, Facts]:
    """The reading with its pods, and what else a plan looks at but for releases: agents' silence, switch, leader."""
    pods, units, leases, switch = await asyncio.gather(
        list_all(session, PODS, query={"fieldSelector": LIVE_PODS}),
        list_all(session, UNITS),
        list_all(session, LEASES, namespace),
        find(session, CONFIGMAPS, SWITCH_CONFIGMAP, namespace),
    )
    renewals = {
        lease["metadata"]["name"].removeprefix(AGENT_LEASE_PREFIX): (lease.get("spec") or {}).get("renewTime")
        for lease in leases
        if lease["metadata"]["name"].startswith(AGENT_LEASE_PREFIX)
    }
    found = reading.objects
    objects = Objects(
        found.machines,
        found.core_nodes,
        found.policies,
        found.locks,
        group_pods(pod for pod in map(decode_pod, pods) if pod is not None),
        {unit["metadata"]["name"]: decode_unit(unit) for unit in units},
    )
    facts = Facts(
        silent=find_silent(found.machines, renewals, server_now(session)),
        paused=read_switch(switch),
        term=max((lock.term for lock in found.locks.values()), default=0),
        operator_node=_find_operator_node(pods, leases, namespace),
    )
    return objects, facts


async def list_all(
    session: Session, resource: Resource, namespace: str | None = None, query: dict[str, str] | None = None
) -> list[Document]:
    """All objects of a kind, page by page."""
    found: list[Document] = []
    asked: dict[str, str | int] = {"limit": PAGE, **(query or {})}
    while True:
        body = (await session.request("GET", resource.path(namespace), query=asked)).body
        found += body.get("items") or []
        token = body["metadata"].get("continue")
        if not token:
            return found
        asked["continue"] = token


async def find(session: Session, resource: Resource, name: str, namespace: str | None = None) -> Document | None:
    """One object; None when it does not exist."""
    try:
        return (await session.request("GET", resource.path(namespace, name))).body
    except NotFound:
        return None


async def get(session: Session, resource: Resource, name: str) -> Document:
    """One object of a kind of ours; CommandError that says which there are when it does not exist."""
    found = await find(session, resource, name)
    if found is not None:
        return found
    there = sorted(each["metadata"]["name"] for each in await _list_known(session, resource))
    names = ", ".join(there[:5]) + (f" and {len(there) - 5} more" if len(there) > 5 else "")
    raise CommandError(f"there is no {resource.kind} {name}; there are: {names or 'none'}")


async def _list_known(session: Session, resource: Resource) -> list[Document]:
    try:
        return await list_all(session, resource)
    except NotFound as error:
        raise CommandError(
            f"this cluster has no kinds of {GROUP}: `careen crds | kubectl apply --server-side -f -` installs them"
        ) from error


def server_now(session: Session) -> float:
    """The API server's time as its last answer told it, in seconds since the epoch."""
    return session.clock.now(time.monotonic()) or time.time()


def _find_operator_node(pods: list[Document], leases: list[Document], namespace: str) -> str | None:
    """The machine that the leader runs on, when the leader is a pod named in its Lease."""
    for lease in leases:
        if lease["metadata"]["name"] != LEADER_LEASE:
            continue
        holder = (lease.get("spec") or {}).get("holderIdentity") or ""
        for pod in pods:
            meta = pod["metadata"]
            if meta["namespace"] == namespace and holder and holder.startswith(meta["name"]):
                return str(pod["spec"].get("nodeName") or "") or None
    return None


async def follow_objects(session: Session) -> AsyncIterator[Reading]:
    """A reading now, and another one after each change, without an end; changes in between are not counted out."""
    await read_objects(session)  # Says what is wrong, where a store would go on trying for ever.
    changed = asyncio.Event()
    stores: dict[str, Store[Document]] = {
        kind.path(): Store(session, kind, decode=lambda obj: obj, on_change=lambda _: changed.set())
        for kind in (NODES, CORE_NODES, POLICIES, LOCKS)
    }
    runs = [asyncio.create_task(store.run()) for store in stores.values()]
    try:
        await asyncio.gather(*(store.wait_synced(SYNC_SECONDS) for store in stores.values()))
        while True:
            changed.clear()
            nodes, cores, policies, locks = (store.objects.values() for store in stores.values())
            yield _read(session, nodes, cores, policies, locks)
            await changed.wait()
    finally:
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)


def _read(session: Session, nodes: Each, cores: Each, policies: Each, locks: Each) -> Reading:
    return Reading(
        Objects(
            machines={node["metadata"]["name"]: decode_machine(node) for node in nodes},
            core_nodes={core["metadata"]["name"]: decode_core_node(core) for core in cores},
            policies={policy["metadata"]["name"]: decode_policy(policy) for policy in policies},
            locks={lock["metadata"]["name"]: decode_lock(lock) for lock in locks},
        ),
        {node["metadata"]["name"]: node for node in nodes},
        server_now(session),
    )
