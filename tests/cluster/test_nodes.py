"""What happens to real Kubernetes nodes: each scenario begins and ends with both of them at work.

Their kubelets know nothing of Careen. That a node is back is never taken from its Ready condition alone: see
testos/node/evidence.py.
"""

from __future__ import annotations

from careen.disk.boot import preview
from careen.disk.table import read_slots
from careen.sandbox.client import wait_until
from testos.node.cluster import Cluster
from testos.node.evidence import NodeSeen

from .conftest import NEXT_REFERENCE
from .workload import NEEDED, Workload

ROLLOUT_SECONDS = 1200.0
REBOOT_SECONDS = 300.0
STAGE_SECONDS = 600.0
"""Deadlines are three times what it takes on two processors that have other work."""
CANARY = {"maxUnavailable": 1, "waves": [{"name": "canary", "count": 1}]}
VERIFY_SECONDS = 60
"""How long a node may be NotReady in the new OS; it needs half of that in one that works."""


def test_rolls_over_both_nodes_and_moves_the_pods_within_their_budget(cluster: Cluster, workload: Workload) -> None:
    before = see_all(cluster)
    pods = {pod.uid for pod in workload.ready}
    cluster.ask_for("2")
    seen = workload.watch(lambda: cluster.is_complete("2"), "2 on both nodes", ROLLOUT_SECONDS)
    for name in cluster.names:
        after = cluster.wait_rebooted(name, before[name], REBOOT_SECONDS)
        assert after.os_image == "Careen test OS 2"
        assert boots(cluster, name) == ("B", "2", "Kexec")
    assert seen.most_down == 1, seen
    assert seen.fewest >= NEEDED, seen
    # Both pods were moved at least once, and there were some on each node.
    assert not pods & {pod.uid for pod in workload.ready}, seen
    assert set(seen.places.values()) == set(cluster.names), seen
    cluster.tell("both nodes run 2")


def test_a_committed_system_is_what_the_firmware_boots(cluster: Cluster) -> None:
    name = cluster.names[0]
    before = cluster.see(name)
    version = cluster.status(name)["slots"][cluster.status(name)["booted"]]["version"]
    cluster[name].reset()
    after = cluster.wait_rebooted(name, before, REBOOT_SECONDS)
    cluster.wait_boot(name, before.boot_id, REBOOT_SECONDS)
    assert after.os_image == f"Careen test OS {version}"
    assert boots(cluster, name) == (cluster.status(name)["booted"], version, "Firmware")
    cluster.tell(f"{name} is back on {version} after a reset")


def test_comes_back_from_a_panic_and_leaves_the_other_node_alone(cluster: Cluster, workload: Workload) -> None:
    before = see_all(cluster)
    version = running(cluster)
    cluster.ask_for("3", strategy=CANARY)
    name = wait_rolled_back(cluster, "3", "Panic")
    after = cluster.wait_rebooted(name, before[name], REBOOT_SECONDS)
    assert after.os_image == before[name].os_image
    assert cluster[name].console.find("Kernel panic")
    check_untouched(cluster, before, name)
    assert boots(cluster, name) == (cluster.status(name)["booted"], version, "Firmware")
    workload.wait_ready()
    cluster.tell(f"{name} is back on {version} after a panic")


def test_goes_back_from_a_system_in_which_the_node_does_not_get_ready(cluster: Cluster, workload: Workload) -> None:
    before = see_all(cluster)
    version = running(cluster)
    cluster.ask_for("4", strategy=CANARY, verifyTimeoutSeconds=VERIFY_SECONDS)
    name = wait_rolled_back(cluster, "4", "GateFailed")
    after = cluster.wait_rebooted(name, before[name], REBOOT_SECONDS)
    assert after.os_image == before[name].os_image
    check_untouched(cluster, before, name)
    assert running(cluster) == version
    workload.wait_ready()
    cluster.tell(f"{name} is back on {version} after the gate has failed")


def test_agents_are_upgraded_in_the_middle_of_a_rollout(cluster: Cluster, workload: Workload) -> None:
    before = see_all(cluster)
    cluster.ask_for("5", strategy={"maxUnavailable": 1, "waves": None}, verifyTimeoutSeconds=600)
    name = wait_until(lambda: find_phase(cluster, "Activating", "Verifying"), "a node in flight", STAGE_SECONDS, 0.2)
    cluster.tell(f"{name} is in flight; the agents are upgraded")
    cluster.chart.upgrade(image=NEXT_REFERENCE)
    workload.watch(lambda: cluster.is_complete("5"), "5 on both nodes", ROLLOUT_SECONDS)
    for name in cluster.names:
        after = cluster.wait_rebooted(name, before[name], REBOOT_SECONDS)
        assert after.os_image == "Careen test OS 5"
        assert after.agent is not None
        assert before[name].agent is not None
        # Another pod than before: the DaemonSet's new one.
        assert after.agent.uid != before[name].agent.uid
        assert after.agent.image == NEXT_REFERENCE
    workload.wait_ready()
    cluster.tell("both nodes run 5, and the new agents")


def see_all(cluster: Cluster) -> dict[str, NodeSeen]:
    """Both nodes, which must be at work."""
    return {name: cluster.wait_works(name, REBOOT_SECONDS) for name in cluster.names}


def running(cluster: Cluster) -> str:
    """The one version that all nodes run."""
    (version,) = {boots(cluster, name)[1] for name in cluster.names}
    return version


def boots(cluster: Cluster, name: str) -> tuple[str, str, str]:
    """Slot, version and how it was booted, as the agent tells; and any reset boots that slot, as the disk tells."""
    status = cluster.status(name)
    booted = status["booted"]
    chosen = preview(cluster[name].disk)
    assert chosen is not None, status
    assert chosen.label == f"USR-{booted}", status
    assert read_slots(cluster[name].disk)[booted].attributes.good, status
    return booted, status["slots"][booted]["version"], status["bootMethod"]


def wait_rolled_back(cluster: Cluster, version: str, cause: str) -> str:
    """Wait until a node has rolled this version back for this cause, and the rollout has halted; returns the node."""
    back = f"{version} rolled back"
    name = wait_until(lambda: find_phase(cluster, "RolledBack", version=version), back, ROLLOUT_SECONDS, 0.5)
    status = cluster.status(name)
    assert status["step"]["cause"] == cause, status
    wait_until(lambda: name in cluster.halted(version), f"the rollout of {version} halted", REBOOT_SECONDS, 0.5)
    return name


def find_phase(cluster: Cluster, *phases: str, version: str = "") -> str | None:
    """A node whose order is in one of these phases."""
    for name in cluster.names:
        order, step = cluster.node(name).get("spec", {}).get("assignment") or {}, cluster.status(name).get("step") or {}
        wanted = not version or order.get("release", {}).get("version") == version
        if wanted and step.get("phase") in phases and step.get("id") == order.get("id"):
            return name
    return None


def check_untouched(cluster: Cluster, before: dict[str, NodeSeen], moved: str) -> None:
    """All other nodes are in the boot that they were in."""
    for name in cluster.names:
        if name != moved:
            assert cluster.see(name) == before[name]
