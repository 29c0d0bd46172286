"""`careen abort`, `retry`, `reboot` and `reset`: what people say about one machine and its order."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Annotated

import typer

from careen.cli.target import CommandError, ContextName, Kubeconfig, call

if TYPE_CHECKING:
    from careen.api.request import RequestAction
    from careen.core.snapshot import Machine
    from careen.kube.session import Session

NodeName = Annotated[str, typer.Argument(metavar="NODE", help="Name of the machine (nodes.careen.dev).")]
NodeNames = Annotated[list[str], typer.Argument(metavar="NODE...", help="Names of machines (nodes.careen.dev).")]
Confirm = Annotated[
    str | None,
    typer.Option("--confirm", metavar="NAME", help="The machine's name once more, in place of typing it when asked."),
]


def abort(ctx: typer.Context, node: NodeName, kubeconfig: Kubeconfig = None, context: ContextName = None) -> None:
    """Abort the machine's order, wherever it stands: it stays on its OS, or goes back to it."""
    typer.echo(call(ctx, kubeconfig, context, lambda session: abort_node(session, node)))


def retry(ctx: typer.Context, node: NodeName, kubeconfig: Kubeconfig = None, context: ContextName = None) -> None:
    """Forgive what was rejected on the machine so far, so that it is tried again."""
    typer.echo(call(ctx, kubeconfig, context, lambda session: retry_node(session, node)))


def reboot(ctx: typer.Context, nodes: NodeNames, kubeconfig: Kubeconfig = None, context: ContextName = None) -> None:
    """Reboot machines into the OS that they run, each under its lock, budgets and drain."""
    for line in call(ctx, kubeconfig, context, lambda session: request_reboots(session, nodes)):
        typer.echo(line)


def reset(
    ctx: typer.Context,
    node: NodeName,
    confirm: Confirm = None,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Empty a machine's writable file system, but for its identity and credentials, and reboot it. No slot changes."""
    if confirm is None:
        confirm = typer.prompt(f"All that {node} has written is deleted. Type its name to go on", default="")
    if confirm != node:
        raise CommandError(f"{confirm!r} is not the name of the machine: expected {node}; nothing was asked for")
    typer.echo(call(ctx, kubeconfig, context, lambda session: request_action(session, node, "Reset")))


async def request_reboots(session: Session, names: list[str]) -> list[str]:
    """Ask each machine once for a reboot; what to tell the user. CommandError before any is asked if one is unknown."""
    from careen.cli.fleet import get
    from careen.kube.resources import NODES

    names = list(dict.fromkeys(names))
    for name in names:
        await get(session, NODES, name)
    return [await request_action(session, name, "Reboot") for name in names]


async def request_action(session: Session, name: str, action: RequestAction) -> str:
    """Set spec.request under a new id; what to tell the user. CommandError while another request is not done."""
    from careen.cli.fleet import get
    from careen.cli.swap import swapping
    from careen.core.decode import decode_machine
    from careen.kube.resources import NODES
    from careen.kube.write import patch_merge

    fresh = f"{action.lower()}-{secrets.token_hex(4)}"
    async for attempt in swapping():
        with attempt:
            machine = decode_machine(await get(session, NODES, name))
            wanted = machine.wanted
            if wanted is not None and wanted.id != fresh:
                raise CommandError(
                    f"node {name} has still to do its {wanted.noun} {wanted.id}; take that back first: "
                    f'kubectl patch cnode {name} --type=merge -p \'{{"spec":{{"request":null}}}}\''
                )
            change = {"spec": {"request": {"action": action, "id": fresh}}}
            await patch_merge(session, NODES, name, change, resource_version=machine.resource_version)
    return f"{action.lower()} {fresh} of node {name} is asked for{_tell_turn(machine)}"


def _tell_turn(machine: Machine) -> str:
    """What the request waits for, where that is known already."""
    if machine.paused:
        return "; it waits as long as the machine is paused"
    if machine.in_flight and machine.order is not None:
        return f"; it waits until {machine.order.subject} has ended"
    return ""


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
        raise CommandError(f"the order of node {name} ({order.subject}) has ended already: {ended}")
    await patch_merge(session, NODES, name, {"spec": {"abort": order.id}})
    return f"order {order.id} of node {name} ({order.subject}, goal {order.goal}) will be aborted"


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
