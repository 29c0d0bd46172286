"""Ways to a machine: into its agent's pod, to its kubelet's logs, by ssh; the first that is open is taken."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from careen.api.meta import NAMESPACE
from careen.cli.fleet import Document, list_all
from careen.cli.target import CommandError
from careen.cli.units.commands import (
    SSH_FAILED,
    JournalOptions,
    SshOptions,
    ask_kubelet,
    call_ssh,
    enter_machine,
    find_host_root,
    read_kubelet,
)
from careen.cli.units.views import MachineView
from careen.kube.errors import ApiError, Forbidden, Unreachable
from careen.kube.exec import run_in_pod
from careen.kube.resources import CORE_NODES, PODS

if TYPE_CHECKING:
    from careen.kube.session import Session

AGENT_LABELS = "app.kubernetes.io/name=careen,app.kubernetes.io/component=agent"
SILENCE_SECONDS = 60.0
"""A program that is to end, and from which nothing comes for so long, hangs."""


class Via(StrEnum):
    """Which way to take."""

    AUTO = "auto"
    EXEC = "exec"
    KUBELET = "kubelet"
    SSH = "ssh"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Closed:
    """Why a way is not open."""

    reason: str


@dataclass(frozen=True)
class Errand:
    """A program to run on a machine."""

    command: Sequence[str]
    via: Via = Via.AUTO
    namespace: str = NAMESPACE
    ssh: SshOptions = field(default_factory=SshOptions)
    sudo: bool = False
    """By ssh, run it by sudo; the other ways are root's."""
    unit: str = ""
    journal: JournalOptions | None = None
    """What of the unit's journal it shows, if that is what it does: a kubelet can do so, too."""
    follows: bool = False
    """It goes on until people end it."""


async def run_on_machine(session: Session, machine: MachineView, errand: Errand) -> int:
    """Run it, with its output on ours; its exit code. CommandError, with the reason of each way, when none is open."""
    closed = []
    ways = {Via.EXEC: _run_in_agent, Via.KUBELET: _read_journal, Via.SSH: _run_by_ssh}
    for via, way in ways.items():
        if errand.via not in (Via.AUTO, via):
            continue
        outcome = await way(session, machine, errand)
        if isinstance(outcome, int):
            return outcome
        closed.append(f"{via}: {outcome.reason}")
    raise CommandError(f"there is no way to machine {machine.name} ({'; '.join(closed)})")


async def _run_in_agent(session: Session, machine: MachineView, errand: Errand) -> int | Closed:
    if not machine.in_cluster:
        return Closed("it is no Kubernetes Node, so its agent is no pod")
    try:
        found = await _find_agent(session, machine.name, errand.namespace)
    except Forbidden:
        return Closed(f"you may not list pods in namespace {errand.namespace}")
    if found is None:
        return Closed(f"no agent's pod runs there in namespace {errand.namespace}")
    root = find_host_root(found)
    if root is None:
        return Closed("its agent has a simulated machine, without systemd")
    command = enter_machine(root, errand.command, ends_with_us=errand.follows)
    wrote = False

    def pass_on(stream: Callable[[bytes], None]) -> Callable[[bytes], None]:
        def write(data: bytes) -> None:
            nonlocal wrote
            wrote = True
            stream(data)

        return write

    try:
        return await run_in_pod(
            session, errand.namespace, found["metadata"]["name"], "agent", command,
            stdout=pass_on(write_out), stderr=pass_on(write_error),
            silence=None if errand.follows else SILENCE_SECONDS, keep_input_open=errand.follows,
        )  # fmt: skip
    except Forbidden:
        return Closed("you may not exec into its agent's pod")
    except ApiError as error:
        if wrote or (isinstance(error, Unreachable) and error.method == "EXEC"):
            # It ran, or may have: another way would do it twice.
            raise
        return Closed(f"exec into its agent's pod: {error.message}")


async def _find_agent(session: Session, machine: str, namespace: str) -> Document | None:
    query = {"labelSelector": AGENT_LABELS, "fieldSelector": f"spec.nodeName={machine},status.phase=Running"}
    pods = await list_all(session, PODS, namespace, query)
    return next((pod for pod in pods if "deletionTimestamp" not in pod["metadata"]), None)


async def _read_journal(session: Session, machine: MachineView, errand: Errand) -> int | Closed:
    query = ask_kubelet(errand.unit, errand.journal) if errand.journal is not None else None
    if query is None:
        return Closed("it can't do this")
    if not machine.in_cluster:
        return Closed("it is no Kubernetes Node, so it has none")
    try:
        answer = await session.fetch_text(CORE_NODES.path(name=machine.name, subresource="proxy/logs/"), query=query)
    except Forbidden:
        return Closed("you may not read its logs (get nodes/proxy)")
    except ApiError as error:
        return Closed(error.message)
    text = read_kubelet(*answer)
    if text is None:
        return Closed("its log query is off (enableSystemLogQuery), or has no journal of this unit")
    write_out(text.encode())
    return 0


async def _run_by_ssh(_session: Session, machine: MachineView, errand: Errand) -> int | Closed:
    command = ["sudo", *errand.command] if errand.sudo else errand.command
    code = await run_ssh(machine, errand.ssh, command)
    if code == SSH_FAILED:
        return Closed(f"ssh to {machine.ip or machine.name} failed")
    return code


async def run_ssh(machine: MachineView, options: SshOptions, command: Sequence[str] = ()) -> int | Closed:
    """Run ssh in the foreground: its exit code, 255 if it can't get there."""
    if shutil.which("ssh") is None:
        return Closed("there is no ssh here")
    sys.stdout.flush()
    child = await asyncio.create_subprocess_exec(*call_ssh(machine.ip or machine.name, options, command))
    try:
        return await child.wait()
    finally:
        if child.returncode is None:
            child.terminate()


def write_out(data: bytes) -> None:
    """Write to standard output at once."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def write_error(data: bytes) -> None:
    """Write to standard error at once."""
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()
