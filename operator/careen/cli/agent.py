"""`careen agent`: the agent of one machine."""

from __future__ import annotations

import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from careen.agent.app import Options, run
from careen.agent.runner import Settings
from careen.api.meta import NAMESPACE
from careen.disk.types import DiskError
from careen.kube.errors import ConfigError


class HostKind(StrEnum):
    """What the machine is."""

    IMAGE = "image"


def agent(
    *,
    folder: Annotated[
        Path, typer.Option(envvar="CAREEN_AGENT_FOLDER", help="Folder of the machine (host image).", file_okay=False)
    ],
    node: Annotated[str, typer.Option(envvar="CAREEN_AGENT_NODE", help="Name of the machine's Node.")],
    host: Annotated[
        HostKind,
        typer.Option(envvar="CAREEN_AGENT_HOST", help="What the machine is: image, a folder with a disk image."),
    ] = HostKind.IMAGE,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            envvar="CAREEN_AGENT_KUBECONFIG",
            help="How to reach the API server. Default: $KUBECONFIG, the pod's account, ~/.kube/config.",
            dir_okay=False,
        ),
    ] = None,
    namespace: Annotated[
        str, typer.Option(envvar="CAREEN_AGENT_NAMESPACE", help="Namespace that holds the agent's Lease.")
    ] = NAMESPACE,
    renew_seconds: Annotated[
        float,
        typer.Option(
            envvar="CAREEN_AGENT_RENEW_SECONDS",
            min=0.1,
            max=150,
            help="Seconds between two renewals of the Lease; the operator calls an agent silent after 180.",
        ),
    ] = 60.0,
    kexec: Annotated[
        bool,
        typer.Option("--kexec/--no-kexec", envvar="CAREEN_AGENT_KEXEC", help="Whether the machine can boot by kexec."),
    ] = True,
    log_level: Annotated[
        str, typer.Option(envvar="CAREEN_AGENT_LOG_LEVEL", help="DEBUG, INFO, WARNING or ERROR.")
    ] = "INFO",
) -> None:
    """Be the agent of one machine: write releases to its passive slot, boot them, prove them, or go back.

    Ends with exit code 0 when the machine is to reboot, and on SIGTERM. One agent a machine: a second one is refused.
    """
    del host  # One kind so far; the option is there so that scripts written now go on to mean this kind.
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = Settings(namespace=namespace, renew_seconds=renew_seconds)
    try:
        run(Options(folder, node, kubeconfig, kexec, settings))
    except (DiskError, OSError, ConfigError) as error:
        typer.echo(f"careen agent: {error}", err=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    typer.run(agent)
