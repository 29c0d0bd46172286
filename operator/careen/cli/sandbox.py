"""`careen sandbox`: a whole fleet on this computer, to try things on; nothing of it is left afterwards."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from careen.cli.target import CommandError, Target

if TYPE_CHECKING:
    from careen.sandbox.cluster import Cluster
    from careen.sandbox.up import Sandbox

app = typer.Typer(
    no_args_is_help=True,
    help="Try Careen on this computer: a real control plane, simulated machines with real disk images, and a demo.",
)

WATCH_SECONDS = 1.0


class FaultKind(StrEnum):
    """What is wrong with a release."""

    PANIC = "panic"
    HANG = "hang"
    NO_AGENT = "no-agent"
    UNHEALTHY = "unhealthy"
    UNHEALTHY_ONCE = "unhealthy-once"


Existing = Annotated[
    Path | None,
    typer.Option(
        "--kubeconfig",
        envvar="CAREEN_KUBECONFIG",
        help="Use this existing cluster, such as kind's, instead of a control plane of our own.",
    ),
]
Confirmed = Annotated[
    str | None,
    typer.Option(
        "--yes-this-context", metavar="NAME", help="Confirm an existing cluster whose context is not kind-… or careen-…"
    ),
]


@app.command()
def up(
    ctx: typer.Context,
    *,
    machines: Annotated[int, typer.Option("--machines", "-n", min=1, max=200, help="Number of machines.")] = 6,
    zones: Annotated[int, typer.Option("--zones", "-z", min=1, max=26, help="Zones that they are spread over.")] = 3,
    kubeconfig: Existing = None,
    yes_this_context: Confirmed = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON when it is ready.")] = False,
    no_operator: Annotated[bool, typer.Option("--no-operator", help="Start no operator.")] = False,
    lease_seconds: Annotated[
        float, typer.Option("--lease-seconds", min=1.0, help="How long a silent leader keeps another operator out.")
    ] = 15.0,
    boot_seconds: Annotated[
        float, typer.Option("--boot-seconds", min=0.0, help="How long a reboot of a machine takes.")
    ] = 1.0,
    renew_seconds: Annotated[
        float, typer.Option("--renew-seconds", min=0.1, max=150, help="Seconds between renewals of an agent's Lease.")
    ] = 60.0,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="Run each agent inside its machine's process: half the memory.")
    ] = False,
) -> None:
    """Start a fleet with release 1.0.0 on all machines and 2.0.0 published, and keep it up until Ctrl-C."""
    from careen.sandbox.up import Sandbox, SandboxOptions

    options = SandboxOptions(
        machines=machines,
        zones=zones,
        operator=not no_operator,
        lease_seconds=lease_seconds,
        boot_seconds=boot_seconds,
        renew_seconds=renew_seconds,
        in_process=in_process,
    )
    with (
        _until_signal() as ended,
        _existing(kubeconfig or _common(ctx), yes_this_context) as cluster,
        Sandbox(options, cluster=cluster, report=_report) as sandbox,
    ):
        if as_json:
            typer.echo(json.dumps(sandbox.describe()))
        else:
            typer.echo(explain_sandbox(sandbox))
        _wait(sandbox, ended)


@app.command()
def publish(
    version: Annotated[str, typer.Argument(help="Version of the release, such as 2.1.0.")],
    fault: Annotated[FaultKind | None, typer.Option("--fault", help="What is to be wrong with it.")] = None,
    kubeconfig: Annotated[
        Path | None, typer.Option("--kubeconfig", help="Which sandbox, where several are up.")
    ] = None,
) -> None:
    """Build a release and publish it in the running sandbox; print its digest."""
    from careen.release.errors import BuildError, PublishError
    from careen.sandbox.firmware import Fault
    from careen.sandbox.releases import Repository
    from careen.sandbox.running import choose_running

    repository = Repository(Path(choose_running(kubeconfig).repository))
    try:
        entry = repository.publish(version, Fault(fault) if fault is not None else None)
    except (BuildError, PublishError) as error:
        raise CommandError(str(error)) from error
    typer.echo(entry.digest)


@app.command()
def env(
    kubeconfig: Annotated[
        Path | None, typer.Option("--kubeconfig", help="Which sandbox, where several are up.")
    ] = None,
) -> None:
    """Print what a shell needs to talk to the running sandbox, for eval: KUBECONFIG, PATH to a kubectl, CAREEN_…."""
    import shlex

    from careen.sandbox.running import choose_running

    for name, value in choose_running(kubeconfig).environment().items():
        typer.echo(f"export {name}={shlex.quote(value)}" + (':"$PATH"' if name == "PATH" else ""))


@app.command()
def demo(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of the table.")] = False,
    svg: Annotated[
        Path | None,
        typer.Option("--svg", metavar="FILE", help="Write the picture of it into this file.", dir_okay=False),
    ] = None,
) -> None:
    """Update six machines, then watch a broken release stop at the first of them. Exit code 0 if all was observed."""
    from rich.console import Console

    from careen.sandbox.demo import MACHINES, ZONES
    from careen.sandbox.picture import show_demo
    from careen.sandbox.up import Sandbox, SandboxOptions

    with _until_signal(), Sandbox(SandboxOptions(machines=MACHINES, zones=ZONES), report=_report) as sandbox:
        result = show_demo(sandbox, None if as_json else Console(), svg)
        if as_json:
            typer.echo(json.dumps(result.dump(), indent=2))
        if result.ok:
            return
    raise typer.Exit(1)


@contextmanager
def _until_signal() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set. Before the sandbox is ready they end its start instead."""
    ended = threading.Event()

    def end(_number: int, _frame: object) -> None:
        if ended.is_set():
            return
        ended.set()
        raise KeyboardInterrupt

    old = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield ended
    except KeyboardInterrupt:
        pass
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def _existing(kubeconfig: Path | None, confirmed: str | None) -> Iterator[Cluster | None]:
    if kubeconfig is None:
        yield None
        return
    from careen.sandbox.existing import ExistingCluster

    with ExistingCluster(kubeconfig, confirmed_context=confirmed) as cluster:
        yield cluster


