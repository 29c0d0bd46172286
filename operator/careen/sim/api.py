"""The API server in memory: uids, resource versions, generations, preconditions, and the rules of the CRDs on orders.

Documents are never changed in place, so every store and every agent may keep the version that it saw.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import cached_property
from typing import Any

from careen.agent.step import NodeView, decode_node
from careen.api.node import FROZEN
from careen.core import decode
from careen.core.instants import format_instant
from careen.core.unitdocs import decode_unit

from .schedule import BrokenError, Schedule

Document = dict[str, Any]
KINDS = ("Node", "CoreNode", "Pod", "UpdatePolicy", "RebootLock", "Unit")
AGENTS_STATUS = frozenset(
    ("slots", "booted", "bootID", "bootMethod", "bootDecision", "architecture", "machineID", "protocol", "osImage",
     "kernel", "kernelStarted", "agentVersion", "agentStarted", "step", "rejected")
)  # fmt: skip
"""What an agent may write: kept here by hand, so that a slip of the models does not pass unseen."""
_DECODERS: dict[str, Callable[[Document], Any]] = {
    "Node": decode.decode_machine,
    "Unit": decode_unit,
    "CoreNode": decode.decode_core_node,
    "Pod": decode.decode_pod,
    "UpdatePolicy": decode.decode_policy,
    "RebootLock": decode.decode_lock,
}
_CLIMBS = {("Stage", "Activate"), ("Activate", "Commit")}


class Refused(StrEnum):
    """Why a write was not accepted."""

    NOT_FOUND = "not found"
    CONFLICT = "conflict"
    EXISTS = "already exists"
    DOWN = "no answer"
    BUDGET = "the disruption budget allows no more"


class Item:
    """One version of one object."""

    def __init__(self, kind: str, doc: Document) -> None:
        meta = doc["metadata"]
        self.kind, self.doc = kind, doc
        self.name: str = meta["name"]
        self.uid: str = meta["uid"]
        self.version = int(meta["resourceVersion"])

    @property
    def spec(self) -> Document:
        """Its spec."""
        spec: Document = self.doc["spec"]
        return spec

    @property
    def status(self) -> Document:
        """Its status; empty while there is none."""
        status: Document = self.doc.get("status") or {}
        return status

    @cached_property
    def value(self) -> Any:
        """What the core's decoder makes of it."""
        return _DECODERS[self.kind](self.doc)

    @cached_property
    def node_view(self) -> NodeView:
        """What the agent's decoder makes of it."""
        view = decode_node(self.doc)
        if view.unreadable:
            raise BrokenError(f"an order that the agent can't read was accepted: {view.unreadable}")
        return view


Listener = Callable[[Item | None, Item | None, str], None]


