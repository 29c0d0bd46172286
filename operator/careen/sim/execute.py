"""The executor's writes, one for each action, with the preconditions that the operator's own executor sends."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from careen.api.meta import CORDONED_ANNOTATION
from careen.core.actions import (
    Action,
    Cordon,
    CreateNode,
    DeleteNode,
    Evict,
    RekeyNode,
    SetOrder,
    SetUnits,
    Uncordon,
    WriteLock,
    WriteNote,
    WriteOutcome,
    WritePolicy,
    WriteUnit,
)
from careen.core.encode import encode_lock_status, encode_note, encode_order, encode_outcome, encode_policy_status
from careen.core.snapshot import Policy
from careen.core.unitdocs import encode_holdings, encode_unit_status

from .api import Api, Item, Refused, merge, set_path

if TYPE_CHECKING:
    from .workload import Workload

OPERATOR = "operator"


def perform(action: Action, policy: Policy | None, api: Api, workload: Workload, now: float) -> Item | Refused:
    """Do what the action says; `policy` is the planned policy of a WritePolicy."""
    match action:
        case CreateNode():
            core = {"uid": action.core_uid, "machineID": action.machine_id}
            return api.create("Node", action.name, OPERATOR, spec={"coreNode": core}, status={})
        case DeleteNode():
            return api.delete("Node", action.name, OPERATOR, uid=action.uid)
        case RekeyNode():
            core = {"uid": action.core_uid, "machineID": action.machine_id}
            return _set(api, "Node", action, ("spec", "coreNode"), core)
        case SetOrder():
            return _set(api, "Node", action, ("spec", "assignment"), encode_order(action.order))
        case WriteLock():
            return write_lock(api, action, now)
        case Cordon():
            return _mark(api, action, action.order, {"unschedulable": True})
        case Uncordon():
            return _mark(api, action, None, {"unschedulable": None} if action.schedulable else {})
        case Evict():
            return workload.evict(action.name, action.uid)
        case WriteNote():
            machine = api.get("Node", action.name)
            if machine is None:
                return Refused.NOT_FOUND
            patch = {"status": encode_note(machine.value, action, now)}
            merged = partial(merge, patch=patch)
            return api.update("Node", action.name, merged, by=OPERATOR, uid=action.uid, version=action.resource_version)
        case WriteOutcome():
            return _set(api, "Node", action, ("status", "request"), encode_outcome(action, now)["request"])
        case WritePolicy():
            assert policy is not None
            return _set(api, "UpdatePolicy", action, ("status",), encode_policy_status(policy, action.state, now))
        case WriteUnit():
            unit = api.get("Unit", action.name)
            if unit is None:
                return Refused.NOT_FOUND
            return _set(api, "Unit", action, ("status",), encode_unit_status(unit.value, action.state, now))
        case SetUnits():
            return _set(api, "Node", action, ("spec", "units"), encode_holdings(action.holdings))


def write_lock(api: Api, action: WriteLock, now: float) -> Item | Refused:
    """The compare-and-swap on a lock."""
    lock = api.get("RebootLock", action.name)
    if lock is None:
        return Refused.NOT_FOUND
    return _set(api, "RebootLock", action, ("status",), encode_lock_status(lock.value, action, now))


def _set(api: Api, kind: str, action: Any, path: tuple[str, ...], value: Any) -> Item | Refused:
    return api.update(
        kind,
        action.name,
        lambda doc: set_path(doc, path, value),
        by=OPERATOR,
        uid=action.uid,
        version=action.resource_version,
    )


def _mark(api: Api, action: Cordon | Uncordon, order: str | None, spec: dict[str, Any]) -> Item | Refused:
    patch = {"metadata": {"annotations": {CORDONED_ANNOTATION: order}}, "spec": spec}
    return api.update(
        "CoreNode",
        action.name,
        lambda doc: merge(doc, patch),
        by=OPERATOR,
        uid=action.uid,
        version=action.resource_version,
    )
