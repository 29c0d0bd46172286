"""The agent's loop: look, decide, take one step, look again. It remembers only what `AgentView` may forget."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

from careen.disk.types import DiskError
from careen.kube.clock import boot_seconds
from careen.kube.errors import ApiError, Conflict, NotFound
from careen.kube.resources import NODES
from careen.kube.session import Session
from careen.kube.store import Change, Store
from careen.kube.write import TestFailed, patch_json, patch_merge

from .actions import (
    AbandonTrial,
    ArmSlot,
    Disarm,
    DropReset,
    InvalidateSlot,
    MarkGood,
    PrepareReset,
    RepairTable,
    RequestActivation,
    RequestReboot,
    StageImage,
    Step,
    VerifySlot,
    Wait,
    WriteJournal,
    WriteStatus,
    describe_step,
)
from .heartbeat import Heartbeat
from .host import Host, KexecRefusedError, RebootError
from .record import Fault, Moved
from .reminder import Reminder
from .report import report_fault
from .settings import Exit, Settings
from .staging.fault import StageError
from .step import current_order, next_step, report_progress, still_wanted
from .units.keeper import Keeper
from .units.systemd import UnitHost
from .view import AgentView, NodeView, Trouble, decode_node, next_trouble

logger = logging.getLogger(__name__)

MAX_API_PAUSE_SECONDS = 60.0
BLIND_SECONDS = 10.0
"""How soon a machine that can't be looked at is looked at again."""
REMINDER_SECONDS = 600.0
"""How often the log says of a machine that it still can't be looked at."""


async def run_agent(
    host: Host, session: Session, name: str, settings: Settings | None = None, units: UnitHost | None = None
) -> Exit:
    """Be the agent of the machine `name` until its host has accepted a request for a reboot.

    host: open. units: where the machine's units are kept; None: this machine holds none, and says nothing of them.
    Cancel it at any time; kill it at any time. Any number may run in one process. Raises only for bugs: a host that
    can't be looked at any more is reported, and asked again until it can.
    """
    agent = _Agent(host, session, name, settings or Settings(), units)
    async with agent.connected():
        return await agent.run()


