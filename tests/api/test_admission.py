"""One writer for each field, held by the API server: the own-node rule, the operator's fields, people's fields."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from careen.api.admission import OPERATOR_STATUS, agent_status
from careen.api.meta import AGENT_GROUP, AGENT_USER, AGENT_USER_PREFIX, NAMESPACE
from careen.sandbox.accounts import AGENT_SELECTOR, mint_agent_token, mint_operator_token, mint_unbound_agent_token
from careen.sandbox.client import APPLY, JSON_PATCH, MERGE, Api, ApiError, wait_until
from careen.sandbox.cluster import Cluster
from careen.sandbox.controlplane import ControlPlane
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
}
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


@pytest.fixture
def fleet(plane: Cluster, admin: Api, operator_api: Api) -> Iterator[None]:
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


ATTACKS: dict[str, Write] = {
    "another machine's status": status_patch("n2", {"booted": "B"}),
    "another machine's status by JSON patch": Write(
        "PATCH", f"{BASE}/nodes/n2/status", [{"op": "add", "path": "/status", "value": {"booted": "B"}}], JSON_PATCH
    ),
    "another machine's status by apply": Write(
        "PATCH", f"{BASE}/nodes/n2/status", node("n2") | {"status": {"booted": "B"}}, APPLY
    ),
    "own orchestration": status_patch("n1", {"orchestration": OPERATOR_VALUES["orchestration"]}),
    "own orchestration beside a step": status_patch(
        "n1", {"step": AGENT_VALUES["step"], "orchestration": OPERATOR_VALUES["orchestration"]}
    ),
    "own conditions": status_patch("n1", {"conditions": OPERATOR_VALUES["conditions"]}),
    "own observedGeneration": status_patch("n1", {"observedGeneration": 9}),
    "own orchestration by JSON patch": Write(
        "PATCH",
        f"{BASE}/nodes/n1/status",
        [{"op": "add", "path": "/status", "value": {"orchestration": OPERATOR_VALUES["orchestration"]}}],
        JSON_PATCH,
    ),
    "own orchestration by apply": Write(
        "PATCH",
        f"{BASE}/nodes/n1/status",
        node("n1") | {"status": {"orchestration": OPERATOR_VALUES["orchestration"]}},
        APPLY,
    ),
    "own goal": Write("PATCH", f"{BASE}/nodes/n1", {"spec": {"assignment": ACTIVATE}}),
    "own order removed": Write("PATCH", f"{BASE}/nodes/n1", {"spec": {"assignment": None}}),
    "own paused": Write("PATCH", f"{BASE}/nodes/n1", {"spec": {"paused": True}}),
    "own labels": Write("PATCH", f"{BASE}/nodes/n1", {"metadata": {"labels": {"pool": "db"}}}),
    "own Node deleted": Write("DELETE", f"{BASE}/nodes/n1"),
    "all Nodes deleted": Write("DELETE", f"{BASE}/nodes"),
    "a new Node": Write("POST", f"{BASE}/nodes", node("n3")),
    "another machine's Lease": Write("PATCH", f"{LEASES}/agent-n2", {"spec": {"holderIdentity": "n1"}}),
    "another machine's Lease by apply": Write("PATCH", f"{LEASES}/agent-n2", lease("agent-n2", holder="n1"), APPLY),
    "a new Lease for a machine to be": Write("POST", LEASES, lease("agent-n3")),
    "a new Lease under a generated name": Write(
        "POST", LEASES, lease("") | {"metadata": {"generateName": "agent-n1", "namespace": NAMESPACE}}
    ),
    "the leader's Lease": Write("PATCH", f"{LEASES}/careen-operator", {"spec": {"holderIdentity": "n1"}}),
    "a Lease of its own name elsewhere": Write("POST", OTHER_LEASES, lease("agent-n1", "default")),
    "another machine's Lease deleted": Write("DELETE", f"{LEASES}/agent-n2"),
    "own Lease deleted": Write("DELETE", f"{LEASES}/agent-n1"),
    "own core Node": Write("PATCH", "/api/v1/nodes/n1", {"spec": {"unschedulable": True}}),
    "own core Node's status": Write("PATCH", "/api/v1/nodes/n1/status", {"status": {"nodeInfo": {"bootID": "b"}}}),
    "a pod on its machine": Write(
        "PATCH", f"{PODS}/pod-n1", {"metadata": {"labels": {"a": "b"}}}
    ),
    "a pod on another machine": Write("POST", PODS, pod("mine", "n3")),
    "a pod's eviction": Write(
        "POST",
        f"{PODS}/pod-n2/eviction",
        {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "pod-n2"}},
    ),
    "a token": Write(
        "POST",
        f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/careen-operator/token",
        {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}},
    ),
    "a ConfigMap": Write("POST", f"/api/v1/namespaces/{NAMESPACE}/configmaps", configmap("mine")),
    "the switch": Write(
        "PATCH", f"/api/v1/namespaces/{NAMESPACE}/configmaps/careen-switch", {"data": {"paused": "false"}}
    ),
    "a policy": Write("PATCH", f"{BASE}/updatepolicies/fleet", {"spec": {"paused": True}}),
    "a policy's status": Write("PATCH", f"{BASE}/updatepolicies/fleet/status", {"status": {"summary": "9/9"}}),
    "the lock": Write("PATCH", f"{BASE}/rebootlocks/default", {"spec": {"max": 9}}),
    "the lock's holders": Write("PATCH", f"{BASE}/rebootlocks/default/status", {"status": {"holders": []}}),
    "another machine's kubelet": Write("GET", "/api/v1/nodes/n2/proxy/"),
    "more rights": Write(
        "POST",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        {
            "metadata": {"name": "careen-test-more"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "careen-agent", "namespace": NAMESPACE}],
        },
    ),
    "an event": Write(
        "POST",
        "/apis/events.k8s.io/v1/namespaces/default/events",
        {"metadata": {"generateName": "x-"}, "action": "a", "reason": "r", "type": "Normal", "eventTime": RENEWED,
         "reportingController": "c", "reportingInstance": "i", "regarding": {"kind": "Node", "name": "n1"}},
    ),
}  # fmt: skip

OWN: dict[str, Write] = {
    "status": status_patch("n1", AGENT_VALUES),
    "status by apply": Write("PATCH", f"{BASE}/nodes/n1/status", node("n1") | {"status": AGENT_VALUES}, APPLY),
    "status by JSON patch with tests on the order": Write(
        "PATCH",
        f"{BASE}/nodes/n1/status",
        [
            {"op": "test", "path": "/spec/assignment/id", "value": "order-1"},
            {"op": "test", "path": "/spec/assignment/goal", "value": "Stage"},
            {"op": "add", "path": "/status", "value": AGENT_VALUES},
        ],
        JSON_PATCH,
    ),
    "Lease": Write("PATCH", f"{LEASES}/agent-n1", {"spec": {"renewTime": "2026-01-01T00:01:00.000000Z"}}),
    "Lease by apply": Write("PATCH", f"{LEASES}/agent-n1", lease("agent-n1", holder="n1"), APPLY),
}


def snapshot(admin: Api) -> dict[str, Any]:
    """All that an agent could have changed, without what the cluster's own controllers change."""
    paths = [
        f"{BASE}/nodes", f"{BASE}/updatepolicies", f"{BASE}/rebootlocks", LEASES, OTHER_LEASES,
        f"/api/v1/namespaces/{NAMESPACE}/configmaps",
    ]  # fmt: skip
    found = {path: admin.items(path) for path in paths}
    specs = {each["metadata"]["name"]: each["spec"] for each in admin.items("/api/v1/nodes")}
    return {**found, "core": {name: spec.get("unschedulable") for name, spec in specs.items()}}


