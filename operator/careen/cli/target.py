"""Which cluster a command talks to, and the one kind of error that its commands end with."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from careen import __version__

if TYPE_CHECKING:
    from careen.kube.session import Session

T = TypeVar("T")

Kubeconfig = Annotated[
    Path | None,
    typer.Option("--kubeconfig", help="Kubeconfig of the cluster. Default: $KUBECONFIG, else ~/.kube/config."),
]
ContextName = Annotated[
    str | None, typer.Option("--context", help="Context of the kubeconfig. Default: its current one.")
]


def check_namespace(name: str | None) -> str | None:
    """The name; typer.BadParameter when it is no name of a namespace."""
    if name and not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name):
        raise typer.BadParameter(f"{name!r} is no namespace; allowed: a to z, 0 to 9 and -, at most 63")
    return name


Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        envvar="CAREEN_NAMESPACE",
        callback=check_namespace,
        help="Namespace of the install. Default: careen-system.",
    ),
]
TRUST_ROOT = Path("/usr/share/careen/root.json")
"""Where an image has the trust root."""
TrustRoot = Annotated[
    Path,
    typer.Option(
        "--trust-root",
        envvar="CAREEN_TRUST_ROOT",
        help="File with the root.json that releases are trusted by.",
        dir_okay=False,
    ),
]
ReleaseCache = Annotated[
    Path | None,
    typer.Option(
        "--release-cache",
        envvar="CAREEN_RELEASE_CACHE",
        help="Folder for signed metadata, so that no repository can go back. Default: ~/.cache/careen/metadata.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]


class CommandError(Exception):
    """Why a command can't do what it was asked, as one sentence for people. Exit code 1."""


@dataclass(frozen=True, slots=True)
class Target:
    """A cluster as the options before the verb name it."""

    kubeconfig: Path | None = None
    context: str | None = None


def call(
    ctx: typer.Context,
    kubeconfig: Path | None,
    context: str | None,
    work: Callable[[Session], Awaitable[T]],
) -> T:
    """Run `work` with a session to the cluster that the verb's options name, else those before the verb.

    Raises what `work` raises, ConfigError for a kubeconfig that can't be used.
    """
    common = ctx.find_root().obj
    given = common if isinstance(common, Target) else Target()

    async def connected() -> T:
        async with connect(Target(kubeconfig or given.kubeconfig, context or given.context)) as session:
            return await work(session)

    return asyncio.run(connected())


def connect(target: Target) -> AbstractAsyncContextManager[Session]:
    """A session to this cluster, for an `async with` block. ConfigError for a kubeconfig that can't be used."""
    from careen.kube.session import Session

    return Session.connect(target.kubeconfig, target.context, user_agent=f"careen/{__version__}")
