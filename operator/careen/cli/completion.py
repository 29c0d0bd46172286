"""Names of the cluster's units and machines for the shell that completes a command line."""

from __future__ import annotations

import io
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from careen.cli.target import Target, connect

if TYPE_CHECKING:
    from careen.kube.resources import Resource

SECONDS = 3.0
"""Who presses TAB waits no longer."""
FILES = ":0"
"""kubectl's word for: complete file names where there is nothing else."""
COMPLETE_VARIABLE = "_CAREEN_COMPLETE"


def complete_units(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Full names of units that begin so."""
    yield from _pick(ctx, incomplete, _list_units)


def complete_machines(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Names of machines that begin so."""
    yield from _pick(ctx, incomplete, _list_machines)


def complete_targets(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Names of units and machines that begin so."""
    yield from _pick(ctx, incomplete, _list_machines, _list_units)


def _pick(ctx: typer.Context, incomplete: str, *listings: Callable[[Target], Iterable[str]]) -> list[str]:
    given = {**ctx.find_root().params, **{key: value for key, value in ctx.params.items() if value is not None}}
    kubeconfig = given.get("kubeconfig")
    target = Target(Path(kubeconfig) if kubeconfig else None, given.get("context"))
    named = set(ctx.params.get("names") or ())
    try:
        names = [name for listing in listings for name in listing(target)]
    except Exception:  # Whatever is wrong, a shell that completes is no place to say so.
        return []
    return sorted({name for name in names if name.startswith(incomplete)} - named)


def _list_units(target: Target) -> list[str]:
    from careen.kube.resources import UNITS

    return [(each.get("spec") or {}).get("name") or each["metadata"]["name"] for each in _list(target, UNITS)]


def _list_machines(target: Target) -> list[str]:
    from careen.kube.resources import NODES

    return [each["metadata"]["name"] for each in _list(target, NODES)]


def _list(target: Target, kind: Resource) -> list[dict[str, dict[str, str]]]:
    import asyncio

    from careen.cli.fleet import list_all

    async def list_soon() -> list[dict[str, dict[str, str]]]:
        async with asyncio.timeout(SECONDS), connect(target) as session:
            return await list_all(session, kind)

    return asyncio.run(list_soon())


def complete_plugin(arguments: list[str]) -> list[str]:
    """The answer of `kubectl_complete-careen`: a line for each word, with its help, and how kubectl is to go on.

    The last argument is what is being typed.
    """
    from careen.cli.main import app

    *words, incomplete = arguments or [""]
    line = " ".join(["careen", *map(shlex.quote, words), incomplete])
    # fish's form, name, tab and help, is the one that kubectl takes.
    asked = {
        COMPLETE_VARIABLE: "complete_fish",
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    os.environ.update(asked)
    caught = io.StringIO()
    try:
        with redirect_stdout(caught):
            app(args=[], prog_name="careen", complete_var=COMPLETE_VARIABLE)
    except SystemExit:
        pass
    finally:
        for name in asked:
            os.environ.pop(name, None)
    return [*filter(None, caught.getvalue().splitlines()), FILES]


def main() -> None:
    """The entry point of `kubectl_complete-careen`, which kubectl calls when `kubectl careen` is completed."""
    print("\n".join(complete_plugin(sys.argv[1:])))