class _Agent:
    def __init__(self, host: Host, session: Session, name: str, settings: Settings, units: UnitHost | None) -> None:
        self._host = host
        self._session = session
        self._name = name
        self._settings = settings
        self._wake = asyncio.Event()
        self._remade = asyncio.Event()
        self._store: Store[NodeView] = Store(
            session,
            NODES,
            decode=decode_node,
            field_selector=f"metadata.name={name}",
            on_change=self._note_change,
        )
        self._keeper = Keeper(units, session, name, self._store, settings.units) if units is not None else None
        self._granted: str | None = None
        self._request_failed: str | None = None
        self._kexec_refused: tuple[str, str] | None = None
        self._trouble: Trouble | None = None
        self._api_not_before = 0.0
        self._api_failures = 0
        self._moved: tuple[str, Moved] = ("", Moved())
        self._reported = -math.inf
        self._answer_noted = False
        self._blindness = Reminder(REMINDER_SECONDS)
        self._untold = Reminder(REMINDER_SECONDS)
        self._looked_at = boot_seconds()
        self._well_at: float | None = None
        self._asked_since: float | None = None

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Watch the Node, renew the Lease and keep the units meanwhile."""
        works = [self._store.run(), self._keep_lease(), self._sync()]
        if self._keeper is not None:
            works.append(self._keeper.run())
        tasks = [asyncio.create_task(work) for work in works]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def run(self) -> Exit:
        """Take steps until one of them is a reboot."""
        while True:
            self._wake.clear()
            try:
                view = await self._look()
            except (DiskError, OSError) as error:
                await self._tell_blindness(error)
                continue
            if self._blindness.forget():
                logger.info("%s: the machine can be looked at again", self._name)
            step = next_step(view)
            if not isinstance(step, Wait):
                told = {"node": self._name, "step": type(step).__name__}
                logger.info("%s: %s", self._name, describe_step(step, current_order(view)), extra=told)
            if isinstance(step, Wait):
                await self._pause(None if step.until is None else max(step.until - view.boot.uptime, 0.0))
            elif isinstance(step, WriteStatus | RequestActivation):
                await self._tell(step, view)
            elif await self._act(step, view) and isinstance(step, RequestReboot):
                return Exit(step.method, step.slot.value)

    async def _look(self) -> AgentView:
        self._looked_at = boot_seconds()
        sight = await self._host.look()
        if self._store.synced and not self._answer_noted:
            await self._host.note_api_answer()
            self._answer_noted = True
        if self._asked_since is None:
            self._asked_since = sight.boot.uptime
        if sight.unhealthy is None:
            self._well_at = sight.boot.uptime
        order, moved = self._moved
        view = AgentView(
            node=self._store.objects.get(("", self._name)),
            api_answered=sight.api_answered or self._answer_noted,
            journal=sight.journal,
            disk=sight.disk,
            boot=sight.boot,
            facts=sight.facts,
            unhealthy=sight.unhealthy,
            well_at=self._well_at,
            asked_since=self._asked_since,
            reset_prepared=sight.reset_prepared,
            granted=self._granted,
            request_failed=self._request_failed,
            kexec_refused=self._kexec_refused,
            trouble=self._trouble,
            api_not_before=self._api_not_before,
        )
        self._settings.observer.see(view)
        return replace(view, moved=moved if order == current_order(view) else Moved())

    async def _tell_blindness(self, error: DiskError | OSError) -> None:
        """Say that the machine can't be looked at, and wait a little. Nothing is done to it, and the phase stays."""
        if self._blindness.is_due(str(error), time.monotonic()):
            logger.error("%s: the machine can't be looked at, so nothing is done: %s", self._name, error)
        node = self._store.objects.get(("", self._name))
        step = report_fault(node, Fault("Disk", str(error))) if node else None
        try:
            if step is not None:
                self._store.apply(await self._merge_status(step))
                self._untold.forget()
        except ApiError as refusal:
            if self._untold.is_due(str(refusal), time.monotonic()):
                logger.warning("%s: that was not told: %s", self._name, refusal)
        await self._pause(BLIND_SECONDS)

    async def _pause(self, seconds: float | None) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _act(self, step: Step, view: AgentView) -> bool:
        """Take one step on the machine; whether it succeeded."""
        started, before = time.monotonic(), self._trouble
        done = await self._try(step, view)
        fault = self._trouble.fault.class_ if self._trouble and self._trouble is not before else "Boot"
        self._settings.observer.note_step(step, time.monotonic() - started, None if done else fault)
        return done

    async def _try(self, step: Step, view: AgentView) -> bool:
        try:
            await (self._stage(step) if isinstance(step, StageImage) else self._call(step))
        except RebootError as error:
            self._request_failed = str(error)
            self._note_trouble(step, view, Fault("Boot", str(error)))
        except KexecRefusedError as error:
            logger.warning("%s: no kexec: %s", self._name, error)
            self._kexec_refused = (current_order(view), str(error))
        except StageError as error:
            self._note_trouble(step, view, error.fault)
        except (DiskError, OSError) as error:
            self._note_trouble(step, view, Fault("Disk", str(error)))
        except Exception as error:
            # A bug, but an agent that ends leaves its machine in flight: show it, and go on slowly.
            logger.exception("%s: %s", self._name, describe_step(step, current_order(view)))
            self._note_trouble(step, view, Fault("Internal", f"{type(error).__name__}: {error}"))
        else:
            if self._trouble and self._trouble.action == type(step).__name__:
                self._trouble = None
            if isinstance(step, WriteJournal) and step.journal.open is None:
                # The failed request belongs to the order that has ended now.
                self._request_failed = None
            return True
        return False

    async def _call(self, step: Step) -> None:
        host = self._host
        match step:
            case WriteJournal(journal):
                await host.write_journal(journal)
            case InvalidateSlot(slot, image):
                await host.admit(image)
                await host.invalidate(slot)
            case VerifySlot():
                await host.verify(step)
            case ArmSlot(slot, method):
                await host.arm(slot, method)
            case Disarm(slot):
                await host.disarm(slot)
            case MarkGood(slot):
                await host.mark_good(slot)
            case AbandonTrial(slot):
                await host.abandon(slot)
            case RepairTable():
                await host.repair_table()
            case PrepareReset():
                await host.prepare_reset()
            case DropReset():
                await host.drop_reset()
            case RequestReboot(method, slot):
                await host.request_reboot(method, slot)
            case _:
                raise TypeError(f"no step of the machine: {step}")

    async def _stage(self, step: StageImage) -> None:
        """Stage, showing the progress, until it is done or nobody wants it any more."""
        self._moved = (step.order, Moved())
        work = asyncio.create_task(self._host.stage(step, lambda moved: self._note_progress(step, moved)))
        try:
            while not work.done():
                await self._wait_for(work)
                if work.done():
                    break
                if not still_wanted(await self._look(), step):
                    return
                await self._report_progress(step)
            work.result()
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _wait_for(self, work: asyncio.Task[None]) -> None:
        self._wake.clear()
        woken = asyncio.create_task(self._wake.wait())
        timeout = self._settings.progress_seconds
        await asyncio.wait({work, woken}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        woken.cancel()

    def _note_progress(self, step: StageImage, moved: Moved) -> None:
        self._moved = (step.order, moved)
        self._settings.observer.note_progress(step.order, moved)
        if self._trouble and not self._trouble.retrying:
            # The try before this one failed; now that bytes come, the status may say so.
            self._trouble = replace(self._trouble, retrying=True)
            self._reported = -math.inf
            self._wake.set()

    async def _report_progress(self, step: StageImage) -> None:
        if self._moved[1].done == 0 or time.monotonic() - self._reported < self._settings.progress_seconds * 0.9:
            return
        view = await self._look()
        write = report_progress(view, step, self._moved[1])
        self._reported = time.monotonic()
        if write and view.boot.uptime >= self._api_not_before:
            await self._tell(write, view)

    async def _tell(self, step: WriteStatus | RequestActivation, view: AgentView) -> None:
        """One write to the API server; its answer is what the next look sees."""
        timeout = self._settings.request_seconds
        answer: dict[str, Any] | TestFailed
        try:
            if isinstance(step, RequestActivation):
                answer = await patch_json(
                    self._session, NODES, self._name, step.patch, subresource="status", timeout=timeout
                )
                if isinstance(answer, TestFailed):
                    # Not granted. What has changed is seen before anything else is tried.
                    answer = await self._read_node()
                else:
                    self._granted = step.order
            else:
                answer = await self._merge_status(step)
        except ApiError as error:
            await self._note_refusal(step, view, error)
            return
        if isinstance(answer, dict):
            self._store.apply(answer)
        if isinstance(step, WriteStatus):
            self._reported = time.monotonic()
            node = self._store.objects.get(("", self._name))
            # Refused, and the answer older than what is known, as after a restore of etcd: the watch will tell.
            unsettled = node is not None and node.resource_version == step.resource_version
        else:
            unsettled = self._granted != step.order
        if unsettled:
            self._api_pause(view)
        elif isinstance(step, WriteStatus):
            self._api_failures = 0

    async def _merge_status(self, step: WriteStatus) -> dict[str, Any]:
        """The Node as written; where it has changed since it was seen, the Node as it is, to decide again on that."""
        body = {"metadata": {"uid": step.uid, "resourceVersion": step.resource_version}, "status": step.status}
        timeout = self._settings.request_seconds
        try:
            return await patch_merge(self._session, NODES, self._name, body, subresource="status", timeout=timeout)
        except Conflict:
            return await self._read_node()

    async def _read_node(self) -> dict[str, Any]:
        path = NODES.path(name=self._name)
        return (await self._session.request("GET", path, timeout=self._settings.request_seconds)).body

    async def _note_refusal(self, step: Step, view: AgentView, error: ApiError) -> None:
        logger.warning("%s: %s: %s", self._name, describe_step(step, current_order(view)), error)
        self._api_pause(view)
        if isinstance(error, NotFound) and view.node:
            self._store.forget("", self._name, view.node.uid)

    def _api_pause(self, view: AgentView) -> None:
        self._api_failures += 1
        pause = min(2.0 ** min(self._api_failures - 1, 16), MAX_API_PAUSE_SECONDS)
        self._api_not_before = self._uptime(view) + pause * random.uniform(0.5, 1.0)

    def _note_trouble(self, step: Step, view: AgentView, fault: Fault) -> None:
        order, action, now = current_order(view), type(step).__name__, self._uptime(view)
        jitter = random.uniform(-1, 1)
        self._trouble = next_trouble(self._trouble, order, action, fault, now=now, jitter=jitter)
        what = f"{action} for {order}" if order else action
        logger.warning("%s: %s failed: %s: %s", self._name, what, fault.class_, fault.message)

    def _uptime(self, view: AgentView) -> float:
        """The view's clock now: a pause begins when a try has failed, and a try may have taken long."""
        return view.boot.uptime + max(0.0, boot_seconds() - self._looked_at)

    def _note_change(self, change: Change[NodeView]) -> None:
        self._wake.set()
        if self._keeper is not None:
            self._keeper.wake()
        if change.old is None or change.new is None or change.old.uid != change.new.uid:
            self._remade.set()

    async def _sync(self) -> None:
        """Wake the loop when the API server has answered, also if it has no such Node."""
        while not self._store.synced:
            with suppress(TimeoutError):
                await self._store.wait_synced(3600)
        self._wake.set()

    def _note_renewal(self, done: bool) -> None:
        self._settings.observer.note_renewal(done)
        if boot_seconds() - self._looked_at >= self._settings.look_seconds:
            self._wake.set()

    async def _keep_lease(self) -> None:
        def find_uid() -> str | None:
            node = self._store.objects.get(("", self._name))
            return node.uid if node is not None else None

        settings = self._settings
        heartbeat = Heartbeat(
            self._session,
            settings.namespace,
            self._name,
            settings.renew_seconds,
            settings.request_seconds,
            self._note_renewal,
        )
        await heartbeat.keep(find_uid, self._remade)
