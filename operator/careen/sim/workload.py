"""Pods to drain: one replicated workload with a disruption budget, whose controller replaces what was evicted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .api import Item, Refused, merge

if TYPE_CHECKING:
    from .world import World

LOOK_AGAIN = 8.0
"""Seconds after which a pod that fits nowhere is tried again."""


class Workload:
    """At most one pod may be missing at a time; while `stubborn`, none."""

    def __init__(self, world: World, replicas: int) -> None:
        self._world = world
        self._made = 0
        self.stubborn = False
        self.replicas = replicas
        for _ in range(replicas):
            self.place()

    def place(self) -> None:
        """Put one more pod on a schedulable, Ready node; try again later if there is none."""
        if len(self._world.api.objects["Pod"]) >= self.replicas:
            return
        nodes = [
            item.name
            for item in self._world.api.objects["CoreNode"].values()
            if not item.value.unschedulable and item.value.ready
        ]
        if not nodes:
            self._world.schedule.after(LOOK_AGAIN, self.place)
            return
        self._made += 1
        spec = {"nodeName": self._world.dice.pick(nodes)}
        self._world.api.create("Pod", f"pod-{self._made}", "workload", spec=spec, status={"phase": "Running"})

    def evict(self, name: str, uid: str) -> Item | Refused:
        """The Eviction API: refused while the budget allows no more."""
        pod = self._world.api.get("Pod", name)
        if pod is None or pod.uid != uid:
            return Refused.NOT_FOUND
        if pod.value.deleting:
            return pod
        pods = self._world.api.objects["Pod"].values()
        running = sum(1 for other in pods if not other.value.deleting)
        if self.stubborn or running < self.replicas:
            return Refused.BUDGET
        stamp = {"metadata": {"deletionTimestamp": "now"}}
        answer = self._world.api.update("Pod", name, lambda doc: merge(doc, stamp), by="operator", uid=uid)
        self._world.schedule.after(self._world.dice.wait(2.0), self.remove, name, uid)
        return answer

    def remove(self, name: str, uid: str) -> None:
        """The pod has ended; its controller makes another one."""
        if isinstance(self._world.api.delete("Pod", name, "kubelet", uid=uid), Item):
            self._world.schedule.after(self._world.dice.wait(1.0), self.place)

    def clear_node(self, node: str) -> None:
        """The core Node is gone: its pods go as well."""
        for pod in list(self._world.api.objects["Pod"].values()):
            if pod.value.node == node:
                self.remove(pod.name, pod.uid)
