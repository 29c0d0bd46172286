"""What tells that a node has come back: never its Ready condition alone, which stays as it was while nobody looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from careen.sandbox.client import Manifest


@dataclass(frozen=True)
class PodSeen:
    """A pod as the API server shows it."""

    name: str
    uid: str
    node: str
    ready: bool
    restarts: int
    container: str
    """Id of its one container, which is another one after each start; empty while there is none."""
    image: str
    """The image that it asks for."""

    @classmethod
    def of(cls, pod: Manifest) -> PodSeen:
        """Read a pod."""
        status = pod.get("status", {})
        container: dict[str, Any] = next(iter(status.get("containerStatuses", [])), {})
        return cls(
            pod["metadata"]["name"],
            pod["metadata"]["uid"],
            pod["spec"].get("nodeName", ""),
            # One that is being deleted may still call itself ready.
            bool(container.get("ready")) and "deletionTimestamp" not in pod["metadata"],
            int(container.get("restartCount", 0)),
            str(container.get("containerID", "")) if "running" in container.get("state", {}) else "",
            str(pod["spec"]["containers"][0]["image"]),
        )


@dataclass(frozen=True)
class NodeSeen:
    """A node as the API server shows it, with the agent's pod on it."""

    boot_id: str
    os_image: str
    ready: bool
    taints: tuple[str, ...]
    agent: PodSeen | None

    @classmethod
    def of(cls, node: Manifest, agent: Manifest | None) -> NodeSeen:
        """Read a core Node."""
        info = node.get("status", {}).get("nodeInfo", {})
        conditions = {entry["type"]: entry["status"] for entry in node.get("status", {}).get("conditions", [])}
        taints = tuple(sorted(taint["key"] for taint in node.get("spec", {}).get("taints", [])))
        return cls(
            info.get("bootID", ""),
            info.get("osImage", ""),
            conditions.get("Ready") == "True",
            taints,
            PodSeen.of(agent) if agent else None,
        )

    @property
    def works(self) -> bool:
        """Whether it takes pods, and the agent runs."""
        return self.ready and not self.taints and self.agent is not None and self.agent.ready

    def has_rebooted(self, before: NodeSeen) -> bool:
        """Whether it works in another boot, with the agent's container started anew in the pod that was there before.

        A new pod instead of the old one counts too: the DaemonSet may have been changed meanwhile.
        """
        if not self.works or self.agent is None or before.agent is None:
            return False
        fresh = self.agent.container != before.agent.container
        same = self.agent.uid == before.agent.uid
        return self.boot_id != before.boot_id and fresh and (self.agent.restarts > before.agent.restarts or not same)
