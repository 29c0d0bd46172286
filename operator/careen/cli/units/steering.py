"""`careen unit submit`, `load`, `start`, `stop`, `unload`, `restart` and `destroy`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import typer

from careen.cli.target import ContextName, Kubeconfig, Namespace, call
from careen.cli.units.options import (
    WAIT_SECONDS,
    Attempts,
    NoBlock,
    Replace,
    SshPort,
    SshUser,
    Timeout,
    Tunnel,
    UnitFiles,
    UnitNames,
    check_names,
    count_seconds,
    gather_ssh,
)

if TYPE_CHECKING:
    from pathlib import Path

    from careen.cli.units.changes import Teller
    from careen.cli.units.routes import Errand
    from careen.kube.session import Session

Work = Callable[["Session", "Teller"], Awaitable[bool]]


def submit(
    ctx: typer.Context,
    *,
    names: UnitFiles,
    replace: Replace = False,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Hand unit files to the cluster, to run nowhere yet. With --replace a unit goes on, by its new content."""
    from careen.cli.units.changes import submit_units

    check_names(names)
    _run(ctx, kubeconfig, context, lambda session, teller: submit_units(session, names, teller, replace=replace))


def load(
    ctx: typer.Context,
    *,
    names: UnitFiles,
    no_block: NoBlock = False,
    block_attempts: Attempts = 0,
    timeout: Timeout = WAIT_SECONDS,
    replace: Replace = False,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Have units placed, and read by systemd there, without starting them; submits files first."""
    from careen.cli.units.changes import bring_units

    check_names(names)
    seconds = None if no_block else count_seconds(block_attempts, timeout)
    _run(
        ctx,
        kubeconfig,
        context,
        lambda session, teller: bring_units(session, names, "loaded", teller, replace=replace, seconds=seconds),
    )


def start(
    ctx: typer.Context,
    *,
    names: UnitFiles,
    no_block: NoBlock = False,
    block_attempts: Attempts = 0,
    timeout: Timeout = WAIT_SECONDS,
    replace: Replace = False,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Have units placed and started; submits files first. Says why, as long as one waits, and where each runs."""
    from careen.cli.units.changes import bring_units

    check_names(names)
    seconds = None if no_block else count_seconds(block_attempts, timeout)
    _run(
        ctx,
        kubeconfig,
        context,
        lambda session, teller: bring_units(session, names, "launched", teller, replace=replace, seconds=seconds),
    )


def stop(
    ctx: typer.Context,
    *,
    names: UnitNames,
    no_block: NoBlock = False,
    block_attempts: Attempts = 0,
    timeout: Timeout = WAIT_SECONDS,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Have units stopped; they stay where they are, loaded. Exit code 1 for one that is inactive."""
    from careen.cli.units.changes import lower_units

    check_names(names)
    seconds = None if no_block else count_seconds(block_attempts, timeout)
    _run(
        ctx, kubeconfig, context, lambda session, teller: lower_units(session, names, "loaded", teller, seconds=seconds)
    )


def unload(
    ctx: typer.Context,
    *,
    names: UnitNames,
    no_block: NoBlock = False,
    block_attempts: Attempts = 0,
    timeout: Timeout = WAIT_SECONDS,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Have units stopped and taken off their machines; they stay in the cluster, inactive."""
    from careen.cli.units.changes import lower_units

    check_names(names)
    seconds = None if no_block else count_seconds(block_attempts, timeout)
    _run(
        ctx,
        kubeconfig,
        context,
        lambda session, teller: lower_units(session, names, "inactive", teller, seconds=seconds),
    )


def restart(
    ctx: typer.Context,
    *,
    names: UnitNames,
    block_attempts: Attempts = 0,
    timeout: Timeout = WAIT_SECONDS,
    namespace: Namespace = None,
    ssh_username: SshUser = None,
    ssh_port: SshPort = None,
    tunnel: Tunnel = None,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Stop units and start them again, where they are. Global ones on one machine after the other, by systemctl."""
    from careen.api.meta import NAMESPACE
    from careen.cli.units.routes import Errand

    check_names(names)
    seconds, ssh = count_seconds(block_attempts, timeout), gather_ssh(ssh_username, ssh_port, tunnel)
    errand = Errand((), namespace=namespace or NAMESPACE, ssh=ssh, sudo=True)
    _run(ctx, kubeconfig, context, lambda session, teller: _restart(session, names, teller, seconds, errand))


def destroy(
    ctx: typer.Context,
    *,
    names: UnitNames,
    no_block: NoBlock = False,
    block_attempts: Attempts = 0,
    timeout: Timeout = WAIT_SECONDS,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Delete units: they are stopped and taken off their machines. Exit code 0 also for one that is not there."""
    from careen.cli.units.changes import destroy_units

    check_names(names)
    seconds = None if no_block else count_seconds(block_attempts, timeout)
    _run(ctx, kubeconfig, context, lambda session, teller: destroy_units(session, names, teller, seconds=seconds))


async def _restart(session: Session, names: Sequence[str], teller: Teller, seconds: float, errand: Errand) -> bool:
    from careen.cli.units.changes import NOT_FOUND, find_units, restart_units
    from careen.cli.units.machines import restart_everywhere

    units, missing = await find_units(session, names)
    if missing:
        teller.error(f"{NOT_FOUND}: {' '.join(missing)}")
    ok = not missing
    placed = [unit for unit in units if not unit.is_global]
    ok = await restart_units(session, placed, teller, seconds=seconds) and ok
    for unit in units:
        if unit.is_global:
            ok = await restart_everywhere(session, unit, errand, teller) and ok
    return ok


def _run(ctx: typer.Context, kubeconfig: Path | None, context: str | None, work: Work) -> None:
    """Do it; what was done goes to standard output, all else to standard error. Exit code 1 if not all was done."""
    from careen.cli.units.changes import Teller

    teller = Teller(typer.echo, lambda line: typer.echo(line, err=True))
    if not call(ctx, kubeconfig, context, lambda session: work(session, teller)):
        raise typer.Exit(1)
