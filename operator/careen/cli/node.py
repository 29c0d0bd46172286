"""`careen abort` and `careen retry`: what people say about one machine's order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from careen.cli.target import CommandError, ContextName, Kubeconfig, call

if TYPE_CHECKING:
    from careen.kube.session import Session

NodeName = Annotated[str, typer.Argument(metavar="NODE", help="Name of the machine (nodes.careen.dev).")]


def abort(ctx: typer.Context, node: NodeName, kubeconfig: Kubeconfig = None, context: ContextName = None) -> None:
    """Abort the machine's order, wherever it stands: it stays on its OS, or goes back to it."""
    typer.echo(call(ctx, kubeconfig, context, lambda session: abort_node(session, node)))


def retry(ctx: typer.Context, node: NodeName, kubeconfig: Kubeconfig = None, context: ContextName = None) -> None:
    """Forgive what was rejected on the machine so far, so that it is tried again."""
    typer.echo(call(ctx, kubeconfig, context, lambda session: retry_node(session, node)))


async def abort_node(session: Session, name: str) -> str:
    """Set spec.abort to the current order; what to tell the user. CommandError when there is nothing to abort."""
    from careen.cli.fleet import get
    from careen.core.decode import decode_machine
    from careen.kube.resources import NODES
    from careen.kube.write import patch_merge

    machine = decode_machine(await get(session, NODES, name))
    order = machine.order
    if order is None:
        raise CommandError(f"node {name} has no order to abort")
    if machine.closed:
        ended = machine.phase if machine.phase != "Idle" else "withdrawn"
        raise CommandError(f"the order of node {name} ({order.release.version}) has ended already: {ended}")
    await patch_merge(session, NODES, name, {"spec": {"abort": order.id}})
    return f"order {order.id} of node {name} ({order.release.version}, goal {order.goal}) will be aborted"


async def retry_node(session: Session, name: str) -> str:
    """Raise spec.retry by one; what to tell the user."""
    from careen.cli.fleet import get
    from careen.cli.swap import swapping
    from careen.core.decode import decode_machine
    from careen.kube.resources import NODES
    from careen.kube.write import patch_merge

    async for attempt in swapping():
        with attempt:
            machine = decode_machine(await get(session, NODES, name))
            change = {"spec": {"retry": machine.retry + 1}}
            await patch_merge(session, NODES, name, change, resource_version=machine.resource_version)
    forgiven = [digest for digest, retry in machine.rejected if machine.retry <= retry]
    what = f": {', '.join(digest[:19] for digest in forgiven)} may be tried again" if forgiven else ""
    return f"retry of node {name} is {machine.retry + 1}{what}"
