"""`careen`, and the same as a kubectl plugin: `kubectl careen`. Heavy imports wait until a verb runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from careen.cli import agent, crds, disk, lock, node, operator, plan, policy, release, sandbox, status, unit
from careen.cli.entry import print_version, run_app
from careen.cli.target import ContextName, Kubeconfig, Target

PLUGIN = "kubectl-careen"
COMPLETION_OPTIONS = ("--install-completion", "--show-completion")

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Operating systems that update themselves across a cluster.",
)
app.command("status", rich_help_panel="Look")(status.show_status)
app.command("plan", rich_help_panel="Look")(plan.show_plan)
app.command("pause", rich_help_panel="Steer")(policy.pause)
app.command("resume", rich_help_panel="Steer")(policy.resume)
app.command("abort", rich_help_panel="Steer")(node.abort)
app.command("retry", rich_help_panel="Steer")(node.retry)
app.command("reboot", rich_help_panel="Steer")(node.reboot)
app.command("reset", rich_help_panel="Steer")(node.reset)
app.add_typer(lock.app, name="lock", rich_help_panel="Steer")
app.add_typer(sandbox.app, name="sandbox", rich_help_panel="Try")
app.add_typer(disk.app, name="disk", rich_help_panel="Machines")
app.add_typer(release.app, name="release", rich_help_panel="Releases")
app.add_typer(unit.app, name="unit", rich_help_panel="Units")
app.command("agent", rich_help_panel="Run")(agent.run)
app.command("agent-units", rich_help_panel="Machines")(agent.write_units)
app.command("operator", rich_help_panel="Run")(operator.run)
app.command("crds", rich_help_panel="Run")(crds.print_crds)


@app.callback()
def common(
    ctx: typer.Context,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that may stand before any verb."""
    ctx.obj = Target(kubeconfig, context)


def run(program: str, arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code: 0, 1 with a sentence on stderr, 2 for wrong usage."""
    name = "kubectl careen" if Path(program).name == PLUGIN else "careen"
    if name != "careen" and any(each.partition("=")[0] in COMPLETION_OPTIONS for each in arguments):
        # The shell completes kubectl there, which asks `kubectl_complete-careen`.
        print(f"{name}: kubectl completes it by kubectl_complete-careen, which must be on the PATH", file=sys.stderr)
        return 2
    return run_app(app, name, arguments)


def main() -> None:
    """The entry point."""
    sys.exit(run(sys.argv[0], sys.argv[1:]))
