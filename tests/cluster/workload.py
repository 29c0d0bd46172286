"""A Deployment under a disruption budget on the real nodes, and what was seen of it and of them during a rollout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from careen.sandbox.client import wait_until
from careen.sandbox.nodes import NODES, create_workload, is_ready, workload_manifests
from testos.node.cluster import Cluster
from testos.node.evidence import PodSeen
from testos.node.pods import BUSYBOX

NAME = "web"
PODS, NEEDED = 2, 1
GRACE_SECONDS = 5
PODS_SECONDS = 120.0


@dataclass
class Seen:
    """What was seen by looking every half second."""

    down: set[frozenset[str]] = field(default_factory=set)
    """Sets of nodes that were not ready or cordoned at once."""
    fewest: int = PODS
    """Fewest pods that were ready."""
    places: dict[str, str] = field(default_factory=dict)
    """Node by the UID of each pod that was ready at some time."""

    @property
    def most_down(self) -> int:
        """Most nodes that were down at once."""
        return max(map(len, self.down), default=0)


class Workload:
    """The Deployment."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def create(self) -> None:
        """Make it, and wait until all its pods run."""
        deployment, budget = workload_manifests(NAME, PODS, NEEDED, grace_seconds=GRACE_SECONDS)
        pod = deployment["spec"]["template"]["spec"]
        # Without a network for pods, they are in the node's own.
        pod |= {"hostNetwork": True, "automountServiceAccountToken": False}
        pod["containers"][0] |= {"image": BUSYBOX, "imagePullPolicy": "Never"}
        create_workload(self._cluster.api, [deployment, budget])
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until all pods run."""
        wait_until(lambda: len(self.ready) == PODS, f"{PODS} pods of {NAME} ready", PODS_SECONDS, 0.5)

    @property
    def ready(self) -> list[PodSeen]:
        """Pods that run now and are not being deleted."""
        pods = (PodSeen.of(pod) for pod in self._cluster.find_pods({"app": NAME}))
        return [pod for pod in pods if pod.ready]

    def watch(self, check: Callable[[], Any], what: str, seconds: float) -> Seen:
        """Look at pods and nodes until `check` is true. Raises TimeoutError."""
        seen = Seen()

        def look() -> Any:
            ready = self.ready
            seen.fewest = min(seen.fewest, len(ready))
            seen.places |= {pod.uid: pod.node for pod in ready}
            nodes = self._cluster.api.items(NODES)
            away = (n for n in nodes if not is_ready(n) or n["spec"].get("unschedulable"))
            seen.down.add(frozenset(node["metadata"]["name"] for node in away))
            return check()

        wait_until(look, what, seconds, 0.5)
        return seen