@pytest.mark.parametrize("rights", ["own-rights", "all-rights"])
def test_an_agent_writes_nothing_but_its_own(
    plane: Cluster, admin: Api, fleet: None, agent_api: Callable[[str], Api], rights: str
) -> None:
    agent = agent_api("n1")
    if rights == "all-rights":
        give_agents_all_rights(admin)
        probe = Write("DELETE", f"{LEASES}/agent-n9")
        wait_until(lambda: _reaches_admission(probe, agent), "the agents' new rights", 10)
    before = snapshot(admin)
    passed = [name for name, attack in ATTACKS.items() if _passes(attack, agent)]
    assert passed == []
    assert snapshot(admin) == before


@pytest.fixture
def certified_api(own_plane: ControlPlane) -> Iterator[Callable[..., Api]]:
    """Makes clients with the certificate of a machine outside Kubernetes, in its name or another one."""
    made: list[Api] = []

    def make(user: str = AGENT_USER_PREFIX + "n1", group: str = AGENT_GROUP) -> Api:
        made.append(Api(own_plane.kubeconfig_for(user, [group])))
        return made[-1]

    yield make
    for api in made:
        api.close()


@pytest.mark.parametrize("group", [AGENT_GROUP, "system:masters"])
def test_a_machine_with_a_certificate_writes_nothing_but_its_own(
    plane: Cluster, admin: Api, fleet: None, certified_api: Callable[..., Api], group: str
) -> None:
    before = snapshot(admin)
    machine = certified_api(group=group)
    assert [name for name, attack in ATTACKS.items() if _passes(attack, machine)] == []
    assert snapshot(admin) == before


