"""Running one command line: exit codes, and errors as sentences."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from careen import __version__
from careen.cli.target import CommandError


def run_app(app: typer.Typer, name: str, arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code: 0, 1 with a sentence on stderr, 2 for wrong usage."""
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


def print_version(wanted: bool) -> None:
    """Print the version and end, if that is wanted."""
    if wanted:
        typer.echo(f"careen {__version__}")
        raise typer.Exit


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
