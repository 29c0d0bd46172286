"""`careen`, and the same as a kubectl plugin: `kubectl careen`. Heavy imports wait until a verb runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from careen import __version__
from careen.cli import agent, crds, disk, lock, node, operator, plan, policy, release, sandbox, status
from careen.cli.target import CommandError, ContextName, Kubeconfig, Target

PLUGIN = "kubectl-careen"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
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
app.command("agent", rich_help_panel="Run")(agent.run)
app.command("operator", rich_help_panel="Run")(operator.run)
app.command("crds", rich_help_panel="Run")(crds.print_crds)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"careen {__version__}")
        raise typer.Exit


@app.callback()
def common(
    ctx: typer.Context,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that may stand before any verb."""
    ctx.obj = Target(kubeconfig, context)


def run(program: str, arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code: 0, 1 with a sentence on stderr, 2 for wrong usage."""
    name = "kubectl careen" if Path(program).name == PLUGIN else "careen"
    try:
        app(args=list(arguments), prog_name=name)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as error:
        if (sentence := explain_error(error)) is None:
            raise
        print(f"{name}: {sentence}", file=sys.stderr)
        return 1
    return 0


def explain_error(error: Exception) -> str | None:
    """The sentence for an error that people can do something about; None for a bug of ours."""
    from careen.kube.errors import ApiError, ConfigError

    if isinstance(error, ApiError):
        return f"{error.message}" if error.status else f"no answer from the API server: {error.message}"
    if isinstance(error, CommandError | ConfigError):
        return str(error)
    # Importing these rooms costs more than most verbs take; what was not imported can't have raised.
    for module, name in (
        ("careen.sandbox.binaries", "SandboxError"),
        ("careen.sandbox.client", "ApiError"),
        ("careen.release.errors", "ReleaseError"),
    ):
        if module in sys.modules and isinstance(error, getattr(sys.modules[module], name)):
            return str(error)
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return None


def main() -> None:
    """The entry point."""
    sys.exit(run(sys.argv[0], sys.argv[1:]))
