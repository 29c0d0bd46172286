"""`careen lock`: look at a reboot lock, take and free places in it, and set its size."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from careen.cli.target import AsJson, CommandError, ContextName, Kubeconfig, call

if TYPE_CHECKING:
    from careen.core.snapshot import Lock, Machine
    from careen.kube.session import Session

app = typer.Typer(
    no_args_is_help=True, help="Look at a reboot lock, take and free places in it by hand, and set its size."
)

LockName = Annotated[str, typer.Option("--lock", help="Name of the RebootLock.")]
HolderId = Annotated[str, typer.Argument(metavar="ID", help="Who holds: a machine's name, or any word.")]


@app.command()
def status(
    ctx: typer.Context,
    lock: LockName = "default",
    as_json: AsJson = False,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Show how many places there are, how many are free, and who holds the others."""
    typer.echo(call(ctx, kubeconfig, context, lambda session: describe_lock(session, lock, as_json=as_json)))


@app.command("lock")
def take(
    ctx: typer.Context,
    *,
    holder: HolderId,
    lock: LockName = "default",
    reason: Annotated[str | None, typer.Option("--reason", help="Why, for those who see it held.")] = None,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Take a place in the lock. A holder that locks again keeps its place. Exit code 1 when there is no room."""
    typer.echo(call(ctx, kubeconfig, context, lambda session: take_lock(session, lock, holder, reason)))


@app.command("unlock")
def free(
    ctx: typer.Context,
    *,
    holder: HolderId,
    lock: LockName = "default",
    force: Annotated[bool, typer.Option("--force", help="Free even a machine that is in flight.")] = False,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Free a holder's place. To unlock who does not hold is no error."""
    typer.echo(call(ctx, kubeconfig, context, lambda session: free_lock(session, lock, holder, force=force)))


@app.command("set-max")
def resize(
    ctx: typer.Context,
    maximum: Annotated[int, typer.Argument(metavar="MAX", min=0, max=5000, help="0 grants nothing new.")],
    lock: LockName = "default",
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Set how many may hold the lock at once. Holders above a lower number keep their places until they are done."""
    typer.echo(call(ctx, kubeconfig, context, lambda session: resize_lock(session, lock, maximum)))


async def describe_lock(session: Session, name: str, *, as_json: bool = False) -> str:
    """The lock as text, in locksmith's words with more about each holder, or as one JSON document."""
    from careen.cli.fleet import server_now
    from careen.cli.tables import align, tell_age
    from careen.core.encode import encode_holder

    lock = await _read(session, name)
    if as_json:
        holders = [encode_holder(holder) for holder in lock.holders]
        shown = {"name": lock.name, "available": lock.available, "max": lock.max, "paused": lock.paused}
        return json.dumps({**shown, "holders": holders}, indent=2)
    lines = [f"Available: {lock.available}", f"Max: {lock.max}"]
    if lock.paused:
        lines.append("Paused: nothing new is granted")
    if lock.holders:
        rows = [("MACHINE ID", "AGE", "BY", "REASON")]
        rows += [(h.id, tell_age(h.since, server_now(session)), h.by or "", h.reason or "") for h in lock.holders]
        lines += ["", *align(rows)]
    return "\n".join(lines)


async def take_lock(session: Session, name: str, holder: str, reason: str | None = None) -> str:
    """Take a place for a holder by people; what to tell the user. CommandError when the lock is full or paused."""
    from careen.cli.fleet import server_now
    from careen.cli.swap import swapping
    from careen.core.semaphore import Refused, acquire
    from careen.core.snapshot import Holder

    by = await _who_am_i(session)
    core_uid, machine_id = await _find_core_node(session, holder)
    async for attempt in swapping():
        with attempt:
            lock = await _read(session, name)
            taken = Holder(
                holder,
                server_now(session),
                core_node_uid=core_uid,
                machine_id=machine_id,
                by=by,
                reason=reason,
            )
            outcome = acquire(lock, taken)
            if isinstance(outcome, Refused):
                raise CommandError(outcome.message)
            if outcome is lock:
                return f"{holder} holds RebootLock {name} already"
            await _write(session, outcome)
    return f"{holder} holds RebootLock {name}"


async def _find_core_node(session: Session, holder: str) -> tuple[str | None, str | None]:
    """UID and machine id of the core Node of this name, so that the place is freed when the machine is gone."""
    from careen.kube.errors import ApiError
    from careen.kube.resources import CORE_NODES

    try:
        node = (await session.request("GET", CORE_NODES.path(name=holder))).body
    except (ApiError, ValueError):
        # A holder's id is any word; one that is no machine, or that we may not look up, is held until it is freed.
        return None, None
    info = (node.get("status") or {}).get("nodeInfo") or {}
    return node["metadata"]["uid"], info.get("machineID") or None


async def free_lock(session: Session, name: str, holder: str, *, force: bool = False) -> str:
    """Free a holder's place; what to tell the user. CommandError for a machine in flight unless `force`."""
    from careen.cli.swap import swapping
    from careen.core.semaphore import release

    async for attempt in swapping():
        with attempt:
            lock = await _read(session, name)
            after = release(lock, holder)
            if after is lock:
                return f"{holder} does not hold RebootLock {name}"
            if not force:
                await _refuse_in_flight(session, lock, holder)
            await _write(session, after)
    return f"{holder} no longer holds RebootLock {name}"


async def resize_lock(session: Session, name: str, maximum: int) -> str:
    """Set spec.max; the old and the new number in locksmith's words."""
    from careen.cli.swap import swapping
    from careen.kube.resources import LOCKS
    from careen.kube.write import patch_merge

    async for attempt in swapping():
        with attempt:
            lock = await _read(session, name)
            change = {"spec": {"max": maximum}}
            await patch_merge(session, LOCKS, name, change, resource_version=lock.resource_version)
    return f"Old-Max: {lock.max}\nMax: {maximum}"


async def _read(session: Session, name: str) -> Lock:
    from careen.cli.fleet import get
    from careen.core.decode import decode_lock
    from careen.kube.resources import LOCKS

    return decode_lock(await get(session, LOCKS, name))


async def _write(session: Session, lock: Lock) -> None:
    """Write the holders at the version that was read; raises Conflict when somebody else has written meanwhile."""
    from careen.cli.fleet import server_now
    from careen.core.actions import WriteLock
    from careen.core.encode import encode_lock_status
    from careen.kube.resources import LOCKS
    from careen.kube.write import patch_merge

    write = WriteLock(
        name=lock.name,
        uid=lock.uid,
        resource_version=lock.resource_version,
        generation=lock.generation,
        max=lock.max,
        paused=lock.paused,
        term=lock.term,
        holders=lock.holders,
    )
    status = encode_lock_status(lock, write, server_now(session))
    version = lock.resource_version
    await patch_merge(session, LOCKS, lock.name, {"status": status}, subresource="status", resource_version=version)


async def _refuse_in_flight(session: Session, lock: Lock, holder_id: str) -> None:
    """The operator would take the place for such a machine again: freeing it only lets one machine more go down."""
    machine = await _find_machine(session, lock, holder_id)
    if machine is None or not machine.in_flight:
        return
    doing = f"{machine.order.release.version}, {machine.phase}" if machine.order is not None else machine.step.phase
    raise CommandError(
        f"{holder_id} is in flight ({doing}): freed now, one machine more could go down before the operator takes the "
        f"place back for it; `careen abort {machine.name}` ends it safely, --force frees it all the same"
    )


async def _find_machine(session: Session, lock: Lock, holder_id: str) -> Machine | None:
    from careen.cli.fleet import find
    from careen.core.decode import decode_machine
    from careen.kube.resources import NODES

    holder = next(known for known in lock.holders if known.id == holder_id)
    if holder.order is None:
        return None
    found = await find(session, NODES, holder_id)
    return decode_machine(found) if found is not None else None


async def _who_am_i(session: Session) -> str:
    """The user's name as the API server knows it."""
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = await session.request("POST", path, body=review)
    return str(answer.body["status"]["userInfo"].get("username") or "unknown")
