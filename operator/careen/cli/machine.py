"""The commands that a machine itself needs, and nothing else: the entry point of the agent's artifact."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from careen.cli import agent, disk
from careen.cli.entry import print_version, run_app

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="The agent of one machine, and its disk.",
)
app.command("agent")(agent.run)
app.command("agent-units")(agent.write_units)
app.add_typer(disk.app, name="disk")


@app.callback()
def common(
    _version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that may stand before any verb."""


def main() -> None:
    """The entry point."""
    sys.exit(run_app(app, "careen", sys.argv[1:]))