@pytest.mark.parametrize("write", OWN.values(), ids=OWN)
def test_a_machine_with_a_certificate_writes_its_own(
    plane: Cluster, fleet: None, certified_api: Callable[..., Api], write: Write
) -> None:
    assert write.send(certified_api())["metadata"]["name"] in ("n1", "agent-n1")


@pytest.mark.parametrize("user", ["n1", AGENT_USER_PREFIX, AGENT_USER_PREFIX + "n2"])
def test_a_certificate_in_another_name_is_not_that_machines(
    plane: Cluster, admin: Api, fleet: None, certified_api: Callable[..., Api], user: str
) -> None:
    before = snapshot(admin)
    machine = certified_api(user)
    assert [name for name, write in OWN.items() if _passes(write, machine)] == []
    assert snapshot(admin) == before


def _reaches_admission(write: Write, api: Api) -> bool:
    try:
        write.send(api)
    except ApiError as error:
        return error.status == 404 or "ValidatingAdmissionPolicy" in str(error)
    return True


def _passes(write: Write, api: Api) -> bool:
    try:
        write.send(api)
    except ApiError as error:
        if error.status != 403:
            raise AssertionError(f"{write}: {error}") from error
        return False
    return True


@pytest.mark.parametrize("write", OWN.values(), ids=OWN)
def test_an_agent_writes_its_own(plane: Cluster, fleet: None, agent_api: Callable[[str], Api], write: Write) -> None:
    written = write.send(agent_api("n1"))
    assert written["metadata"]["name"] in ("n1", "agent-n1")
    if "status" in written:
        assert written["status"] == AGENT_VALUES


def test_an_agent_creates_its_own_lease(
    plane: Cluster, admin: Api, fleet: None, agent_api: Callable[[str], Api]
) -> None:
    admin.delete(f"{LEASES}/agent-n1")
    agent_api("n1").create(LEASES, lease("agent-n1"))


def test_what_an_agent_puts_beside_its_status_is_not_stored(
    plane: Cluster, admin: Api, fleet: None, agent_api: Callable[[str], Api]
) -> None:
    before = admin.get(f"{BASE}/nodes/n1")
    beside = {
        "metadata": {"labels": {"pool": "db"}, "annotations": {"a": "b"}, "finalizers": ["careen.dev/stay"]},
        "spec": {"paused": True, "assignment": {"goal": "Activate"}},
        "status": {"booted": "B"},
    }
    Write("PATCH", f"{BASE}/nodes/n1/status", beside).send(agent_api("n1"))
    after = admin.get(f"{BASE}/nodes/n1")
    assert after["status"] == {"booted": "B"}
    assert after["spec"] == before["spec"]
    for field in ("labels", "annotations", "finalizers"):
        assert field not in after["metadata"]


def test_an_agent_leaves_the_operators_part_as_it_is(
    plane: Cluster, fleet: None, operator_api: Api, agent_api: Callable[[str], Api]
) -> None:
    status_patch("n1", OPERATOR_VALUES).send(operator_api)
    agent = agent_api("n1")
    written = status_patch("n1", AGENT_VALUES).send(agent)
    assert written["status"] == AGENT_VALUES | OPERATOR_VALUES
    for name in OPERATOR_STATUS:
        assert f"status.{name}" in assert_forbidden(status_patch("n1", {name: None}), agent)
    replacing = Write("PATCH", f"{BASE}/nodes/n1/status",
                      [{"op": "replace", "path": "/status", "value": AGENT_VALUES}], JSON_PATCH)  # fmt: skip
    assert "written by the operator alone" in assert_forbidden(replacing, agent)


