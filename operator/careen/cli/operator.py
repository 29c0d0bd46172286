"""`careen operator`: the process that plans and gives orders."""

from __future__ import annotations

import secrets
import socket
from typing import TYPE_CHECKING, Annotated

import typer

from careen.cli.target import TRUST_ROOT, ContextName, Kubeconfig, Namespace, ReleaseCache, Target, TrustRoot

if TYPE_CHECKING:
    from careen.core.snapshot import Requirement


def check_address(address: str | None) -> str | None:
    """The address; typer.BadParameter when it is not HOST:PORT."""
    host, _, port = (address or "").rpartition(":")
    if address is not None and not (host and port.isdecimal() and int(port) < 65536):
        raise typer.BadParameter(f"{address!r} is no address; allowed: HOST:PORT, such as 0.0.0.0:8081")
    return address


def run(
    ctx: typer.Context,
    *,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
    namespace: Namespace = None,
    identity: Annotated[
        str | None, typer.Option("--identity", help="Name in the leader's Lease. Default: host name and a random part.")
    ] = None,
    node_selector: Annotated[
        str, typer.Option("--node-selector", help="Labels KEY=VALUE,… of the core Nodes that are machines of ours.")
    ] = "",
    operator_node: Annotated[
        str | None,
        typer.Option(
            "--operator-node", envvar="NODE_NAME", help="Machine that this process runs on; it is updated last."
        ),
    ] = None,
    lease_seconds: Annotated[
        float, typer.Option("--lease-seconds", min=1.0, help="Seconds for which a silent leader keeps standbys out.")
    ] = 15.0,
    silence_seconds: Annotated[
        float,
        typer.Option("--silence-seconds", min=1.0, help="Seconds after which an unchanged agent Lease is silent."),
    ] = 180.0,
    unit_grace_seconds: Annotated[
        float,
        typer.Option(
            "--unit-grace-seconds", min=0.0, help="Seconds that a machine may be silent before its units are moved."
        ),
    ] = 60.0,
    unit_rebalance: Annotated[
        int, typer.Option("--unit-rebalance", min=0, help="Units that may move at once only to even out the load.")
    ] = 0,
    trust_root: TrustRoot = TRUST_ROOT,
    release_cache: ReleaseCache = None,
    resolve_seconds: Annotated[
        float,
        typer.Option(
            "--resolve-seconds", min=1.0, help="Seconds after which each policy's release is looked up again."
        ),
    ] = 300.0,
    metrics_address: Annotated[str, typer.Option("--metrics-address", help="Address of the metrics.")] = "127.0.0.1",
    metrics_port: Annotated[
        int | None, typer.Option("--metrics-port", min=0, max=65535, help="Port of the metrics; 0: any. Default: none.")
    ] = None,
    node_metrics: Annotated[
        bool, typer.Option("--node-metrics/--no-node-metrics", help="Whether each machine has series of its own.")
    ] = False,
    probe_address: Annotated[
        str | None,
        typer.Option(
            "--probe-address",
            callback=check_address,
            help="HOST:PORT of the probes /healthz and /readyz. Default: none.",
        ),
    ] = None,
    log_level: Annotated[
        str, typer.Option("--log-level", help="DEBUG, INFO, WARNING or ERROR; JSON lines go to standard error.")
    ] = "INFO",
) -> None:
    """Run the operator until SIGTERM. Several may run; one of them leads."""
    levels = ("DEBUG", "INFO", "WARNING", "ERROR")
    if log_level.upper() not in levels:
        raise typer.BadParameter(f"--log-level is {log_level!r}; allowed: {', '.join(levels)}")
    from careen.api.meta import NAMESPACE
    from careen.control.app import run_operator
    from careen.control.settings import Settings, default_cache
    from careen.observe.logs import configure_logs

    configure_logs(log_level.upper())
    common: Target = ctx.find_root().obj
    settings = Settings(
        identity=identity or f"{socket.gethostname()}-{secrets.token_hex(4)}",
        kubeconfig=kubeconfig or common.kubeconfig,
        context=context or common.context,
        namespace=namespace or NAMESPACE,
        node_selector=parse_selector(node_selector),
        operator_node=operator_node,
        lease_seconds=lease_seconds,
        silence_seconds=silence_seconds,
        unit_grace_seconds=unit_grace_seconds,
        unit_rebalance=unit_rebalance,
        trust_root=trust_root,
        release_cache=release_cache or default_cache(),
        resolve_seconds=resolve_seconds,
        metrics_address=metrics_address,
        metrics_port=metrics_port,
        node_metrics=node_metrics,
        probe_address=probe_address,
    )
    raise typer.Exit(run_operator(settings))


def parse_selector(text: str) -> tuple[Requirement, ...]:
    """KEY=VALUE,… as requirements; typer.BadParameter for anything else."""
    from careen.core.snapshot import Requirement

    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"--node-selector has {part!r}; allowed: KEY=VALUE,KEY=VALUE")
        found.append(Requirement(key, "In", (value,)))
    return tuple(found)
