"""A simulated machine: firmware, an OS with its fault, an agent, and again. Its folder outlives a power cut.

Run as a process (`python -m careen.sandbox.machine SETTINGS.json`), its SIGKILL is the power cut: the agent dies with
it, and the next start boots by the boot rule.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import platform
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import aiohttp

from careen import __version__
from careen.agent.imagehost import ImageHost, MachineFolder, open_folder_units
from careen.agent.journal import save_journal
from careen.agent.record import Journal
from careen.agent.records import SlotRecord, save_records
from careen.agent.runner import run_agent
from careen.agent.settings import Settings
from careen.agent.threads import in_thread
from careen.api.meta import NAMESPACE
from careen.disk.image import create_image, fill_slot
from careen.disk.table import read_slots
from careen.disk.types import DiskError, SlotName
from careen.kube.session import Session
from careen.release.bootblock import BootBlock
from careen.release.build import IMAGE_NAME
from careen.release.durable import PRIVATE, write_durably
from careen.release.manifest import parse_document
from careen.release.repository import DOCUMENT_NAME
from careen.sandbox.firmware import Booted, BootError, Fault, Reset, kexec, power_on
from careen.sandbox.kubelet import Kubelet
from careen.sandbox.processes import Child, kill, spawn, stop
from careen.sandbox.releases import SandboxRelease

logger = logging.getLogger(__name__)

MIB = 1 << 20
SLOT_BYTES = 8 * MIB
ROOT_BYTES = 1 * MIB
INSTALL = "install"
"""Folder of a machine's folder with the release that is installed at its first start."""
_AGENT_GRACE_SECONDS = 2.0


@dataclass(frozen=True)
class MachineSettings:
    """What a simulated machine is. All times are in seconds."""

    name: str
    """Name of its Node and its core Node."""
    folder: str
    """Its folder, made by create_machine."""
    kubeconfig: str | None
    """The agent's way to the API server; None: the pod's account."""
    trust_root: str
    """File with the root.json that the agent trusts."""
    kubelet_kubeconfig: str | None = None
    """The kubelet's way to the API server; None: the machine is outside Kubernetes."""
    namespace: str = NAMESPACE
    """Namespace of the install, which holds the agent's Lease."""
    boot_seconds: float = 1.0
    """From the request for a reboot until the OS is up, in which nothing runs."""
    hang_seconds: float = 3.0
    """How long the watchdog waits for an OS that hangs."""
    trial_seconds: float = 20.0
    """How long the trial's timer waits for an agent; it only runs while the slot is not marked good."""
    restart_seconds: float = 1.0
    """From the death of an agent until it is started again."""
    renew_seconds: float = 60.0
    """From one renewal of the agent's Lease to the next."""
    in_process: bool = False
    """Run the agent inside the machine's process, not in one of its own."""
    log_level: str = "INFO"
    """Level of the machine's and the agent's logs."""
    metrics_port: int = 0
    """Port of the agent's metrics on loopback; 0 serves none. Not for agents inside the machine's process."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read settings from JSON. Raises OSError, ValueError, TypeError for a field that is unknown or missing."""
        return cls(**json.loads(path.read_bytes()))

    def save(self, path: Path) -> None:
        """Write them as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1))


def machine_id_of(name: str) -> str:
    """The machine id that a machine of this name has: the same each time, as if its disk's ROOT had been kept."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def create_machine(
    folder: Path, release: SandboxRelease, *, machine_id: str, slot_bytes: int = SLOT_BYTES
) -> MachineFolder:
    """Install a machine: a disk with a release in slot A, marked good, and an empty slot B.

    machine_id: 32 hex digits. slot_bytes: room of each slot, a multiple of 1 MiB. Raises FileExistsError if the folder
    holds a machine already, OutOfRangeError if the image does not fit.
    """
    files = MachineFolder(folder)
    files.state.mkdir(parents=True, exist_ok=True)
    create_image(files.disk, usr_bytes=slot_bytes, root_bytes=ROOT_BYTES)
    boot = BootBlock.of(release.document, release.digest, platform.machine())
    size = fill_slot(files.disk, SlotName.A, release.image, boot.encode())
    files.machine_id.write_text(machine_id + "\n")
    document = files.state / "releases" / f"{release.digest.removeprefix('sha256:')}.json"
    document.parent.mkdir(exist_ok=True)
    write_durably(document, release.data, mode=PRIVATE)
    save_records(files.records, {SlotName.A: SlotRecord(release.digest, size, release.version)})
    save_journal(files.journal, Journal(machine_id))
    return files


