"""Two machines with agents, and writes that somebody may or may not make."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from careen.api.meta import AGENT_USER, NAMESPACE
from careen.sandbox.accounts import mint_agent_token
from careen.sandbox.client import APPLY, MERGE, Api, ApiError
from careen.sandbox.cluster import Cluster
from careen.sandbox.nodes import create_nodes, node_manifest

BASE = "/apis/careen.dev/v1alpha1"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
OTHER_LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
RENEWED = "2026-01-01T00:00:00.000000Z"
DIGEST = "sha256:" + "a" * 64
ALL_RIGHTS = "careen-test-all-rights"

ORDER: dict[str, Any] = {
    "id": "order-1",
    "policy": {"name": "fleet", "uid": "1b4e28ba"},
    "rollout": "1-aaaaaaaa",
    "release": {
        "repository": "http://127.0.0.1:8000/os",
        "version": "2.0.0",
        "digest": DIGEST,
        "sizeBytes": 1,
        "path": "2.0.0.img",
    },
    "goal": "Stage",
    "terms": {
        "lock": "default",
        "readySeconds": 0,
        "verifyTimeoutSeconds": 600,
        "commitTimeoutSeconds": 600,
        "onSilence": "Rollback",
        "bootMethod": "Auto",
        "drainTimeoutSeconds": 3600,
    },
}
ACTIVATE = {"goal": "Activate", "fromBootID": "boot-1"}
SLOT = {"partition": 2, "priority": 2, "tries": 0, "successful": True}
AGENT_VALUES: dict[str, Any] = {
    "slots": {"A": SLOT, "B": SLOT},
    "gpt": {"faults": ["a copy is bad"], "repaired": ["so was the other"], "repairedAt": "2026-01-01T00:00:00Z"},
    "booted": "A",
    "bootID": "boot-1",
    "bootMethod": "Firmware",
    "kernelStarted": "2026-01-01T00:00:00Z",
    "agentStarted": "2026-01-01T00:00:20Z",
    "bootDecision": {"method": "Kexec", "reason": "Supported", "message": "", "deadman": "TrialTimer"},
    "architecture": "x86_64",
    "machineID": "m1",
    "protocol": 1,
    "osImage": "OS 1.0.0",
    "kernel": "6.12",
    "agentVersion": "0.1.0",
    "step": {"id": "order-1", "phase": "Staging"},
    "rejected": [{"digest": DIGEST, "cause": "Panic", "retry": 0}],
    "units": [
        {"name": "web.service", "hash": "a" * 40, "load": "loaded", "active": "active", "sub": "running",
         "launched": True},
    ],
}  # fmt: skip
"""A value for each field of Node.status that is the agent's."""
OPERATOR_VALUES: dict[str, Any] = {
    "observedGeneration": 7,
    "orchestration": {"state": "Waiting", "reason": "Paused", "message": "", "since": "2026-01-01T00:00:00Z"},
    "conditions": [
        {"type": "Ready", "status": "True", "reason": "UpToDate", "message": "", "lastTransitionTime": RENEWED}
    ],
    "request": {
        "id": "r-1",
        "action": "Reboot",
        "outcome": "Done",
        "message": "",
        "order": "order-1",
        "finishedAt": RENEWED,
    },
}
"""A value for each field of Node.status that is the operator's."""


def lease(name: str, namespace: str = NAMESPACE, holder: str = "x") -> dict[str, Any]:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 180, "renewTime": RENEWED},
    }


def node(name: str, spec: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"apiVersion": "careen.dev/v1alpha1", "kind": "Node", "metadata": {"name": name}, "spec": spec or {}}


