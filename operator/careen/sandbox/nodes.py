"""Fake nodes that kwok runs, and a workload to drain from them."""

import hashlib
import uuid
from collections.abc import Iterable, Sequence

from careen.sandbox.client import Api, Manifest

ZONE_LABEL = "topology.kubernetes.io/zone"
HOSTNAME_LABEL = "kubernetes.io/hostname"
OS_LABEL = "kubernetes.io/os"
TYPE_LABEL, TYPE = "node.kubernetes.io/instance-type", "careen-sandbox"
"""What tells machines from other Nodes, on which only pods run."""
FAKE_ANNOTATION = "kwok.x-k8s.io/node"
SIM_ANNOTATION = "careen.dev/sim"
"""On nodes and pods: never-ready or never-terminates; kwok.yaml tells what they do."""

NODES = "/api/v1/nodes"


def node_manifest(
    name: str,
    zone: str,
    *,
    labels: dict[str, str] | None = None,
    machine_id: str | None = None,
    boot_id: str | None = None,
    cpu: str = "4",
    memory: str = "8Gi",
    pods: int = 110,
) -> Manifest:
    """A node that kwok makes ready at once.

    The machine id defaults to a hash of the name, so that a node made again under its name is the same
    machine; the boot ID defaults to a fresh one.
    """
    capacity = {"cpu": cpu, "memory": memory, "pods": str(pods)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {FAKE_ANNOTATION: "fake"},
            "labels": {HOSTNAME_LABEL: name, ZONE_LABEL: zone, OS_LABEL: "linux", TYPE_LABEL: TYPE, **(labels or {})},
        },
        "status": {
            "capacity": capacity,
            "allocatable": capacity,
            "nodeInfo": {
                "machineID": machine_id or hashlib.sha256(name.encode()).hexdigest()[:32],
                "bootID": boot_id or str(uuid.uuid4()),
                "systemUUID": str(uuid.uuid5(uuid.NAMESPACE_DNS, name)),
                "architecture": "amd64",
                "operatingSystem": "linux",
                "containerRuntimeVersion": "fake://1",
                "kernelVersion": "6.12.0",
                "kubeletVersion": "v1.37.2",
                "kubeProxyVersion": "",
                "osImage": "careen sandbox",
            },
        },
    }


def zone_of(index: int, zones: int) -> str:
    """Zones by turns: zone-a, zone-b, …"""
    return f"zone-{chr(ord('a') + index % zones)}"


def node_manifests(count: int, zones: int, prefix: str = "node-") -> list[Manifest]:
    """`count` nodes (node-1 and so on), spread over the zones by turns."""
    return [node_manifest(f"{prefix}{index + 1}", zone_of(index, zones)) for index in range(count)]


def create_nodes(api: Api, manifests: Iterable[Manifest]) -> None:
    """Create nodes with their status; raises ApiError (409) when one exists."""
    for manifest in manifests:
        api.create(NODES, manifest)


def is_ready(node: Manifest) -> bool:
    """Whether the node's Ready condition is True."""
    conditions = node.get("status", {}).get("conditions", [])
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def workload_manifests(
    name: str,
    replicas: int,
    min_available: int,
    *,
    namespace: str = "default",
    grace_seconds: int = 1,
    annotations: dict[str, str] | None = None,
) -> Sequence[Manifest]:
    """A Deployment and its PodDisruptionBudget: something that drains have to respect.

    `grace_seconds` is the time a pod takes to stop. The annotations go onto the pods.
    """
    metadata = {"name": name, "namespace": namespace, "labels": {"app": name}}
    container = {
        "name": "main",
        "image": "example.invalid/main",
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
    }
    spread = {
        "maxSkew": 1,
        "topologyKey": HOSTNAME_LABEL,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": name}},
    }
    pod = {
        "metadata": {"labels": {"app": name}, "annotations": annotations or {}},
        "spec": {
            "containers": [container],
            "terminationGracePeriodSeconds": grace_seconds,
            "topologySpreadConstraints": [spread],
        },
    }
    selector = {"matchLabels": {"app": name}}
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {"replicas": replicas, "selector": selector, "template": pod},
        },
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": metadata,
            "spec": {"minAvailable": min_available, "selector": selector},
        },
    ]


def create_workload(api: Api, manifests: Iterable[Manifest]) -> None:
    """Create what workload_manifests returned."""
    plurals = {"Deployment": "deployments", "PodDisruptionBudget": "poddisruptionbudgets"}
    for manifest in manifests:
        namespace, plural = manifest["metadata"]["namespace"], plurals[manifest["kind"]]
        api.create(f"/apis/{manifest['apiVersion']}/namespaces/{namespace}/{plural}", manifest)