def test_a_token_bound_to_nothing_writes_nothing(plane: Cluster, admin: Api, fleet: None) -> None:
    before = snapshot(admin)
    api = Api(plane.kubeconfig_with_token(mint_unbound_agent_token(admin)))
    for name, write in OWN.items():
        assert "must be bound to a pod on a node" in assert_forbidden(write, api), name
    api.close()
    assert snapshot(admin) == before


def test_a_refusal_says_what_is_allowed_and_where_the_agent_runs(
    plane: Cluster, fleet: None, agent_api: Callable[[str], Api]
) -> None:
    message = assert_forbidden(status_patch("n2", {"booted": "B"}), agent_api("n1"))
    assert "an agent writes only the status of its own Node" in message
    assert "this one runs on n1" in message


def test_a_token_ends_with_its_pod(plane: Cluster, admin: Api, fleet: None) -> None:
    old = mint_agent_token(admin, "n1")
    agents = admin.items(PODS, labelSelector=AGENT_SELECTOR, fieldSelector="spec.nodeName=n1")
    admin.delete(f"{PODS}/{agents[0]['metadata']['name']}", gracePeriodSeconds="0")
    api = Api(plane.kubeconfig_with_token(old))

    def refused() -> int | None:
        try:
            status_patch("n1", {"booted": "B"}).send(api)
        except ApiError as error:
            return error.status
        return None

    # The API server learns of the deletion by a watch of its own, and holds a token for good for up to 10 s.
    status = wait_until(refused, "the old token is refused", 30)
    api.close()
    assert status == 401


PEOPLE_REFUSED: dict[str, tuple[Write, str]] = {
    "an order": (Write("PATCH", f"{BASE}/nodes/n1", {"spec": {"assignment": ACTIVATE}}), "spec.assignment"),
    "an order removed": (Write("PATCH", f"{BASE}/nodes/n1", {"spec": {"assignment": None}}), "spec.assignment"),
    "an order by apply": (Write("PATCH", f"{BASE}/nodes/n1",
                                node("n1", {"assignment": ORDER | ACTIVATE}), APPLY), "spec.assignment"),
    "the core Node's UID": (Write("PATCH", f"{BASE}/nodes/n1", {"spec": {"coreNode": {"uid": "x"}}}), "spec.coreNode"),
    "a new machine": (Write("POST", f"{BASE}/nodes", node("n3")), "created by the operator alone"),
    "a machine's status": (status_patch("n1", {"booted": "B"}), "status of a Node"),
    "a machine's orchestration": (status_patch("n1", {"orchestration": OPERATOR_VALUES["orchestration"]}), "status of"),
    "a policy's status": (Write("PATCH", f"{BASE}/updatepolicies/fleet/status", {"status": {"summary": "9/9"}}),
                          "written by the operator alone"),
    "a Lease renewed": (Write("PATCH", f"{LEASES}/agent-n1", {"spec": {"renewTime": RENEWED}}), "by the agent of that"),
    "a Lease annotated": (Write("PATCH", f"{LEASES}/agent-n1", {"metadata": {"annotations": {"a": "b"}}}),
                          "by the agent of that"),
    "the lock's term": (Write("PATCH", f"{BASE}/rebootlocks/default/status", {"status": {"term": 9}}), "status.term"),
    "a Lease made": (Write("POST", LEASES, lease("agent-n3")), "by the agent of that machine alone"),
}  # fmt: skip


def test_an_administrator_writes_neither_orders_nor_reports(plane: Cluster, admin: Api, fleet: None) -> None:
    before = snapshot(admin)
    for name, (write, words) in PEOPLE_REFUSED.items():
        assert words in assert_forbidden(write, admin), name
    assert snapshot(admin) == before


