"""The operator's fields and people's fields have one writer each, held by the API server."""

import copy
from collections.abc import Callable, Iterator

import pytest

from admissions import (
    ACTIVATE,
    AGENT_VALUES,
    ALL_RIGHTS,
    BASE,
    LEASES,
    OPERATOR_VALUES,
    ORDER,
    OTHER_LEASES,
    PODS,
    RENEWED,
    Write,
    assert_forbidden,
    lease,
    node,
    passes,
    snapshot,
    status_patch,
)
from careen.api.admission import agent_status
from careen.api.meta import NAMESPACE
from careen.sandbox.accounts import mint_agent_token, mint_operator_token
from careen.sandbox.client import APPLY, Api, ApiError, wait_until
from careen.sandbox.cluster import Cluster

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
    "a unit's place": (Write("PATCH", f"{BASE}/units/web.service/status", {"status": {"placements": []}}),
                       "status of a Unit is written by the operator alone"),
    "what a machine holds": (Write("PATCH", f"{BASE}/nodes/n1", {"spec": {"units": [
        {"name": "a.service", "unit": "a.service", "hash": "1" * 40, "desiredState": "launched"}]}}), "spec.units"),
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
    lease = operator_api.get(f"{LEASES}/careen-operator")
    Write("PUT", f"{LEASES}/careen-operator", {**lease, "spec": {"holderIdentity": "o"}}).send(operator_api)
    Write("PATCH", "/api/v1/nodes/n1", {"spec": {"unschedulable": True}}).send(operator_api)
    Write("DELETE", f"{BASE}/nodes/n1").send(operator_api)


def test_the_operator_leaves_each_of_the_agents_fields_alone(
    plane: Cluster, fleet: None, operator_api: Api, agent_api: Callable[[str], Api]
) -> None:
    assert set(agent_status()) == set(AGENT_VALUES)
    added = [name for name, value in AGENT_VALUES.items() if passes(status_patch("n1", {name: value}), operator_api)]
    assert added == []
    status_patch("n1", AGENT_VALUES).send(agent_api("n1"))
    removed = [name for name in AGENT_VALUES if passes(status_patch("n1", {name: None}), operator_api)]
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
    assert [name for name, write in OPERATOR_REFUSED.items() if passes(write, operator_api)] == []
    assert snapshot(admin) == before


def test_the_operators_name_without_its_namespace_is_nobody(
    plane: Cluster, admin: Api, fleet: None, person: Callable[..., Api]
) -> None:
    """An account of the same name in another namespace is not the operator, whatever rights it has."""
    api = person("cluster-admin", name="careen-operator")
    wait_until(lambda: _reads_secrets(api), "the account's rights", 10)
    write = Write("PATCH", f"{BASE}/nodes/n1", {"spec": {"assignment": ACTIVATE}})
    assert "spec.assignment" in assert_forbidden(write, api)


def test_who_may_edit_machines_may_reboot_them_and_not_empty_them(
    plane: Cluster, admin: Api, fleet: None, person: Callable[..., Api]
) -> None:
    api = person("careen-edit")
    reset = Write("PATCH", f"{BASE}/nodes/n1", {"spec": {"request": RESET}})
    reboot = Write("PATCH", f"{BASE}/nodes/n1", {"spec": {"request": {"action": "Reboot", "id": "r-0"}}})
    wait_until(lambda: passes(reboot, api), "the account's rights", 10)
    assert "the verb reset on nodes.careen.dev" in assert_forbidden(reset, api)
    reset.send(admin)
    # What somebody else asked for is in the way of no other edit, and may be taken back.
    Write("PATCH", f"{BASE}/nodes/n1", {"spec": {"paused": True}}).send(api)
    Write("PATCH", f"{BASE}/nodes/n1", {"spec": {"request": None}}).send(api)


def test_the_role_for_resets_is_enough_for_them(
    plane: Cluster, admin: Api, fleet: None, person: Callable[..., Api]
) -> None:
    api = person("careen-reset-admin")
    write = Write("PATCH", f"{BASE}/nodes/n1", {"spec": {"request": RESET}})
    wait_until(lambda: passes(write, api), "the account's rights", 10)


@pytest.fixture
def person(plane: Cluster, admin: Api) -> Iterator[Callable[..., Api]]:
    """Somebody with an account in another namespace, and with one role."""
    accounts, made = "/api/v1/namespaces/default/serviceaccounts", []

    def make(role: str, name: str = "somebody") -> Api:
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
        subject = {"kind": "ServiceAccount", "name": name, "namespace": "default"}
        admin.create(accounts, {"metadata": {"name": name}})
        admin.create(
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            {"metadata": {"name": ALL_RIGHTS}, "roleRef": reference, "subjects": [subject]},
        )
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 900}}
        token = admin.create(f"{accounts}/{name}/token", request)["status"]["token"]
        made.append((name, Api(plane.kubeconfig_with_token(token))))
        return made[-1][1]

    yield make
    for name, api in made:
        api.close()
        admin.delete(f"{accounts}/{name}")


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
