"""An agent writes its own Node's status and its own Lease, and nothing else: the API server holds it to that."""

from collections.abc import Callable, Iterator

import pytest

from admissions import (
    ACTIVATE,
    AGENT_VALUES,
    BASE,
    LEASES,
    OPERATOR_VALUES,
    OTHER_LEASES,
    PODS,
    RENEWED,
    Write,
    assert_forbidden,
    configmap,
    give_agents_all_rights,
    lease,
    node,
    passes,
    pod,
    snapshot,
    status_patch,
)
from careen.api.admission import OPERATOR_STATUS
from careen.api.meta import AGENT_GROUP, AGENT_USER_PREFIX, NAMESPACE
from careen.sandbox.accounts import AGENT_SELECTOR, mint_agent_token, mint_unbound_agent_token
from careen.sandbox.client import APPLY, JSON_PATCH, Api, ApiError, wait_until
from careen.sandbox.cluster import Cluster
from careen.sandbox.controlplane import ControlPlane

UNIT = f"{BASE}/units/web.service"
ATTACKS: dict[str, Write] = {
    "another machine's status": status_patch("n2", {"booted": "B"}),
    "another machine's units": status_patch("n2", {"units": AGENT_VALUES["units"]}),
    "own list of units": Write("PATCH", f"{BASE}/nodes/n1", {"spec": {"units": []}}),
    "a unit's content": Write("PATCH", UNIT, {"spec": {"content": "[Service]\nExecStart=/bin/sh\n"}}),
    "a unit's status": Write("PATCH", f"{UNIT}/status", {"status": {"currentState": "launched"}}),
    "a unit deleted": Write("DELETE", UNIT),
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
    passed = [name for name, attack in ATTACKS.items() if passes(attack, agent)]
    assert passed == []
    assert snapshot(admin) == before


def _reaches_admission(write: Write, api: Api) -> bool:
    try:
        write.send(api)
    except ApiError as error:
        return error.status == 404 or "ValidatingAdmissionPolicy" in str(error)
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
    assert [name for name, attack in ATTACKS.items() if passes(attack, machine)] == []
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
    assert [name for name, write in OWN.items() if passes(write, machine)] == []
    assert snapshot(admin) == before


def test_an_agent_reads_a_units_content_and_cannot_list_them(
    plane: Cluster, fleet: None, agent_api: Callable[[str], Api]
) -> None:
    agent = agent_api("n1")
    assert "ExecStart" in agent.get(UNIT)["spec"]["content"]
    assert_forbidden(Write("GET", f"{BASE}/units"), agent)
