"""Pods as far as a drain sees them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that a drain has to move; DaemonSet, mirror and finished pods are not among them."""

    namespace: str
    name: str
    uid: str
    node: str
    deleting: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused eviction, remembered by the executor."""

    message: str
    not_before: float
    budget: tuple[str, str] | None = None
    """Namespace and name of the disruption budget that refused; None where the server named none."""
