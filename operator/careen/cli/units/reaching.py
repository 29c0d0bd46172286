"""`careen unit status`, `journal` and `ssh`: what needs a way to the machine."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from careen.cli.completion import complete_targets, complete_units
from careen.cli.target import ContextName, Kubeconfig, Namespace, call
from careen.cli.units.commands import JournalOptions
from careen.cli.units.options import Machine, SshPort, SshUser, Tunnel, UnitNames, check_names, gather_ssh

if TYPE_CHECKING:
    from careen.cli.units.commands import SshOptions
    from careen.cli.units.routes import Errand


class StatusVia(StrEnum):
    """Ways to a unit's status."""

    AUTO = "auto"
    EXEC = "exec"
    SSH = "ssh"
    NONE = "none"


class JournalVia(StrEnum):
    """Ways to a unit's journal."""

    AUTO = "auto"
    EXEC = "exec"
    KUBELET = "kubelet"
    SSH = "ssh"


StatusWay = Annotated[
    StatusVia,
    typer.Option(
        "--via",
        help="Way to the machine: exec into its agent's pod, or ssh; auto: the first that is open; none: only what the "
        "cluster knows.",
    ),
]
JournalWay = Annotated[
    JournalVia,
    typer.Option(
        "--via",
        help="Way to the machine: exec into its agent's pod, its kubelet's logs, or ssh; auto: the first that is open.",
    ),
]
Sudo = Annotated[bool, typer.Option("--sudo", help="By ssh, run it by sudo.")]


def status(
    ctx: typer.Context,
    *,
    names: UnitNames,
    machine: Machine = None,
    via: StatusWay = StatusVia.AUTO,
    sudo: Sudo = False,
    namespace: Namespace = None,
    ssh_username: SshUser = None,
    ssh_port: SshPort = None,
    tunnel: Tunnel = None,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Show what the cluster knows of units, and `systemctl status` on their machines, whose exit code this has."""
    from careen.cli.units.changes import Teller
    from careen.cli.units.machines import show_statuses

    check_names(names)
    errand = _make_errand(via, namespace, gather_ssh(ssh_username, ssh_port, tunnel), sudo=sudo)
    teller = Teller(typer.echo, lambda line: typer.echo(line, err=True))
    _end(
        call(
            ctx,
            kubeconfig,
            context,
            lambda session: show_statuses(session, names, errand, teller, machine=machine),
        )
    )


def journal(
    ctx: typer.Context,
    *,
    name: Annotated[str, typer.Argument(metavar="UNIT", help="The unit.", autocompletion=complete_units)],
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, max=100_000, help="Lines from the end.")] = 10,
    follow: Annotated[bool, typer.Option("--follow", "-f", "--f", help="Go on as lines come, until Ctrl-C.")] = False,
    output: Annotated[str, typer.Option("--output", "-o", help="journalctl's form of output.")] = "short",
    machine: Machine = None,
    via: JournalWay = JournalVia.AUTO,
    sudo: Sudo = False,
    namespace: Namespace = None,
    ssh_username: SshUser = None,
    ssh_port: SshPort = None,
    tunnel: Tunnel = None,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Show the end of a unit's journal, from its machine. A global unit needs --machine."""
    from careen.cli.units.machines import follow_journal

    check_names([name])
    errand = _make_errand(via, namespace, gather_ssh(ssh_username, ssh_port, tunnel), sudo=sudo)
    options = JournalOptions(lines, follow, output)
    _end(
        call(ctx, kubeconfig, context, lambda session: follow_journal(session, name, errand, options, machine=machine))
    )


def ssh(
    ctx: typer.Context,
    *,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MACHINE|UNIT] [COMMAND...]",
            help="Where to, unless an option says it, and a command in place of a shell; options of ssh go before it.",
            autocompletion=complete_targets,
        ),
    ] = None,
    machine: Machine = None,
    unit: Annotated[
        str | None,
        typer.Option("--unit", metavar="UNIT", help="Go to this unit's machine.", autocompletion=complete_units),
    ] = None,
    forward_agent: Annotated[
        bool, typer.Option("--forward-agent", "-A", "--A", help="Let the machine use our ssh-agent.")
    ] = False,
    ssh_username: SshUser = None,
    ssh_port: SshPort = None,
    tunnel: Tunnel = None,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Open a shell on a machine, or on the machine of a unit, or run one command there; ssh's exit code."""
    from careen.cli.units.machines import open_shell

    given = list(words or ())
    if machine is not None and unit is not None:
        raise typer.BadParameter("--machine and --unit can't both be given")
    target = machine or unit
    if target is None:
        if not given:
            raise typer.BadParameter("name a machine or a unit")
        target, *given = given
    check_names([target])
    is_unit = True if unit is not None else False if machine is not None else None
    options = gather_ssh(ssh_username, ssh_port, tunnel, forward_agent=forward_agent)
    _end(call(ctx, kubeconfig, context, lambda session: open_shell(session, target, given, options, is_unit=is_unit)))


def _make_errand(via: StrEnum, namespace: str | None, ssh: SshOptions, *, sudo: bool) -> Errand:
    from careen.api.meta import NAMESPACE
    from careen.cli.units.routes import Errand, Via

    return Errand((), Via(via.value), namespace or NAMESPACE, ssh, sudo)


def _end(code: int) -> None:
    if code:
        raise typer.Exit(code)