def _common(ctx: typer.Context) -> Path | None:
    common = ctx.find_root().obj
    return common.kubeconfig if isinstance(common, Target) else None


def _report(text: str) -> None:
    typer.echo(f"careen sandbox: {text}", err=True)


def _wait(sandbox: Sandbox, ended: threading.Event) -> None:
    """Wait for the end, and say when a process of the sandbox has ended by itself."""
    told = set()
    while not ended.wait(WATCH_SECONDS):
        for child in sandbox.find_ended():
            if child.name not in told:
                told.add(child.name)
                _report(f"{child.name} has ended with code {child.process.returncode} (log: {child.log})")


def explain_sandbox(sandbox: Sandbox) -> str:
    """How to talk to a sandbox, in commands that can be copied."""
    policy = POLICY.format(releases=sandbox.releases)
    return f"""
{len(sandbox.names)} machines run 1.0.0. In another terminal:

  eval "$(careen sandbox env --kubeconfig {sandbox.cluster.kubeconfig})"
  careen status --watch
  kubectl apply -f - <<'EOF'
{policy}EOF
  careen sandbox publish 2.1.0 --fault panic

releases   {sandbox.releases}
audit log  {sandbox.cluster.audit_log or "none"}
logs       {sandbox.logs}

Ctrl-C ends it; nothing but the logs is kept."""


POLICY = """\
  apiVersion: careen.dev/v1alpha1
  kind: UpdatePolicy
  metadata:
    name: os
  spec:
    release:
      repository: {releases}
      version: 2.0.0
    strategy:
      maxUnavailable: 2
      topology:
      - key: topology.kubernetes.io/zone
        maxUnavailable: 1
      waves:
      - name: canary
        count: 1
        soakSeconds: 5
"""
