"""The control plane itself: that it is real, and that nothing of it stays behind."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest

from careen.sandbox import components
from careen.sandbox.audit import AuditReader
from careen.sandbox.client import STRATEGIC_MERGE, Api, ApiError, wait_until
from careen.sandbox.cluster import Cluster
from careen.sandbox.components import Ports
from careen.sandbox.controlplane import ControlPlane
from careen.sandbox.nodes import (
    NODES,
    SIM_ANNOTATION,
    create_nodes,
    create_workload,
    is_ready,
    node_manifests,
    workload_manifests,
)

PODS = "/api/v1/namespaces/careen-test/pods"
DEPLOYMENTS = "/apis/apps/v1/namespaces/careen-test/deployments"
BUDGETS = "/apis/policy/v1/namespaces/careen-test/poddisruptionbudgets"
ACCOUNTS = "/api/v1/namespaces/careen-test/serviceaccounts"

OWNER = """
import json, signal, sys, time
# Whoever runs the tests in the background may have left SIGINT ignored for all children.
signal.signal(signal.SIGINT, signal.default_int_handler)
from careen.sandbox.components import Ports
from careen.sandbox.controlplane import ControlPlane
plane = ControlPlane(controllers=False, scheduler=False).start()
print(json.dumps({"pids": plane.pids, "folder": str(plane.kubeconfig.parent.parent)}), flush=True)
time.sleep(300)
"""


def make_ready_nodes(api: Api, count: int) -> None:
    create_nodes(api, node_manifests(count, 3))
    wait_until(lambda: all(is_ready(node) for node in api.items(NODES)), "nodes ready", 20)


def available(api: Api, name: str) -> int:
    return int(api.get(f"{DEPLOYMENTS}/{name}").get("status", {}).get("availableReplicas", 0))


def allowed(api: Api, name: str) -> int:
    return int(api.get(f"{BUDGETS}/{name}").get("status", {}).get("disruptionsAllowed", 0))


def evict(api: Api, pod: dict[str, Any]) -> None:
    name = pod["metadata"]["name"]
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": "careen-test"},
        "deleteOptions": {"preconditions": {"uid": pod["metadata"]["uid"]}},
    }
    api.create(f"{PODS}/{name}/eviction", body)


def pod_manifest(name: str, node: str, **spec: Any) -> dict[str, Any]:
    containers = [{"name": "main", "image": "example.invalid/main"}]
    return {"metadata": {"name": name}, "spec": {"nodeName": node, "containers": containers} | spec}


def test_server_says_its_version(plane: Cluster, admin: Api) -> None:
    assert admin.get("/version")["gitVersion"] == "v1.37.2"
    assert json.loads(plane.kubectl("version", "-o", "json"))["clientVersion"]["gitVersion"] == "v1.37.2"


def test_eviction_respects_the_budget_and_moves_the_pod(plane: Cluster, admin: Api) -> None:
    make_ready_nodes(admin, 6)
    for name, minimum in (("web", 3), ("all", 4)):
        create_workload(admin, workload_manifests(name, 4, minimum, namespace="careen-test"))
    wait_until(lambda: available(admin, "web") == available(admin, "all") == 4, "pods available", 30)
    wait_until(lambda: allowed(admin, "web") == 1, "one disruption allowed", 10)
    pod = admin.items(PODS, labelSelector="app=web")[0]
    kept = admin.items(PODS, labelSelector="app=all")[0]

    with pytest.raises(ApiError, match="disruption budget") as refused:
        evict(admin, kept)
    evict(admin, pod)

    assert refused.value.status == 429
    wait_until(lambda: pod["metadata"]["uid"] not in uids(admin, PODS), "the evicted pod gone", 10)
    wait_until(lambda: available(admin, "web") == 4, "a pod in its place", 30)


def uids(api: Api, path: str) -> set[str]:
    return {each["metadata"]["uid"] for each in api.items(path)}


def test_kwok_leaves_a_machine_that_reboots_alone(plane: Cluster, admin: Api) -> None:
    make_ready_nodes(admin, 2)
    down = {"type": "Ready", "status": "False", "reason": "Rebooting"}
    status = {"status": {"conditions": [down], "nodeInfo": {"bootID": "boot-2"}}}
    admin.patch(f"{NODES}/node-1/status", status, STRATEGIC_MERGE)

    # A second node made now goes through kwok after that patch: when it is ready, kwok has seen both.
    create_nodes(admin, node_manifests(1, 1, prefix="later-"))
    wait_until(lambda: is_ready(admin.get(f"{NODES}/later-1")), "the later node ready", 20)

    node = admin.get(f"{NODES}/node-1")
    assert not is_ready(node)
    assert node["status"]["nodeInfo"]["bootID"] == "boot-2"
    assert node["status"]["nodeInfo"]["machineID"]


def test_pods_that_will_not_end_and_pods_that_will_not_be_ready(plane: Cluster, admin: Api) -> None:
    make_ready_nodes(admin, 1)
    for name in ("never-ready", "never-terminates", "plain"):
        pod = pod_manifest(name, "node-1", terminationGracePeriodSeconds=1)
        pod["metadata"]["annotations"] = {SIM_ANNOTATION: name}
        admin.create(PODS, pod)
    wait_until(lambda: {phase(admin, name) for name in ("never-ready", "plain")} == {"Running"}, "running", 20)
    wait_until(lambda: is_ready(admin.get(f"{PODS}/plain")), "the plain pod ready", 10)
    assert not is_ready(admin.get(f"{PODS}/never-ready"))

    admin.delete(f"{PODS}/never-terminates")
    admin.delete(f"{PODS}/plain")
    wait_until(lambda: admin.find(f"{PODS}/plain") is None, "the plain pod gone", 10)
    assert admin.get(f"{PODS}/never-terminates")["metadata"]["deletionTimestamp"]


def phase(api: Api, name: str) -> str:
    return str(api.get(f"{PODS}/{name}")["status"].get("phase"))


def test_pod_is_removed_after_its_grace_and_not_before(plane: Cluster, admin: Api) -> None:
    make_ready_nodes(admin, 1)
    for name, grace in (("slow", 30), ("quick", 1)):
        admin.create(PODS, pod_manifest(name, "node-1", terminationGracePeriodSeconds=grace))
    wait_until(lambda: {phase(admin, name) for name in ("slow", "quick")} == {"Running"}, "running", 20)
    admin.delete(f"{PODS}/slow")
    admin.delete(f"{PODS}/quick")
    wait_until(lambda: admin.find(f"{PODS}/quick") is None, "the quick pod gone", 10)
    assert admin.find(f"{PODS}/slow") is not None


def test_token_bound_to_a_pod_names_its_node(plane: Cluster, admin: Api) -> None:
    make_ready_nodes(admin, 1)
    admin.create(ACCOUNTS, {"metadata": {"name": "agent"}})
    pod = admin.create(PODS, pod_manifest("agent", "node-1", serviceAccountName="agent"))
    bound = {"kind": "Pod", "apiVersion": "v1", "name": "agent", "uid": pod["metadata"]["uid"]}
    answer = admin.create(f"{ACCOUNTS}/agent/token", {"spec": {"boundObjectRef": bound}})
    agent = Api(plane.kubeconfig_with_token(answer["status"]["token"]))

    review = agent.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", {})

    user = review["status"]["userInfo"]
    assert user["username"] == "system:serviceaccount:careen-test:agent"
    assert user["extra"]["authentication.kubernetes.io/node-name"] == ["node-1"]
    admin.delete(f"{ACCOUNTS}/agent")


def test_any_user_can_be_played(own_plane: ControlPlane) -> None:
    api = Api(own_plane.kubeconfig_for("ann", ["crew"]))
    reader = AuditReader(own_plane.audit_log)
    with pytest.raises(ApiError, match='User "ann" cannot list resource "nodes"'):
        api.get(NODES)
    refused = [request for request in reader.read() if request.user == "ann"]
    assert [(each.verb, each.resource, each.code) for each in refused] == [("list", "nodes", 403)]


def test_each_test_begins_without_objects(plane: Cluster, admin: Api) -> None:
    """The tests above left nodes, pods, a deployment, a budget and a pod that does not end."""
    assert [admin.items(path) for path in (NODES, PODS, DEPLOYMENTS, BUDGETS)] == [[], [], [], []]


def watch(api: Api, version: str) -> dict[str, Any]:
    """Ask for the changes of nodes since a version, and return the first that came within a second."""
    query = {"watch": "1", "resourceVersion": version, "timeoutSeconds": "1"}
    answer = api.request("GET", NODES, query=query)
    # Several changes are several documents, which the client hands on as text.
    first = json.loads(answer["message"].splitlines()[0]) if "message" in answer else answer
    assert isinstance(first, dict)
    return first


def test_watch_from_before_a_compaction_gets_410(own_plane: ControlPlane, admin: Api) -> None:
    before = admin.get(NODES)["metadata"]["resourceVersion"]
    make_ready_nodes(admin, 1)
    assert watch(admin, before)["object"]["metadata"]["name"] == "node-1"
    own_plane.compact_etcd()
    own_plane.restart_apiserver()
    expired = watch(admin, before)
    assert (expired["type"], expired["object"]["code"]) == ("ERROR", 410)


def test_proxy_cuts_and_restores_the_line(own_plane: ControlPlane, admin: Api) -> None:
    trusted = ssl.create_default_context(cafile=str(own_plane.ca))

    def connect(port: int) -> HTTPSConnection:
        connection = HTTPSConnection("127.0.0.1", port, timeout=10, context=trusted)
        connection.request("GET", "/livez?verbose", headers={"Connection": "keep-alive"})
        return connection

    with own_plane.proxy() as proxy:
        kept = connect(proxy.port)
        assert kept.getresponse().read().endswith(b"livez check passed\n")
        proxy.cut()
        assert is_dropped(kept.sock)
        with pytest.raises(ConnectionError):
            connect(proxy.port)
        proxy.restore()
        assert connect(proxy.port).getresponse().status == 200


def is_dropped(connection: socket.socket) -> bool:
    """Whether the other side ends the connection, in whatever way, within the connection's timeout."""
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_planes_run_side_by_side_and_outlive_the_threads_that_started_them(own_plane: ControlPlane) -> None:
    planes = [ControlPlane(controllers=False, scheduler=False, kwok=False) for _ in range(2)]
    try:
        with ThreadPoolExecutor(max_workers=2) as threads:
            list(threads.map(ControlPlane.start, planes))
        create_nodes(planes[0].api(), node_manifests(1, 1))
        assert [len(each.api().items(NODES)) for each in (*planes, own_plane)] == [1, 0, 0]
    finally:
        folders = [each.kubeconfig.parent for each in planes]
        pids = [pid for each in planes for pid in each.pids.values()]
        for each in planes:
            each.stop()
    assert not any(folder.exists() for folder in folders)
    assert not any(alive(pid) for pid in pids)
    assert all((each.logs / "apiserver.log").exists() for each in planes), "logs stay"


