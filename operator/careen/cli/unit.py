"""`careen unit`: systemd units that the cluster runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from careen.cli.target import AsJson
from careen.cli.units import listing, reaching, steering

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from careen.units.reading import Verdict

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Run systemd units on machines of the cluster's choice, as fleet did.",
)
_PANELS: dict[str, dict[str, Callable[..., None]]] = {
    "Look": {
        "list-units": listing.list_units,
        "list-unit-files": listing.list_unit_files,
        "list-machines": listing.list_machines,
        "cat": listing.cat,
        "status": reaching.status,
        "journal": reaching.journal,
    },
    "Steer": {
        "submit": steering.submit,
        "load": steering.load,
        "start": steering.start,
        "stop": steering.stop,
        "unload": steering.unload,
        "restart": steering.restart,
        "destroy": steering.destroy,
    },
}
for panel, commands in _PANELS.items():
    for word, command in commands.items():
        app.command(word, rich_help_panel=panel)(command)
# What stands behind the machine is the machine's: `careen unit ssh m1 ls -l`.
app.command("ssh", rich_help_panel="Look", context_settings={"allow_interspersed_args": False})(reaching.ssh)


@app.command(rich_help_panel="Files")
def verify(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="The unit file; its base name is the unit's name.", exists=True, dir_okay=False
        ),
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Check a unit file offline: name, content and requirements. Exit code 0 if it can be submitted, else 1."""
    verdict = check_file(file)
    if as_json:
        typer.echo(json.dumps(verdict.dump(), indent=2))
    else:
        for line in describe_verdict(verdict):
            typer.echo(line)
        for error in verdict.errors:
            typer.echo(f"{file}: {error}", err=True)
    for warning in verdict.warnings:
        typer.echo(f"{file}: warning: {warning}", err=True)
    if verdict.errors:
        raise typer.Exit(1)


def check_file(path: Path) -> Verdict:
    """What is to be said of a unit file under its own name. OSError if it can't be read."""
    from careen.api.requirements import Requirements
    from careen.units.file import MOST_BYTES
    from careen.units.reading import Verdict, check_unit

    with path.open("rb") as opened:
        # One byte more than is allowed is enough to tell that it is too long, whatever the file is.
        content = opened.read(MOST_BYTES + 1)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        # A character that the limit cuts is not at fault: the length is.
        if len(content) <= MOST_BYTES:
            fault = f"content must be UTF-8: byte {error.start + 1} is not"
            return Verdict(path.name, None, Requirements(), (fault,))
        text = content.decode(errors="replace")
    return check_unit(path.name, text)


def describe_verdict(verdict: Verdict) -> Iterator[str]:
    """The verdict as lines of text, without the errors."""
    from careen.units.wishes import dump_requirements

    rows = [("name", verdict.name)]
    if verdict.file is not None:
        rows += [("hash", verdict.file.hash), ("description", verdict.file.description or "-")]
        for name, value in dump_requirements(verdict.requirements).items():
            rows += [(name, each) for each in _spell(value)]
    for name, value in rows:
        yield f"{name:<16} {value}"


def _spell(value: object) -> list[str]:
    if isinstance(value, dict):
        return [f"{key}={' or '.join(values)}" for key, values in value.items()]
    if isinstance(value, list):
        return [str(each) for each in value]
    return [str(value).lower() if isinstance(value, bool) else str(value)]