RESET = {"action": "Reset", "id": "r-1"}
PEOPLE_ALLOWED: dict[str, Write] = {
    "pausing a machine": Write("PATCH", f"{BASE}/nodes/n1", {"spec": {"paused": True}}),
    "its boot method": Write("PATCH", f"{BASE}/nodes/n1", {"spec": {"boot": {"method": "Kexec"}}}),
    "retry": Write("PATCH", f"{BASE}/nodes/n1", {"spec": {"retry": 1}}),
    "abort": Write("PATCH", f"{BASE}/nodes/n1", {"spec": {"abort": "order-1"}}),
    "a wish by apply": Write("PATCH", f"{BASE}/nodes/n1", node("n1", {"paused": True}), APPLY),
    "labels": Write("PATCH", f"{BASE}/nodes/n1", {"metadata": {"labels": {"pool": "web"}}}),
    "annotations": Write("PATCH", f"{BASE}/nodes/n1", {"metadata": {"annotations": {"a": "b"}}}),
    "a reset": Write("PATCH", f"{BASE}/nodes/n1", {"spec": {"request": RESET}}),
    "a policy paused": Write("PATCH", f"{BASE}/updatepolicies/fleet", {"spec": {"paused": True}}),
    "a policy annotated": Write(
        "PATCH", f"{BASE}/updatepolicies/fleet", {"metadata": {"annotations": {"careen.dev/resume": "1-a/1"}}}
    ),
    "the lock's size": Write("PATCH", f"{BASE}/rebootlocks/default", {"spec": {"max": 2}}),
    "the lock taken": Write(
        "PATCH",
        f"{BASE}/rebootlocks/default/status",
        {"status": {"holders": [{"id": "me", "since": "2026-01-01T00:00:00Z"}]}},
    ),
    "a machine's Lease deleted": Write("DELETE", f"{LEASES}/agent-n1"),
    "a machine deleted": Write("DELETE", f"{BASE}/nodes/n1"),
    "another Lease": Write("PATCH", f"{LEASES}/careen-operator", {"spec": {"holderIdentity": "me"}}),
    "a Lease of that name elsewhere": Write("POST", OTHER_LEASES, lease("agent-n1", "default")),
}


@pytest.mark.parametrize("write", PEOPLE_ALLOWED.values(), ids=PEOPLE_ALLOWED)
def test_people_write_their_own_fields(plane: Cluster, admin: Api, fleet: None, write: Write) -> None:
    write.send(admin)


def test_replacing_a_machine_as_it_was_read_is_allowed(plane: Cluster, admin: Api, fleet: None) -> None:
    """What kubectl edit does: the order travels along, unchanged."""
    document = admin.get(f"{BASE}/nodes/n1")
    document["spec"]["paused"] = True
    written = Write("PUT", f"{BASE}/nodes/n1", document).send(admin)
    assert written["spec"]["assignment"]["id"] == "order-1"
    stale = copy.deepcopy(written)
    stale["spec"]["assignment"] |= ACTIVATE
    assert "spec.assignment" in assert_forbidden(Write("PUT", f"{BASE}/nodes/n1", stale), admin)


def test_the_operator_writes_orders_and_its_own_part_of_status(
    plane: Cluster, fleet: None, operator_api: Api, agent_api: Callable[[str], Api]
) -> None:
    status_patch("n1", AGENT_VALUES).send(agent_api("n1"))
    Write("PATCH", f"{BASE}/nodes/n1", {"spec": {"assignment": ACTIVATE}}).send(operator_api)
    Write("PATCH", f"{BASE}/nodes/n1", {"spec": {"coreNode": {"uid": "x"}}}).send(operator_api)
    written = status_patch("n1", OPERATOR_VALUES).send(operator_api)
    assert written["status"] == AGENT_VALUES | OPERATOR_VALUES
    Write("PATCH", f"{BASE}/updatepolicies/fleet/status", {"status": {"summary": "1/2"}}).send(operator_api)
    Write("PATCH", f"{BASE}/rebootlocks/default/status", {"status": {"term": 1}}).send(operator_api)
    Write("PATCH", f"{LEASES}/careen-operator", {"spec": {"holderIdentity": "o"}}).send(operator_api)
    Write("PATCH", "/api/v1/nodes/n1", {"spec": {"unschedulable": True}}).send(operator_api)
    Write("DELETE", f"{BASE}/nodes/n1").send(operator_api)