@pytest.mark.parametrize("taken", ["etcd", "apiserver", "kwok"])
def test_taken_port_is_no_failure(own_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch, taken: str) -> None:
    """Somebody takes a port between our look and the child's bind."""
    free = components.free_ports
    with socket.socket() as thief:
        # Bound without listening: connections are refused at once instead of waiting for an answer.
        thief.bind(("127.0.0.1", 0))
        stolen = thief.getsockname()[1]
        first = replace(Ports(*free(4)), **{taken: stolen})
        answers = iter([list(vars(first).values()), free(4)])
        monkeypatch.setattr(components, "free_ports", lambda count: next(answers))
        with ControlPlane(scheduler=False, controllers=False, kwok=taken == "kwok") as second:
            assert second.api().items(NODES) == []
            assert stolen not in vars(second.ports).values()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_stays_behind_when_the_owner_dies(own_plane: ControlPlane, how: signal.Signals) -> None:
    command = [sys.executable, "-c", OWNER]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as owner:
        assert owner.stdout is not None
        told = json.loads(owner.stdout.readline())
        assert len(told["pids"]) == 3
        assert all(alive(pid) for pid in told["pids"].values())
        owner.send_signal(how)
        try:
            owner.wait(20)
        finally:
            owner.kill()
    wait_until(lambda: not any(alive(pid) for pid in told["pids"].values()), "processes gone", 10)
    wait_until(lambda: not Path(told["folder"]).exists(), "data gone", 10)


def alive(pid: int) -> bool:
    """Whether the process runs; one that is dead and not collected yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
