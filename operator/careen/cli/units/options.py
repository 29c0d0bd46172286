"""Arguments and options that several verbs of `careen unit` share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from careen.cli.completion import complete_machines, complete_units
from careen.cli.units.commands import SshOptions

WAIT_SECONDS = 300.0
ATTEMPT_SECONDS = 2
"""What fleetctl made of one attempt."""

UnitFiles = Annotated[
    list[str],
    typer.Argument(
        metavar="UNIT|FILE|FOLDER...",
        help="Names or patterns of units, unit files, or folders of them.",
        autocompletion=complete_units,
    ),
]
UnitNames = Annotated[
    list[str],
    typer.Argument(metavar="UNIT...", help="Names or patterns of units.", autocompletion=complete_units),
]
NoBlock = Annotated[bool, typer.Option("--no-block", help="Do not wait until it is done.")]
Attempts = Annotated[
    int,
    typer.Option(
        "--block-attempts", min=0, metavar="N", help="Wait for N times 2 seconds, as fleetctl. 0: see --timeout."
    ),
]
Timeout = Annotated[
    float, typer.Option("--timeout", min=0.1, metavar="SECONDS", help="Wait no longer than so many seconds.")
]
Replace = Annotated[
    bool, typer.Option("--replace", help="Give a unit that is there the content of its file or its template.")
]
Full = Annotated[bool, typer.Option("--full", "-l", help="Shorten nothing; with labels as metadata.")]
NoLegend = Annotated[bool, typer.Option("--no-legend", help="Print no line of column names.")]
Fields = Annotated[
    str | None, typer.Option("--fields", metavar="FIELD,...", help="Columns, in this order. Default: fleetctl's.")
]
Machine = Annotated[
    str | None,
    typer.Option(
        "--machine",
        metavar="MACHINE",
        help="The machine: its name, or the beginning of its id.",
        autocompletion=complete_machines,
    ),
]
SshUser = Annotated[
    str | None, typer.Option("--ssh-username", envvar="CAREEN_SSH_USERNAME", help="User for ssh. Default: ssh's own.")
]
SshPort = Annotated[int | None, typer.Option("--ssh-port", min=1, max=65535, help="Port for ssh. Default: ssh's own.")]
Tunnel = Annotated[
    str | None,
    typer.Option("--tunnel", envvar="CAREEN_SSH_TUNNEL", metavar="HOST[:PORT]", help="Host that ssh goes through."),
]


def count_seconds(attempts: int, timeout: float) -> float:
    """How long to wait, by `--block-attempts` if it is given, else by `--timeout`."""
    return float(attempts * ATTEMPT_SECONDS) if attempts else timeout


def gather_ssh(user: str | None, port: int | None, tunnel: str | None, *, forward_agent: bool = False) -> SshOptions:
    """The options of ssh. typer.BadParameter for what ssh would take for an option of its own."""
    for name, value in (("--ssh-username", user), ("--tunnel", tunnel)):
        if value is not None and (not value or value.startswith("-")):
            raise typer.BadParameter(f"{name} must be a name, not {value!r}")
    return SshOptions(user, port, tunnel, forward_agent)


def check_names(names: Sequence[str]) -> None:
    """typer.BadParameter for an empty word: it would stand for the folder that one is in."""
    if any(not name.strip() for name in names):
        raise typer.BadParameter("a unit's name must not be empty")