def install_machine(folder: Path, name: str) -> MachineFolder:
    """Install the release that lies in FOLDER/install, as `careen release build` made it, unless that was done before.

    name: of the machine's Node, which its machine id is made from. Raises OSError, DiskError, ValueError for a document
    that is none.
    """
    files, build = MachineFolder(folder), folder / INSTALL
    if files.journal.exists():
        return files
    # The journal is written last: without it, an installation was cut short.
    files.disk.unlink(missing_ok=True)
    data = (build / DOCUMENT_NAME).read_bytes()
    release = SandboxRelease(parse_document(data), data, build / IMAGE_NAME)
    return create_machine(folder, release, machine_id=machine_id_of(name))


@dataclass(frozen=True)
class _Reboot:
    """Why the OS ended: by a request, or by a reset with a reason or without."""

    to: SlotName | None = None
    """Slot that kexec starts; None: through the firmware."""
    reset: Reset | None = None
    orderly: bool = False
    """Whether the OS had the time to say that it goes down."""


class Machine:
    """One machine's life. `run` goes on until it is cancelled, which is a power cut; everything of it is in its folder.

    http: a client that in-process agents share.
    """

    def __init__(self, settings: MachineSettings, *, http: aiohttp.ClientSession | None = None) -> None:
        self.settings = settings
        self.folder = MachineFolder(Path(settings.folder))
        self.boots: list[Booted] = []
        """All boots since this object was made."""
        self._http = http
        self._kubelet: Kubelet | None = None
        self._agent_session: Session | None = None
        self.agent: Child | None = None
        """The agent's process; None while there is none."""

    async def run(self) -> None:
        """Boot, run the OS until it ends, and again. Raises BootError when nothing boots."""
        async with self._connected():
            reboot = _Reboot()
            while True:
                reboot = await self._live(await in_thread(self._boot, reboot))
                logger.info("%s goes down: %s", self.settings.name, reboot)
                if self._kubelet and reboot.orderly:
                    await self._kubelet.say_down()
                await asyncio.sleep(self.settings.boot_seconds)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        """The machine's sessions; they outlive its boots, since a new TLS connection costs more than it shows."""
        settings, agent = self.settings, f"careen-machine/{__version__}"
        async with AsyncExitStack() as stack:
            if settings.kubelet_kubeconfig:
                session = Session.connect(Path(settings.kubelet_kubeconfig), user_agent=agent)
                identity = self.folder.machine_id.read_text().strip()
                self._kubelet = Kubelet(await stack.enter_async_context(session), settings.name, identity)
                stack.push_async_callback(self._kubelet.close)
            if settings.in_process:
                config = Path(settings.kubeconfig) if settings.kubeconfig else None
                session = Session.connect(config, user_agent=f"careen-agent/{__version__}")
                self._agent_session = await stack.enter_async_context(session)
            yield

    def _boot(self, reboot: _Reboot) -> Booted:
        folder = self.folder.path
        booted = kexec(folder, reboot.to) if reboot.to else power_on(folder, reset=reboot.reset)
        self.boots.append(booted)
        logger.info("%s boots: %s, fault %s", self.settings.name, booted.record, booted.fault)
        return booted

    async def _live(self, booted: Booted) -> _Reboot:
        """Be the OS until it ends."""
        if booted.fault is Fault.PANIC:
            return _Reboot(reset="Panic")
        if booted.fault is Fault.HANG:
            await asyncio.sleep(self.settings.hang_seconds)
            return _Reboot(reset="Watchdog")
        if self._kubelet:
            self._kubelet.say_ready(booted.record)
        deadman = asyncio.create_task(self._watch_trial(booted))
        agent = asyncio.create_task(self._run_agent(booted))
        try:
            await asyncio.wait({deadman, agent}, return_when=asyncio.FIRST_COMPLETED)
            if agent.done():
                return agent.result()
            return deadman.result()
        finally:
            for task in (deadman, agent):
                task.cancel()
            await asyncio.gather(deadman, agent, return_exceptions=True)

    async def _watch_trial(self, booted: Booted) -> _Reboot:
        """The timer that ends a trial without an agent. It does not run in the trial's user space."""
        await asyncio.sleep(self.settings.trial_seconds)
        if booted.good or self.folder.alive.exists():
            await asyncio.Event().wait()
        return _Reboot()

    async def _run_agent(self, booted: Booted) -> _Reboot:
        """Keep an agent running until one of them asks for a reboot."""
        if booted.fault is Fault.NO_AGENT:
            await asyncio.Event().wait()
        while True:
            if self._agent_session is not None:
                await self._run_inside(self._agent_session)
            else:
                await self._run_process()
            if request := self._read_request():
                return request
            await asyncio.sleep(self.settings.restart_seconds)

    async def _run_inside(self, session: Session) -> None:
        """Run an agent in this process until it ends in any way."""
        settings = Settings(self.settings.namespace, self.settings.renew_seconds)
        try:
            async with ImageHost(self.folder.path, Path(self.settings.trust_root), http=self._http) as host:
                await run_agent(host, session, self.settings.name, settings, open_folder_units(self.folder.path))
        except (DiskError, OSError) as error:
            logger.error("the agent of %s ended: %s", self.settings.name, error)

    async def _run_process(self) -> None:
        """Run an agent in a process of its own until it ends in any way."""
        command = [sys.executable, "-m", "careen", "agent", *self._agent_options()]
        child = await asyncio.to_thread(spawn, "agent", command, self.folder.path / "agent.log")
        self.agent = child
        try:
            await _wait_for_end(child.process.pid)
        except asyncio.CancelledError:
            kill([child])
            raise
        finally:
            self.agent = None
            stop([child], _AGENT_GRACE_SECONDS)
            child.process.wait(_AGENT_GRACE_SECONDS)

    def _agent_options(self) -> list[str]:
        settings = self.settings
        return [
            *("--host", "image", "--folder", settings.folder, "--node", settings.name),
            *(("--kubeconfig", settings.kubeconfig) if settings.kubeconfig else ()),
            *("--namespace", settings.namespace, "--no-boot"),
            *("--trust-root", settings.trust_root),
            *("--metrics-port", str(settings.metrics_port)),
            *("--renew-seconds", str(settings.renew_seconds), "--log-level", settings.log_level),
        ]

    def _read_request(self) -> _Reboot | None:
        try:
            request: dict[str, Any] = json.loads(self.folder.reboot.read_bytes())
        except FileNotFoundError:
            return None
        return _Reboot(SlotName(request["slot"]) if request["method"] == "Kexec" else None, orderly=True)

    def describe_slots(self) -> dict[str, str]:
        """The slots' attributes, for messages."""
        slots = read_slots(self.folder.disk)
        return {name.value: str(slots[name].attributes) for name in SlotName}


async def _wait_for_end(pid: int) -> None:
    """Wait until a child has ended, without a thread and without polling."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(fd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)


def main() -> None:
    """Be one machine, as the JSON file named on the command line says, until SIGTERM or SIGINT."""
    settings = MachineSettings.load(Path(sys.argv[1]))
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    run_machine(settings)


def run_machine(settings: MachineSettings) -> None:
    """Be one machine until SIGTERM or SIGINT; ends the process with a sentence when nothing boots."""
    with suppress(asyncio.CancelledError):
        asyncio.run(_run(settings))


async def _run(settings: MachineSettings) -> None:
    task = asyncio.current_task()
    for number in (signal.SIGTERM, signal.SIGINT):
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await Machine(settings).run()
    except BootError as error:
        sys.exit(f"{settings.name}: {error}")


if __name__ == "__main__":
    main()
