"""`careen agent`: the agent of one machine."""

from __future__ import annotations

import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from careen.cli.target import TRUST_ROOT, CommandError, Namespace, Target, TrustRoot

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class HostKind(StrEnum):
    """What the machine is."""

    IMAGE = "image"


def run(
    ctx: typer.Context,
    *,
    folder: Annotated[
        Path, typer.Option(envvar="CAREEN_AGENT_FOLDER", help="Folder of the machine (host image).", file_okay=False)
    ],
    node: Annotated[str, typer.Option(envvar="CAREEN_AGENT_NODE", help="Name of the machine's Node.")],
    host: Annotated[
        HostKind,
        typer.Option(envvar="CAREEN_AGENT_HOST", help="What the machine is: image, a folder with a disk image."),
    ] = HostKind.IMAGE,
    trust_root: TrustRoot = TRUST_ROOT,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            envvar="CAREEN_AGENT_KUBECONFIG",
            help="How to reach the API server. Default: $KUBECONFIG, the pod's account, ~/.kube/config.",
            dir_okay=False,
        ),
    ] = None,
    namespace: Namespace = None,
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
    if host is not HostKind.IMAGE:
        raise AssertionError(f"no host for {host}")
    if log_level.upper() not in LEVELS:
        raise typer.BadParameter(f"--log-level is {log_level!r}; allowed: {', '.join(LEVELS)}")
    from careen.agent.app import Options, run_process
    from careen.agent.runner import Settings
    from careen.api.meta import NAMESPACE
    from careen.disk.types import DiskError

    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    common = ctx.find_root().obj
    path = kubeconfig or (common.kubeconfig if isinstance(common, Target) else None)
    settings = Settings(namespace=namespace or NAMESPACE, renew_seconds=renew_seconds)
    try:
        run_process(Options(folder, node, trust_root, path, kexec, settings))
    except DiskError as error:
        raise CommandError(str(error)) from error
