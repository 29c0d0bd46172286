"""What a fleet of virtual machines is asked, and told, through its API server."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from careen.api.meta import API_VERSION
from careen.sandbox.client import Api, ApiError, Manifest, wait_until
from careen.sandbox.up import OUR_NODES, OUR_POLICIES

from .machine import Machine

POLICY = "os"


class Fleet(ABC):
    """Machines of a cluster, under one policy."""

    @property
    @abstractmethod
    def api(self) -> Api:
        """A client with the administrator's rights."""

    @property
    @abstractmethod
    def repository(self) -> str:
        """URL of the releases, as both this host and the machines reach it."""

    @abstractmethod
    def __getitem__(self, name: str) -> Machine:
        """A machine by its name."""

    def ask_for(self, version: str, **spec: Any) -> None:
        """Let the policy ask for a version; spec: more of the policy's spec."""
        wanted = {"release": {"repository": self.repository, "version": version}, **spec}
        document = {
            "apiVersion": API_VERSION,
            "kind": "UpdatePolicy",
            "metadata": {"name": POLICY},
            "spec": wanted,
        }
        try:
            self.api.create(OUR_POLICIES, document)
        except ApiError as error:
            if error.status != 409:
                raise
            self.api.patch(f"{OUR_POLICIES}/{POLICY}", {"spec": wanted})

    def node(self, name: str) -> Manifest:
        """A machine's Node; an empty document while there is none."""
        return self.api.find(f"{OUR_NODES}/{name}") or {}

    def status(self, name: str) -> dict[str, Any]:
        """Status of a machine's Node."""
        found = self.node(name).get("status", {})
        assert isinstance(found, dict)
        return found

    def policy(self) -> Manifest:
        """The policy."""
        return self.api.get(f"{OUR_POLICIES}/{POLICY}")

    def condition(self, kind: str) -> dict[str, Any] | None:
        """A condition of the policy."""
        conditions = self.policy().get("status", {}).get("conditions", [])
        return next((found for found in conditions if found["type"] == kind), None)

    def wait_reported(self, name: str, seconds: float) -> None:
        """Wait until a machine's agent has said what runs."""
        self._wait(name, lambda status: bool(status.get("bootID")), "reported", seconds)

    def wait_progress(self, name: str, seconds: float) -> dict[str, Any]:
        """Wait until a machine has written some of a release; returns the Node's status."""

        def begun(status: dict[str, Any]) -> bool:
            progress = (status.get("step") or {}).get("progress") or {}
            return any(progress.get(key) for key in ("bytesReused", "bytesFetched", "bytesSkipped"))

        return self._wait(name, begun, "writing a release", seconds)

    def wait_error(self, name: str, word: str, seconds: float) -> dict[str, Any]:
        """Wait until a machine shows an error of this class; returns the Node's status."""

        def shown(status: dict[str, Any]) -> bool:
            return bool(((status.get("step") or {}).get("error") or {}).get("class") == word)

        return self._wait(name, shown, f"showing an error of class {word}", seconds)

    def request(self, name: str, action: str) -> None:
        """Ask a machine for a reboot or reset, as `careen reboot` and `careen reset` do."""
        wanted = {"action": action, "id": f"{action.lower()}-{time.time_ns():x}"}
        self.api.patch(f"{OUR_NODES}/{name}", {"spec": {"request": wanted}})

    def wait_boot(self, name: str, last: str, seconds: float) -> dict[str, Any]:
        """Wait until a machine's agent reports another boot than `last`; returns the Node's status."""
        return self._wait(name, lambda status: status.get("bootID") not in (None, "", last), "booted anew", seconds)

    def wait_phase(self, name: str, phases: tuple[str, ...], version: str, seconds: float) -> dict[str, Any]:
        """Wait until a machine's order for a version is in one of these phases; returns the Node's status."""

        def reached(status: dict[str, Any]) -> bool:
            order = self.node(name).get("spec", {}).get("assignment") or {}
            step = status.get("step") or {}
            return (
                order.get("release", {}).get("version") == version
                and step.get("id") == order.get("id")
                and step.get("phase") in phases
            )

        return self._wait(name, reached, f"in phase {' or '.join(phases)} of {version}", seconds)

    def wait_condition(self, kind: str, seconds: float) -> dict[str, Any]:
        """Wait until a condition of the policy is True, and return it."""

        def holds() -> dict[str, Any] | None:
            found = self.condition(kind)
            return found if found is not None and found["status"] == "True" else None

        return wait_until(holds, f"{kind} of policy {POLICY}", seconds, pause=0.5)

    def _wait(self, name: str, reached: Callable[[dict[str, Any]], bool], what: str, seconds: float) -> dict[str, Any]:
        try:
            return wait_until(
                lambda: status if reached(status := self.status(name)) else None, f"{name} {what}", seconds, pause=0.5
            )
        except TimeoutError as error:
            shown = f"{self.node(name)}\n{self[name].console.tail()}"
            raise TimeoutError(f"{error}\n{shown}") from None
