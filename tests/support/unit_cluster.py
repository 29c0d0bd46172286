"""A cluster with units: the operator's writes, the API server's preconditions, and agents that do as they are told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from careen.api.held import MOST_UNITS, UnitOrder
from careen.api.unit import UnitStatus
from careen.core.actions import Action, Plan, SetUnits, WriteUnit
from careen.core.holdings import REMOVED
from careen.core.plan import make_plan
from careen.core.roster import Roster
from careen.core.snapshot import Snapshot
from careen.core.unitdocs import decode_machine_units, decode_unit, encode_holdings, encode_unit_status
from small_cluster import NOW, Cluster

CONTENT = "[Service]\nExecStart=/bin/sleep 1\n"
UNIT_WRITES = (WriteUnit, SetUnits)


class UnitCluster(Cluster):
    """Units and what machines hold of them are documents, as at the API server; all else are plain values."""

    def __init__(self) -> None:
        super().__init__()
        self.documents: dict[str, dict[str, Any]] = {}
        self.held: dict[str, dict[str, Any]] = {}
        self.agents: dict[str, dict[str, dict[str, Any]]] = {}
        """What really is on each machine."""
        self.roster: Roster | None = Roster()
        self.writes: list[Action] = []
        self.units: dict[str, Any] = {}
        self._version = 100
        self._made = 0

    def add_machines(self, count: int, **changes: Any) -> None:
        """Machines m1, m2, …, none of which holds anything."""
        for number in range(1, count + 1):
            self.add(f"m{number}", **changes)
            self.boot(f"m{number}")

    def boot(self, name: str) -> None:
        """The machine holds nothing yet, and reports nothing."""
        self.held.setdefault(name, {"spec": {}, "status": {}})
        self.agents.setdefault(name, {})
        self._renew(name)

    def describe(self, name: str, **spec: Any) -> None:
        """Fields of a Node's spec: metadata, unitCapacity."""
        self.held[name]["spec"].update(spec)
        self._renew(name)

    def set_unit(self, unit: str, /, *, options: str = "", state: str = "launched", **spec: Any) -> None:
        """Make or change a Unit. options: lines of [X-Fleet]."""
        content = spec.pop("content", CONTENT) + (f"[X-Fleet]\n{options}\n" if options else "")
        known = self.documents.get(unit)
        self._made += known is None
        meta = known["metadata"] if known else {"name": unit, "uid": f"uid-{unit}-{self._made}", "generation": 0}
        meta = {"creationTimestamp": f"2026-01-01T00:00:{self._made:02}Z", **meta}
        meta["generation"] += 1
        document = {"metadata": meta, "spec": {"content": content, "desiredState": state, **spec}}
        self._store(unit, {**document, "status": known["status"]} if known and "status" in known else document)

    def drop_unit(self, name: str) -> None:
        del self.documents[name], self.units[name]

    def _store(self, name: str, document: dict[str, Any]) -> None:
        self._version += 1
        meta = {**document["metadata"], "resourceVersion": str(self._version)}
        self.documents[name] = {**document, "metadata": meta}
        self.units[name] = decode_unit(self.documents[name])

    def _renew(self, name: str) -> None:
        self._version += 1
        held = self.held[name]
        self.change(name, units=decode_machine_units(held["spec"], held["status"]), resource_version=str(self._version))

    def snapshot(self) -> Snapshot:
        return replace(super().snapshot(), units=dict(self.units), machines=dict(self.machines))

    def plan(self) -> Plan:
        return make_plan(self.snapshot(), self.at, self.roster)

    def apply(self, action: Action) -> bool:
        """Carry an action out, if its precondition holds."""
        match action:
            case WriteUnit():
                unit = self.units.get(action.name)
                if unit is None or (unit.uid, unit.resource_version) != (action.uid, action.resource_version):
                    return False
                status = encode_unit_status(unit, action.state, self.at)
                UnitStatus.model_validate(status)
                self._store(action.name, {**self.documents[action.name], "status": status})
            case SetUnits():
                machine = self.machines.get(action.name)
                if machine is None or (machine.uid, machine.resource_version) != (action.uid, action.resource_version):
                    return False
                units = encode_holdings(action.holdings)
                assert len(units) == len([UnitOrder.model_validate(each) for each in units]) <= MOST_UNITS
                self.held[action.name]["spec"]["units"] = units
                self._renew(action.name)
            case _:
                raise AssertionError(f"{action} is not of units")
        self.writes.append(action)
        return True

    def obey(self, name: str, only: Callable[[str], bool] = lambda _: True) -> None:
        """The agent does what its Node says, and reports it. only: the units that it gets to."""
        held, there = self.held[name], self.agents[name]
        orders = {order["name"]: order for order in held["spec"].get("units", ())}
        before = held["status"].get("units", [])
        reports = {report["name"]: report for report in before if report["name"] in orders or report["name"] in there}
        for unit, order in orders.items():
            if not only(unit):
                continue
            reports[unit] = self._follow(there, unit, order)
        for unit, real in there.items():
            reports.setdefault(unit, _report(unit, real["hash"], real["launched"]))
        made = [reports[unit] for unit in sorted(reports)]
        if made != before:
            held["status"]["units"] = made
            self._renew(name)

    @staticmethod
    def _follow(there: dict[str, dict[str, Any]], unit: str, order: dict[str, Any]) -> dict[str, Any]:
        if order["desiredState"] == REMOVED:
            there.pop(unit, None)
            return _report(unit, None, False)
        launched = order["desiredState"] == "launched"
        there[unit] = {"hash": order["hash"], "launched": launched}
        return _report(unit, order["hash"], launched)

    def step(self) -> None:
        """One plan, and all of its writes of units."""
        for action in self.plan().actions:
            if isinstance(action, UNIT_WRITES):
                self.apply(action)

    def leave(self, *machines: str) -> None:
        """People hold the lock for these machines: they are to be left."""
        self.set_lock(*machines, limit=9)

    def told(self, machine: str) -> dict[str, str]:
        """What a machine is to hold: desired states by unit."""
        return {unit["name"]: unit["desiredState"] for unit in self.held[machine]["spec"].get("units", [])}

    def placements(self, unit: str) -> list[tuple[str, bool]]:
        """The stored decision: machines, and whether they are being left."""
        return [(place["node"], place["leaving"]) for place in self.documents[unit]["status"]["placements"]]

    def settle(self, rounds: int = 30, machines: Iterable[str] | None = None) -> int:
        """Plan, write and obey until nothing is left to do; how many writes of units that took."""
        before = len(self.writes)
        for _ in range(rounds):
            actions = [action for action in self.plan().actions if isinstance(action, UNIT_WRITES)]
            states = {name: str(held["status"]) for name, held in self.held.items()}
            for action in actions:
                self.apply(action)
            for name in list(machines if machines is not None else self.held):
                self.obey(name)
            if not actions and states == {name: str(held["status"]) for name, held in self.held.items()}:
                return len(self.writes) - before
        raise AssertionError(f"no rest after {rounds} rounds: {actions}")

    def where(self, unit: str) -> list[str]:
        """Machines on which the unit really is, launched or loaded."""
        return sorted(name for name, there in self.agents.items() if unit in there)

    def condition(self, name: str, kind: str) -> tuple[str, str, str]:
        """(status, reason, message) of a condition of a Unit."""
        found = self.documents[name]["status"]["conditions"]
        return next((c["status"], c["reason"], c["message"]) for c in found if c["type"] == kind)


def _report(unit: str, digest: str | None, launched: bool) -> dict[str, Any]:
    running = {"load": "loaded", "active": "active", "sub": "running"}
    stopped = {"load": "loaded" if digest else "not-found", "active": "inactive", "sub": "dead"}
    made = {"name": unit, **(running if launched else stopped), "launched": launched}
    return made | ({"hash": digest} if digest else {})


__all__ = ["CONTENT", "NOW", "UNIT_WRITES", "UnitCluster"]
