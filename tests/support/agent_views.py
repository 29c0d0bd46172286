"""What an agent sees: a machine before, on and after a trial, and how its next step is asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from careen.agent.record import Ended, Fault, Journal, OpenOrder, Stage
from careen.agent.step import (
    AgentView,
    BootView,
    DiskView,
    HostFacts,
    SlotView,
    StageImage,
    Step,
    Trouble,
    WriteJournal,
    WriteStatus,
    decode_node,
    next_step,
)
from careen.agent.view import BootDecision
from careen.disk.types import GIVEN_UP, Attributes, SlotName

OLD, NEW = "sha256:" + "a" * 64, "sha256:" + "b" * 64
GOOD = Attributes(1, 0, True)
TRIAL = Attributes(2, 0, False)
A, B = SlotName.A, SlotName.B
DECISION = BootDecision("Kexec", "Supported", "it can", "TrialTimer")

PLACE = ("http://r/x/", "2.img")
IMAGE = StageImage("order-1", B, *PLACE, NEW, 100, "2.0.0")


def progress(fetched: int) -> dict[str, int]:
    return {"bytesTotal": 100, "bytesReused": 0, "bytesFetched": fetched, "bytesSkipped": 0}


def order_document(goal: str = "Stage", **changes: Any) -> dict[str, Any]:
    release = {"repository": "http://r/x/", "version": "2.0.0", "digest": NEW, "sizeBytes": 100, "path": "2.img"}
    terms = {
        "lock": "default",
        "readySeconds": 0,
        "verifyTimeoutSeconds": 60,
        "commitTimeoutSeconds": 300,
        "onSilence": changes.pop("on_silence", "Rollback"),
        "bootMethod": changes.pop("boot_method", "Auto"),
        "drainTimeoutSeconds": 60,
    }
    release.update(changes.pop("release", {}))
    document = {"id": "order-1", "policy": {"name": "p", "uid": "p"}, "rollout": "1", "release": release, "goal": goal}
    if goal != "Stage":
        document["fromBootID"] = "boot-1"
    return {**document, "terms": terms, **changes}


def node(assignment: dict[str, Any] | None, *, status: dict[str, Any] | None = None, retry: int = 0) -> Any:
    metadata = {"name": "m", "uid": "uid-1", "resourceVersion": "7"}
    spec: dict[str, Any] = {"retry": retry}
    if assignment:
        spec["assignment"] = assignment
    return decode_node({"metadata": metadata, "spec": spec, "status": status or {}})


def slot_a(**changes: Any) -> SlotView:
    return replace(SlotView(3, 4096, GOOD, OLD, "1.0.0"), **changes)


def slot_b(**changes: Any) -> SlotView:
    return replace(SlotView(4, 4096, GIVEN_UP), **changes)


STAGED = slot_b(digest=NEW, version="2.0.0", checked="stage")
CHECKED = slot_b(digest=NEW, version="2.0.0", checked="order-1")


def old_boot(assignment: dict[str, Any] | None = None, **changes: Any) -> AgentView:
    """Slot A runs, as before the order."""
    view = AgentView(
        node=node(assignment),
        api_answered=True,
        journal=Journal("m-id", boots=("boot-1", "boot-2")),
        disk=DiskView(A, slot_a(), slot_b()),
        boot=BootView("boot-1", "m-id", uptime=1000.0),
        facts=HostFacts("x86_64", "OS 1", "6.1", "0.1.0", kexec=True, boot_decision=DECISION),
    )
    return replace(view, **changes)


def opened(**changes: Any) -> OpenOrder:
    base = OpenOrder("order-1", NEW, "2.0.0", A, B, "boot-1", "Kexec", 0, 300, "Rollback", Stage.REQUESTED)
    return replace(base, **changes)


def with_open(**changes: Any) -> Journal:
    return Journal("m-id", boots=("boot-1", "boot-2"), open=opened(**changes))


def trial_boot(assignment: dict[str, Any] | None, **changes: Any) -> AgentView:
    """Slot B runs on trial."""
    base = {
        "journal": with_open(),
        "disk": DiskView(B, slot_a(), slot_b(digest=NEW, version="2.0.0", attributes=TRIAL)),
        "boot": BootView("boot-2", "m-id", "Kexec", uptime=10.0),
    }
    return old_boot(assignment, **(base | changes))


def returned(assignment: dict[str, Any] | None, journal: Journal | None = None, **changes: Any) -> AgentView:
    """Slot A runs again, in a later boot."""
    base = {
        "journal": journal or with_open(),
        "disk": DiskView(A, slot_a(), slot_b(digest=NEW, version="2.0.0")),
        "boot": BootView("boot-2", "m-id", uptime=10.0),
    }
    return old_boot(assignment, **(base | changes))


def settle(view: AgentView) -> tuple[AgentView, Step]:
    """The view once the status is up to date, and the step that comes then."""
    for _ in range(3):
        step = next_step(view)
        if not isinstance(step, WriteStatus):
            return view, step
        view = told(view, step)
    raise AssertionError(f"the status never settles: {step}")


def told(view: AgentView, write: WriteStatus) -> AgentView:
    assert view.node is not None
    return replace(view, node=replace(view.node, status=merge(view.node.status, write.status)))


def merge(target: Any, patch: Any) -> Any:
    result = dict(target)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key, {}), value) if isinstance(value, dict) else value
    return result


def shown(view: AgentView) -> dict[str, Any]:
    """status.step once the status is up to date."""
    after = settle(view)[0].node
    assert after is not None
    return dict(after.step)


def quiet(view: AgentView) -> AgentView:
    """The same view, with a status that is up to date."""
    return settle(view)[0]


def closed(step: Step) -> Ended:
    """The end that a step writes into the journal."""
    assert isinstance(step, WriteJournal), step
    assert step.journal.open is None
    return step.journal.ended[-1]


def failed(failures: int, *, not_before: float = 1004.0, retrying: bool = False, order: str = "order-1") -> Trouble:
    return Trouble(order, "StageImage", Fault("Transfer", "short"), failures, not_before, retrying)