class Api:
    """All objects. `listeners` hear of each change: the version before, the version after, and who wrote it."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._version = 100
        self._uids = 0
        self.down = False
        self.objects: dict[str, dict[str, Item]] = {kind: {} for kind in KINDS}
        self.listeners: list[Listener] = []

    def get(self, kind: str, name: str) -> Item | None:
        """The object as it is."""
        return self.objects[kind].get(name)

    def create(self, kind: str, name: str, by: str, **parts: Any) -> Item | Refused:
        """Make an object from its spec, status, labels and annotations."""
        if name in self.objects[kind]:
            return Refused.EXISTS
        self._uids += 1
        meta = {"name": name, "uid": f"{kind.lower()}-uid-{self._uids}", "generation": 1}
        meta |= {"creationTimestamp": format_instant(self._schedule.now), "namespace": "apps"}
        meta |= {key: parts.pop(key) for key in ("labels", "annotations") if key in parts}
        return self._keep(kind, None, {"metadata": meta, **parts}, by)

    def update(
        self,
        kind: str,
        name: str,
        change: Callable[[Document], Document],
        *,
        by: str,
        uid: str | None = None,
        version: str | None = None,
    ) -> Item | Refused:
        """Replace an object by what `change` makes of it, if it still has this uid and resource version."""
        before = self.objects[kind].get(name)
        if before is None:
            return Refused.NOT_FOUND
        if (uid is not None and before.uid != uid) or (version is not None and str(before.version) != version):
            return Refused.CONFLICT
        after = change(before.doc)
        if after == before.doc:
            return before
        if kind == "Node":
            _check_order(before.spec.get("assignment"), after["spec"].get("assignment"))
        if kind == "UpdatePolicy" and before.status.get("rollout") and not after["status"].get("rollout"):
            raise BrokenError(f"the rollout of policy {name} was forgotten by {by}")
        return self._keep(kind, before, after, by)

    def delete(self, kind: str, name: str, by: str, *, uid: str | None = None) -> Item | Refused:
        """Delete an object, if it still has this uid."""
        before = self.objects[kind].get(name)
        if before is None or (uid is not None and before.uid != uid):
            return Refused.NOT_FOUND
        self._version += 1
        del self.objects[kind][name]
        self._tell(before, None, by)
        return before

    def _keep(self, kind: str, before: Item | None, doc: Document, by: str) -> Item:
        self._version += 1
        meta = {**doc["metadata"], "resourceVersion": str(self._version)}
        if before is not None and before.doc.get("spec") != doc.get("spec"):
            meta["generation"] = before.doc["metadata"]["generation"] + 1
        item = Item(kind, {**doc, "metadata": meta})
        self.objects[kind][item.name] = item
        self._tell(before, item, by)
        return item

    def _tell(self, before: Item | None, after: Item | None, by: str) -> None:
        for listener in self.listeners:
            listener(before, after, by)

    @property
    def version(self) -> int:
        """The newest resource version."""
        return self._version


def _check_order(old: Document | None, new: Document | None) -> None:
    """The CEL rules of Assignment: who breaks one would be refused by the API server for ever."""
    if new is None or new == old:
        return
    if ("cause" in new) != (new["goal"] == "Abort"):
        raise BrokenError(f"an order needs a cause with goal Abort, and with no other: {new}")
    if new["goal"] == "Stage" and "fromBootID" in new:
        raise BrokenError(f"goal Stage with fromBootID: {new}")
    if ("release" in new) == ("request" in new) or ("release" in new and not {"policy", "rollout"} <= set(new)):
        raise BrokenError(f"an order needs either a release, with policy and rollout, or a request: {new}")
    if old is None or old["id"] != new["id"]:
        return
    if old["goal"] != new["goal"] and new["goal"] != "Abort" and (old["goal"], new["goal"]) not in _CLIMBS:
        raise BrokenError(f"order {new['id']} went from goal {old['goal']} to {new['goal']}")
    changed = [name for name in FROZEN if old.get(name) != new.get(name)]
    if changed:
        raise BrokenError(f"order {new['id']} changed its {', '.join(changed)}")


def set_path(doc: Document, path: Sequence[str], value: Any) -> Document:
    """A document with one value set, by its path; None takes it away."""
    key, *rest = path
    made = dict(doc)
    if rest:
        made[key] = set_path(doc.get(key) or {}, rest, value)
    elif value is None:
        made.pop(key, None)
    else:
        made[key] = value
    return made


def merge(doc: Mapping[str, Any], patch: Mapping[str, Any]) -> Document:
    """A merge patch (RFC 7386)."""
    made = dict(doc)
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        elif isinstance(value, Mapping):
            made[key] = merge(made.get(key) or {}, value)
        else:
            made[key] = value
    return made


def patch_json(doc: Document, ops: Sequence[Mapping[str, Any]]) -> Document | None:
    """A JSON patch of the operations test and add; None when a test fails."""
    for op in ops:
        path = op["path"].strip("/").split("/")
        if op["op"] == "add":
            doc = set_path(doc, path, op["value"])
            continue
        found: Any = doc
        for key in path:
            found = found.get(key) if isinstance(found, Mapping) else None
        if found != op["value"]:
            return None
    return doc