def pod(name: str, node: str) -> dict[str, Any]:
    containers = [{"name": "main", "image": "example.invalid/main"}]
    return {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": {"nodeName": node, "containers": containers}}


def configmap(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": NAMESPACE}}


@dataclass(frozen=True)
class Write:
    """One write, as it goes over the wire."""

    method: str
    path: str
    body: Any = None
    content_type: str = MERGE

    def send(self, api: Api) -> dict[str, Any]:
        query = {"fieldManager": "test", "force": "true"} if self.content_type == APPLY else {}
        content_type = "application/json" if self.method in ("POST", "PUT") else self.content_type
        return api.request(self.method, self.path, self.body, query=query, content_type=content_type)


def status_patch(name: str, status: dict[str, Any]) -> Write:
    return Write("PATCH", f"{BASE}/nodes/{name}/status", {"status": status})


def make_fleet(plane: Cluster, admin: Api, operator_api: Api) -> Iterator[None]:
    """Two machines with an order each, their agents' Leases, and one of each other kind."""
    create_nodes(admin, [node_manifest("n1", "zone-a"), node_manifest("n2", "zone-b")])
    for name in ("n1", "n2"):
        operator_api.create(f"{BASE}/nodes", node(name, {"assignment": ORDER}))
        admin.create(PODS, pod(f"pod-{name}", name))
        with_token(
            plane, mint_agent_token(admin, name), lambda api, name=name: api.create(LEASES, lease(f"agent-{name}"))
        )
    lock = {"apiVersion": "careen.dev/v1alpha1", "kind": "RebootLock", "metadata": {"name": "default"}}
    admin.delete(f"{BASE}/rebootlocks/default")
    admin.create(f"{BASE}/rebootlocks", lock | {"spec": {"max": 1}})
    release = {"repository": "http://127.0.0.1:8000/os", "version": "2.0.0"}
    policy = {"apiVersion": "careen.dev/v1alpha1", "kind": "UpdatePolicy", "metadata": {"name": "fleet"}}
    admin.create(f"{BASE}/updatepolicies", policy | {"spec": {"release": release}})
    unit = {"apiVersion": "careen.dev/v1alpha1", "kind": "Unit", "metadata": {"name": "web.service"}}
    admin.create(f"{BASE}/units", unit | {"spec": {"content": "[Service]\nExecStart=/bin/true\n"}})
    admin.create(f"/api/v1/namespaces/{NAMESPACE}/configmaps", configmap("careen-switch"))
    admin.create(LEASES, lease("careen-operator"))
    yield
    admin.delete("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/" + ALL_RIGHTS)


def with_token(plane: Cluster, token: str, act: Callable[[Api], object]) -> None:
    api = Api(plane.kubeconfig_with_token(token))
    try:
        act(api)
    finally:
        api.close()


def give_agents_all_rights(admin: Api) -> None:
    """Bind the agents' account to cluster-admin: what is refused then, the policies refuse."""
    account = {"kind": "ServiceAccount", "name": AGENT_USER.rpartition(":")[2], "namespace": NAMESPACE}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    admin.create(
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        {"metadata": {"name": ALL_RIGHTS}, "roleRef": role, "subjects": [account]},
    )


def assert_forbidden(write: Write, api: Api) -> str:
    with pytest.raises(ApiError) as caught:
        write.send(api)
    assert caught.value.status == 403, caught.value
    return str(caught.value)


def snapshot(admin: Api) -> dict[str, Any]:
    """All that an agent could have changed, without what the cluster's own controllers change."""
    paths = [
        f"{BASE}/nodes", f"{BASE}/updatepolicies", f"{BASE}/rebootlocks", f"{BASE}/units", LEASES, OTHER_LEASES,
        f"/api/v1/namespaces/{NAMESPACE}/configmaps",
    ]  # fmt: skip
    found = {path: admin.items(path) for path in paths}
    specs = {each["metadata"]["name"]: each["spec"] for each in admin.items("/api/v1/nodes")}
    return {**found, "core": {name: spec.get("unschedulable") for name, spec in specs.items()}}


def passes(write: Write, api: Api) -> bool:
    try:
        write.send(api)
    except ApiError as error:
        if error.status != 403:
            raise AssertionError(f"{write}: {error}") from error
        return False
    return True
