"""`careen agent`: the agent of one machine. `careen agent-units`: what systemd needs to start it."""

from __future__ import annotations

from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from careen.cli.target import TRUST_ROOT, CommandError, Namespace, Target, TrustRoot

if TYPE_CHECKING:
    from careen.agent.linux.settings import LinuxSettings
    from careen.agent.settings import Settings

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
UNITS = ("careen-agent.service", "careen-trial.timer", "careen-trial.service", "trial-check")

_LINUX = "A real machine (host linux)"


class HostKind(StrEnum):
    """What the machine is."""

    IMAGE = "image"
    LINUX = "linux"


class LogFormat(StrEnum):
    """How log lines look."""

    TEXT = "text"
    JSON = "json"


class Loader(StrEnum):
    """What boots a real machine."""

    AUTO = "auto"
    GPTPRIO = "gptprio"
    SYSTEMD_BOOT = "systemd-boot"


def run(
    ctx: typer.Context,
    *,
    folder: Annotated[
        Path | None,
        typer.Option(envvar="CAREEN_AGENT_FOLDER", help="Folder of the machine (host image).", file_okay=False),
    ] = None,
    node: Annotated[str, typer.Option(envvar="CAREEN_AGENT_NODE", help="Name of the machine's Node.")],
    host: Annotated[
        HostKind,
        typer.Option(
            envvar="CAREEN_AGENT_HOST",
            help="What the machine is: image, a folder with a disk image; linux, the machine that this runs on.",
        ),
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
    boot: Annotated[
        bool,
        typer.Option(
            "--boot/--no-boot",
            envvar="CAREEN_AGENT_BOOT",
            help="Be the machine too (host image): install the release in FOLDER/install at the first start, boot by "
            "the simulated firmware, and boot again where the agent would end for a reboot.",
        ),
    ] = False,
    units: Annotated[
        bool,
        typer.Option(
            "--units/--no-units",
            envvar="CAREEN_AGENT_UNITS",
            help="Whether to run the systemd units that the operator places on this machine. With --no-units nothing "
            "is started or stopped, and the orders are answered with that.",
        ),
    ] = True,
    unit_retry_seconds: Annotated[
        float,
        typer.Option(
            envvar="CAREEN_AGENT_UNIT_RETRY_SECONDS",
            min=1,
            max=3600,
            help="Seconds after which an order for a unit that failed is tried again, unless the Node's list of units "
            "changes before.",
        ),
    ] = 60.0,
    log_level: Annotated[
        str, typer.Option(envvar="CAREEN_AGENT_LOG_LEVEL", help="DEBUG, INFO, WARNING or ERROR.")
    ] = "INFO",
    log_format: Annotated[
        LogFormat,
        typer.Option(envvar="CAREEN_AGENT_LOG_FORMAT", help="text, or json: one JSON object a line."),
    ] = LogFormat.TEXT,
    metrics_address: Annotated[
        str, typer.Option(envvar="CAREEN_AGENT_METRICS_ADDRESS", help="Address of the agent's metrics.")
    ] = "127.0.0.1",
    metrics_port: Annotated[
        int,
        typer.Option(
            envvar="CAREEN_AGENT_METRICS_PORT", min=0, max=65535, help="Port of the agent's metrics; 0 serves none."
        ),
    ] = 0,
    host_root: Annotated[
        Path,
        typer.Option(
            envvar="CAREEN_AGENT_HOST_ROOT",
            help="Where the machine's / is seen; other than / in a container.",
            file_okay=False,
            rich_help_panel=_LINUX,
        ),
    ] = Path("/"),
    loader: Annotated[
        Loader,
        typer.Option(
            envvar="CAREEN_AGENT_LOADER",
            help="What boots the machine after a reset: gptprio, a loader that honours the GPT attributes; "
            "systemd-boot, by counted entries; auto looks which it was.",
            rich_help_panel=_LINUX,
        ),
    ] = Loader.AUTO,
    deny_kexec: Annotated[
        list[str] | None,
        typer.Option(
            envvar="CAREEN_AGENT_DENY_KEXEC",
            help="Beginning of a DMI vendor whose machines are not booted by kexec; may be given again, and replaces "
            "the built-in list.",
            rich_help_panel=_LINUX,
        ),
    ] = None,
    watchdog_seconds: Annotated[
        int,
        typer.Option(
            envvar="CAREEN_AGENT_WATCHDOG_SECONDS",
            min=10,
            max=3600,
            help="Seconds that the hardware watchdog waits, from the kexec on, for the new system's agent. It must be "
            "able to wait for --forced-reboot-seconds more, since nobody feeds it during the shutdown.",
            rich_help_panel=_LINUX,
        ),
    ] = 180,
    forced_reboot_seconds: Annotated[
        int,
        typer.Option(
            envvar="CAREEN_AGENT_FORCED_REBOOT_SECONDS",
            min=10,
            max=3600,
            help="Seconds after which a shutdown that does not end is ended by a reset.",
            rich_help_panel=_LINUX,
        ),
    ] = 180,
    tolerate: Annotated[
        list[str] | None,
        typer.Option(
            envvar="CAREEN_AGENT_TOLERATE",
            help="Pattern of units that may have failed in a good system; may be given again.",
            rich_help_panel=_LINUX,
        ),
    ] = None,
    require_mount: Annotated[
        list[str] | None,
        typer.Option(
            envvar="CAREEN_AGENT_REQUIRE_MOUNT",
            help="Place where something must be mounted in a good system; may be given again.",
            rich_help_panel=_LINUX,
        ),
    ] = None,
    kubelet_healthz: Annotated[
        str,
        typer.Option(
            envvar="CAREEN_AGENT_KUBELET_HEALTHZ",
            help="URL that must answer 200 in a good system where kubelet.service is enabled; empty: not asked.",
            rich_help_panel=_LINUX,
        ),
    ] = "http://127.0.0.1:10248/healthz",
    free_mib: Annotated[
        int,
        typer.Option(
            envvar="CAREEN_AGENT_FREE_MIB",
            min=0,
            help="MiB that must be free below /var/lib/careen in a good system.",
            rich_help_panel=_LINUX,
        ),
    ] = 64,
) -> None:
    """Be the agent of one machine: write releases to its passive slot, boot them, prove them, or go back.

    Ends with exit code 0 when the machine is to reboot, and on SIGTERM. One agent a machine: a second one is refused.
    """
    if host is HostKind.IMAGE and folder is None:
        raise typer.BadParameter("--folder is missing; host image needs the machine's folder")
    if log_level.upper() not in LEVELS:
        raise typer.BadParameter(f"--log-level is {log_level!r}; allowed: {', '.join(LEVELS)}")
    from careen.agent.app import Options, run_process
    from careen.agent.settings import Settings
    from careen.agent.units.settings import KeeperSettings
    from careen.api.meta import NAMESPACE
    from careen.disk.types import DiskError
    from careen.observe.logs import configure_logs

    configure_logs(log_level, as_json=log_format is LogFormat.JSON)
    common = ctx.find_root().obj
    path = kubeconfig or (common.kubeconfig if isinstance(common, Target) else None)
    settings = Settings(
        namespace=namespace or NAMESPACE,
        renew_seconds=renew_seconds,
        units=KeeperSettings(retry_seconds=unit_retry_seconds),
    )
    if boot:
        if host is not HostKind.IMAGE or folder is None:
            raise typer.BadParameter("--boot is for --host image; a real machine is booted by its own firmware")
        if metrics_port:
            raise typer.BadParameter("--metrics-port is not for --boot: a simulated machine's agent serves no metrics")
        if not units:
            raise typer.BadParameter("--no-units is not for --boot: a simulated machine runs what it is told to")
        _be_machine(folder, node, trust_root, kubeconfig=path, settings=settings, log_level=log_level.upper())
        return

    def describe_linux() -> LinuxSettings:
        from careen.agent.linux.health import MIB, HealthSettings
        from careen.agent.linux.preflight import DENIED_VENDORS
        from careen.agent.linux.settings import LinuxSettings

        health = HealthSettings(tolerate or (), require_mount or (), kubelet_healthz, free_mib * MIB)
        return LinuxSettings(
            trust_root=trust_root,
            kexec=kexec,
            denied_vendors=DENIED_VENDORS if deny_kexec is None else deny_kexec,
            loader=loader.value,
            watchdog_seconds=watchdog_seconds,
            forced_reboot_seconds=forced_reboot_seconds,
            health=health,
        )

    options = Options(
        node=node,
        folder=folder if host is HostKind.IMAGE else None,
        linux=describe_linux() if host is HostKind.LINUX else None,
        host_root=host_root,
        trust_root=trust_root,
        kubeconfig=path,
        kexec=kexec,
        units=units,
        settings=settings,
        metrics_address=metrics_address,
        metrics_port=metrics_port,
    )
    try:
        run_process(options)
    except DiskError as error:
        raise CommandError(str(error)) from error


def _be_machine(
    folder: Path, node: str, trust_root: Path, *, kubeconfig: Path | None, settings: Settings, log_level: str
) -> None:
    """Install and run a simulated machine with its agent in this process."""
    try:
        from careen.sandbox.machine import MachineSettings, install_machine, run_machine
    except ModuleNotFoundError as error:
        raise CommandError(f"--boot needs the whole package, not the agent's one file: {error}") from error
    from careen.disk.types import DiskError

    try:
        install_machine(folder, node)
    except (OSError, DiskError, ValueError) as error:
        raise CommandError(f"no machine can be installed in {folder} from its folder install: {error}") from error
    run_machine(
        MachineSettings(
            name=node,
            folder=str(folder),
            kubeconfig=str(kubeconfig) if kubeconfig else None,
            trust_root=str(trust_root),
            namespace=settings.namespace,
            renew_seconds=settings.renew_seconds,
            in_process=True,
            log_level=log_level,
        )
    )


def write_units(
    folder: Annotated[Path, typer.Argument(help="Folder of an image or machine to write to, such as its /.")],
) -> None:
    """Write the agent's systemd units, and the timer that ends a trial boot, below a folder.

    The units go to usr/lib/systemd/system, the timer's script to usr/lib/careen. Enable careen-agent.service and
    careen-trial.timer; an image that has the timer declares the capability trial-timer.
    """
    packaged = resources.files("careen.agent.linux") / "units"
    for name in UNITS:
        place = "usr/lib/systemd/system" if "." in name else "usr/lib/careen"
        path = folder / place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((packaged / name).read_bytes())
        path.chmod(0o644 if "." in name else 0o755)
        typer.echo(f"wrote {path}")