def test_the_operator_leaves_each_of_the_agents_fields_alone(
    plane: Cluster, fleet: None, operator_api: Api, agent_api: Callable[[str], Api]
) -> None:
    assert set(agent_status()) == set(AGENT_VALUES)
    added = [name for name, value in AGENT_VALUES.items() if _passes(status_patch("n1", {name: value}), operator_api)]
    assert added == []
    status_patch("n1", AGENT_VALUES).send(agent_api("n1"))
    removed = [name for name in AGENT_VALUES if _passes(status_patch("n1", {name: None}), operator_api)]
    assert removed == []


OPERATOR_REFUSED: dict[str, Write] = {
    "a reboot": Write("PATCH", f"{BASE}/nodes/n1", {"spec": {"request": {"action": "Reboot", "id": "r-1"}}}),
    "a machine made with a reset": Write("POST", f"{BASE}/nodes", node("n9", {"request": RESET})),
    "a policy's spec": Write("PATCH", f"{BASE}/updatepolicies/fleet", {"spec": {"paused": True}}),
    "the lock's size": Write("PATCH", f"{BASE}/rebootlocks/default", {"spec": {"max": 9}}),
    "an agent's Lease": Write("PATCH", f"{LEASES}/agent-n1", {"spec": {"renewTime": RENEWED}}),
    "the switch": Write(
        "PATCH", f"/api/v1/namespaces/{NAMESPACE}/configmaps/careen-switch", {"data": {"paused": "false"}}
    ),
    "a pod deleted without its budget": Write("DELETE", f"{PODS}/pod-n1"),
    "a core Node deleted": Write("DELETE", "/api/v1/nodes/n1"),
    "a Lease elsewhere": Write("POST", OTHER_LEASES, lease("agent-n1", "default")),
}


def test_the_operator_writes_nothing_of_peoples(plane: Cluster, admin: Api, fleet: None, operator_api: Api) -> None:
    before = snapshot(admin)
    assert [name for name, write in OPERATOR_REFUSED.items() if _passes(write, operator_api)] == []
    assert snapshot(admin) == before


def test_the_operators_name_without_its_namespace_is_nobody(plane: Cluster, admin: Api, fleet: None) -> None:
    """An account of the same name in another namespace is not the operator, whatever rights it has."""
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    subject = {"kind": "ServiceAccount", "name": "careen-operator", "namespace": "default"}
    admin.create(accounts, {"metadata": {"name": "careen-operator"}})
    admin.create(
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        {"metadata": {"name": ALL_RIGHTS}, "roleRef": role, "subjects": [subject]},
    )
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    token = admin.create(f"{accounts}/careen-operator/token", request)["status"]["token"]
    api = Api(plane.kubeconfig_with_token(token))
    try:
        wait_until(lambda: _reads_secrets(api), "the account's rights", 10)
        write = Write("PATCH", f"{BASE}/nodes/n1", {"spec": {"assignment": ACTIVATE}})
        assert "spec.assignment" in assert_forbidden(write, api)
    finally:
        api.close()
        admin.delete(f"{accounts}/careen-operator")


def _reads_secrets(api: Api) -> bool:
    try:
        api.get("/api/v1/secrets")
    except ApiError:
        return False
    return True


def test_deleting_a_machine_and_orphaning_its_lease_ends(
    plane: Cluster, admin: Api, fleet: None, agent_api: Callable[[str], Api]
) -> None:
    """The garbage collector has to take the owner out of the Lease, which no policy of ours may hinder."""
    machine = admin.get(f"{BASE}/nodes/n1")["metadata"]
    owner = {"apiVersion": "careen.dev/v1alpha1", "kind": "Node", "name": "n1", "uid": machine["uid"]}
    owned = {"metadata": {"ownerReferences": [owner]}}
    agent_api("n1").patch(f"{LEASES}/agent-n1", owned)
    admin.delete(f"{BASE}/nodes/n1", propagationPolicy="Orphan")
    wait_until(lambda: admin.find(f"{BASE}/nodes/n1") is None, "the machine deleted", 20)
    assert "ownerReferences" not in admin.get(f"{LEASES}/agent-n1")["metadata"]


def test_tokens_carry_what_the_policies_ask_for(plane: Cluster, admin: Api, fleet: None) -> None:
    assert mint_operator_token(admin) != mint_operator_token(admin)
    with pytest.raises(ApiError, match="404"):
        mint_agent_token(admin, "no-such-node")
