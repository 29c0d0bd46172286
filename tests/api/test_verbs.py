"""The user's verbs on a real API server: what they write, what they print, and how they end."""

from __future__ import annotations

import http.server
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from careen.cli.main import run
from careen.sandbox.client import Api
from careen.sandbox.cluster import Cluster
from careen.sandbox.documents import digest_of, sign_documents
from careen.sandbox.nodes import create_nodes, node_manifest

OURS = "/apis/careen.dev/v1alpha1"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/careen-system/leases"
DIGEST = digest_of(2)
Careen = Callable[..., tuple[int, str, str]]


@pytest.fixture
def careen(plane: Cluster, _accounts: None, capsys: pytest.CaptureFixture[str]) -> Careen:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = run("careen", ["--kubeconfig", str(plane.kubeconfig), *arguments])
        output = capsys.readouterr()
        return code, output.out, output.err

    return call


@pytest.fixture
def lock(admin: Api, _accounts: None) -> str:
    # The install has made it, unless a test before this one was the first.
    if admin.find(f"{OURS}/rebootlocks/default") is None:
        admin.create(f"{OURS}/rebootlocks", {**kind("RebootLock", "default"), "spec": {"max": 1}})
    return "default"


@pytest.fixture
def machine(admin: Api, operator_api: Api) -> dict[str, Any]:
    create_nodes(admin, [node_manifest("m1", "zone-a")])
    return operator_api.create(f"{OURS}/nodes", kind("Node", "m1"))


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a repository with release 2.0.0, which this process trusts."""
    monkeypatch.setenv("CAREEN_TRUST_ROOT", str(sign_documents(tmp_path, [2])))
    monkeypatch.setenv("CAREEN_RELEASE_CACHE", str(tmp_path / "cache"))
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "public"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def kind(name: str, called: str) -> dict[str, Any]:
    return {"apiVersion": "careen.dev/v1alpha1", "kind": name, "metadata": {"name": called}}


def policy(name: str, repository: str = "http://127.0.0.1:1", **spec: Any) -> dict[str, Any]:
    release = {"repository": repository, "version": "2.0.0"}
    return {**kind("UpdatePolicy", name), "spec": {"release": release, **spec}}


def rollout(**fields: Any) -> dict[str, Any]:
    return {
        "id": "1-aaaaaaaaaaaa",
        "number": 1,
        "repository": "http://127.0.0.1:1",
        "version": "2.0.0",
        "digest": DIGEST,
        "sizeBytes": 4096,
        "path": "2.0.0.img",
        "startedAt": "2026-01-01T00:00:00Z",
        "waveNames": ["rest"],
        "waveBounds": ["g"],
        "failed": 0,
        "forgiven": 0,
        **fields,
    }


def assignment(goal: str = "Stage", **fields: Any) -> dict[str, Any]:
    terms = {
        "lock": "default",
        "readySeconds": 0,
        "verifyTimeoutSeconds": 600,
        "commitTimeoutSeconds": 600,
        "onSilence": "Rollback",
        "bootMethod": "Auto",
        "drainTimeoutSeconds": 3600,
    }
    release = {"repository": "http://x", "version": "2.0.0", "digest": DIGEST, "sizeBytes": 4096, "path": "2.0.0.img"}
    named = {"id": "order-1", "policy": {"name": "os", "uid": "u"}, "rollout": "1-aaaaaaaaaaaa"}
    return {**named, "release": release, "goal": goal, "terms": terms, **fields}


def report(agent: Api, name: str, **status: Any) -> None:
    slots = {
        "A": {"partition": 3, "priority": 1, "tries": 0, "successful": True, "version": "1.0.0"},
        "B": {"partition": 4, "priority": 0, "tries": 0, "successful": False},
    }
    body = {"bootID": "boot-1", "booted": "A", "protocol": 1, "slots": slots, **status}
    agent.patch(f"{OURS}/nodes/{name}/status", {"status": body})


def test_pause_and_resume_a_policy(careen: Careen, admin: Api) -> None:
    admin.create(f"{OURS}/updatepolicies", policy("os"))
    assert careen("pause", "os") == (0, "updatepolicy os paused\n", "")
    assert admin.get(f"{OURS}/updatepolicies/os")["spec"]["paused"] is True
    assert careen("pause", "os") == (0, "updatepolicy os is paused already\n", "")
    assert careen("resume", "os") == (0, "updatepolicy os is no longer paused\n", "")
    assert admin.get(f"{OURS}/updatepolicies/os")["spec"]["paused"] is False
    assert careen("resume", "os") == (0, "updatepolicy os is neither paused nor halted\n", "")


def test_resume_lifts_a_halt_for_the_failures_seen(careen: Careen, admin: Api, operator_api: Api) -> None:
    admin.create(f"{OURS}/updatepolicies", policy("os"))
    status = {"rollout": rollout(failed=2, haltedAt="2026-01-01T00:00:00Z")}
    operator_api.patch(f"{OURS}/updatepolicies/os/status", {"status": status})
    code, output, _ = careen("resume", "os")
    assert code == 0
    assert "goes on after 2 failures" in output
    annotations = admin.get(f"{OURS}/updatepolicies/os")["metadata"]["annotations"]
    assert annotations["careen.dev/resume"] == "1-aaaaaaaaaaaa/2"


def test_an_unknown_name_is_answered_with_those_there_are(careen: Careen, admin: Api) -> None:
    admin.create(f"{OURS}/updatepolicies", policy("os"))
    assert careen("pause", "so") == (1, "", "careen: there is no UpdatePolicy so; there are: os\n")
    assert careen("abort", "m9")[0] == 1
    assert careen("plan", "so") == (1, "", "careen: there is no UpdatePolicy so; there are: os\n")


def test_abort_names_the_order_that_the_machine_has(
    careen: Careen, admin: Api, operator_api: Api, machine: dict[str, Any]
) -> None:
    assert careen("abort", "m1") == (1, "", "careen: node m1 has no order to abort\n")
    operator_api.patch(f"{OURS}/nodes/m1", {"spec": {"assignment": assignment()}})
    assert careen("abort", "m1")[0] == 0
    assert admin.get(f"{OURS}/nodes/m1")["spec"]["abort"] == "order-1"


def test_retry_counts_up(careen: Careen, admin: Api, machine: dict[str, Any]) -> None:
    assert careen("retry", "m1")[:2] == (0, "retry of node m1 is 1\n")
    assert careen("retry", "m1")[:2] == (0, "retry of node m1 is 2\n")
    assert admin.get(f"{OURS}/nodes/m1")["spec"]["retry"] == 2


def test_reboot_asks_each_machine_once(careen: Careen, admin: Api, operator_api: Api, machine: dict[str, Any]) -> None:
    operator_api.create(f"{OURS}/nodes", kind("Node", "m2"))
    code, output, _ = careen("reboot", "m1", "m2", "m1")
    assert (code, len(output.splitlines())) == (0, 2)
    asked = [admin.get(f"{OURS}/nodes/{name}")["spec"]["request"] for name in ("m1", "m2")]
    assert [request["action"] for request in asked] == ["Reboot", "Reboot"]
    assert len({request["id"] for request in asked}) == 2
    assert asked[0]["id"] in output


def test_reboot_asks_nobody_when_a_name_is_wrong(careen: Careen, admin: Api, machine: dict[str, Any]) -> None:
    code, _, error = careen("reboot", "m1", "m9")
    assert (code, error) == (1, "careen: there is no Node m9; there are: m1\n")
    assert "request" not in admin.get(f"{OURS}/nodes/m1").get("spec", {})
    assert careen("reboot")[0] == 2


def test_a_request_waits_until_the_one_before_is_done(
    careen: Careen, admin: Api, operator_api: Api, machine: dict[str, Any]
) -> None:
    assert careen("reboot", "m1")[0] == 0
    first = admin.get(f"{OURS}/nodes/m1")["spec"]["request"]["id"]
    code, _, error = careen("reboot", "m1")
    assert code == 1
    assert f"node m1 has still to do its reboot {first}" in error
    done = {"id": first, "action": "Reboot", "outcome": "Done", "order": "o", "finishedAt": "2026-01-01T00:00:00Z"}
    operator_api.patch(f"{OURS}/nodes/m1/status", {"status": {"request": done}})
    assert careen("reboot", "m1")[0] == 0
    assert admin.get(f"{OURS}/nodes/m1")["spec"]["request"]["id"] != first


def test_reset_asks_for_the_name(
    careen: Careen, admin: Api, machine: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, error = careen("reset", "m1", "--confirm", "m2")
    assert code == 1
    assert "'m2' is not the name of the machine: expected m1; nothing was asked for" in error
    monkeypatch.setattr("sys.stdin", io.StringIO("m3\n"))
    assert careen("reset", "m1")[0] == 1
    assert "request" not in admin.get(f"{OURS}/nodes/m1").get("spec", {})
    monkeypatch.setattr("sys.stdin", io.StringIO("m1\n"))
    assert careen("reset", "m1")[0] == 0
    assert admin.get(f"{OURS}/nodes/m1")["spec"]["request"]["action"] == "Reset"


def test_a_paused_machine_says_that_its_reboot_waits(careen: Careen, admin: Api, machine: dict[str, Any]) -> None:
    admin.patch(f"{OURS}/nodes/m1", {"spec": {"paused": True}})
    code, output, _ = careen("reset", "m1", "--confirm", "m1")
    assert code == 0
    assert "it waits as long as the machine is paused" in output


def test_lock_by_hand(careen: Careen, admin: Api, lock: str) -> None:
    assert careen("lock", "status") == (0, "Available: 1\nMax: 1\n", "")
    assert careen("lock", "lock", "anna", "--reason", "new disks")[0] == 0
    assert careen("lock", "lock", "anna") == (0, "anna holds RebootLock default already\n", "")
    code, _, error = careen("lock", "lock", "ben")
    assert code == 1
    assert "max 1, 1 held: anna" in error
    _, output, _ = careen("lock", "status")
    assert output.splitlines()[:2] == ["Available: 0", "Max: 1"]
    head, holder = output.splitlines()[3:]
    assert head.split() == ["MACHINE", "ID", "AGE", "BY", "REASON"]
    assert (holder.split()[0], holder.split()[2]) == ("anna", "careen-sandbox-admin")
    assert holder.endswith("new disks")
    assert careen("lock", "unlock", "anna")[0] == 0
    assert careen("lock", "unlock", "anna") == (0, "anna does not hold RebootLock default\n", "")
    assert admin.get(f"{OURS}/rebootlocks/default")["status"]["available"] == 1


def test_set_max_says_the_old_and_the_new_number(careen: Careen, admin: Api, lock: str) -> None:
    assert careen("lock", "set-max", "3") == (0, "Old-Max: 1\nMax: 3\n", "")
    assert admin.get(f"{OURS}/rebootlocks/default")["spec"]["max"] == 3
    assert careen("lock", "set-max", "-1")[0] == 2
    code, _, error = careen("lock", "set-max", "3", "--lock", "other")
    assert (code, error) == (1, "careen: there is no RebootLock other; there are: default\n")


def test_a_machine_in_flight_keeps_its_lock_unless_forced(
    careen: Careen, operator_api: Api, lock: str, machine: dict[str, Any]
) -> None:
    holder = {"id": "m1", "order": "order-1", "since": "2026-01-01T00:00:00Z", "by": "operator"}
    operator_api.patch(f"{OURS}/rebootlocks/default/status", {"status": {"holders": [holder]}})
    operator_api.patch(f"{OURS}/nodes/m1", {"spec": {"assignment": assignment("Activate", fromBootID="boot-1")}})
    code, _, error = careen("lock", "unlock", "m1")
    assert code == 1
    assert "m1 is in flight (2.0.0, Idle)" in error
    assert careen("lock", "unlock", "m1", "--force")[0] == 0


def test_status_shows_machines_slots_and_holders(
    careen: Careen,
    admin: Api,
    operator_api: Api,
    agent_api: Callable[[str], Api],
    machine: dict[str, Any],
    lock: str,
) -> None:
    admin.create(f"{OURS}/updatepolicies", policy("os"))
    careen("lock", "lock", "anna")
    report(agent_api("m1"), "m1")
    note = {"state": "Waiting", "reason": "LockFull", "message": "it is full", "since": "2026-01-01T00:00:00Z"}
    operator_api.patch(f"{OURS}/nodes/m1/status", {"status": {"orchestration": note}})
    code, output, _ = careen("status")
    assert code == 0
    line = next(line for line in output.splitlines() if line.startswith("m1"))
    assert line.split() == ["m1", "A*", "1/0/1", "B", "0/0/0", "1.0.0", "-", "LockFull", "it", "is", "full"]
    assert "anna (" in output
    document = json.loads(careen("status", "os", "--json")[1])
    assert [each["machine"] for each in document["machines"]] == ["m1"]
    assert document["locks"][0]["holders"][0]["id"] == "anna"
    assert careen("status", "so")[0] == 1


def test_plan_says_what_comes_next_and_who_waits(
    careen: Careen,
    admin: Api,
    operator_api: Api,
    agent_api: Callable[[str], Api],
    lock: str,
    repository: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    create_nodes(admin, [node_manifest(name, "zone-a") for name in ("m1", "m2", "m3")])
    for name in ("m1", "m2", "m3"):
        core = admin.get(f"/api/v1/nodes/{name}")
        spec = {"coreNode": {"uid": core["metadata"]["uid"], "machineID": core["status"]["nodeInfo"]["machineID"]}}
        operator_api.create(f"{OURS}/nodes", {**kind("Node", name), "spec": spec})
    for name in ("m1", "m2"):
        agent = agent_api(name)
        report(agent, name)
        renewed = {"holderIdentity": name, "renewTime": core_time(admin)}
        agent.create(LEASES, {"metadata": {"name": f"agent-{name}"}, "spec": renewed})
    waves = [{"name": "canary", "nodeNames": ["m1"]}]
    admin.create(f"{OURS}/updatepolicies", policy("os", repository, strategy={"waves": waves}))

    document = json.loads(careen("plan", "os", "--json")[1])
    assert document["begins"] is True
    assert [(wave["name"], wave["machines"]) for wave in document["waves"]] == [
        ("canary", ["m1"]),
        ("rest", ["m2", "m3"]),
    ]
    assert [(step["action"], step["machine"]) for step in document["next"]] == [("stage", "m1")]
    reasons = {each["machine"]: each["reason"] for each in document["machines"]}
    assert reasons == {"m1": "Staging", "m2": "WavePending", "m3": "AgentMissing"}
    code, output, _ = careen("plan", "os")
    assert code == 0
    digest = DIGEST.removeprefix("sha256:")[:12]
    assert f"rollout 1-{digest} to 2.0.0 (sha256:{digest}) would begin" in output
    assert "wave rest begins when wave canary is done: m1" in output
    admin.patch(f"{OURS}/updatepolicies/os", {"spec": {"release": {"version": "9.0.0"}}})
    assert "has no release 9.0.0; it has 2.0.0" in careen("plan", "os")[1]
    monkeypatch.delenv("CAREEN_TRUST_ROOT")
    assert "the operator has not looked the release up yet; --trust-root FILE" in careen("plan", "os")[1]


def core_time(admin: Api) -> str:
    """The API server's time, from the creation of some object."""
    probe = admin.request("POST", "/api/v1/namespaces", {"metadata": {"name": "time"}}, query={"dryRun": "All"})
    return str(probe["metadata"]["creationTimestamp"]).replace("Z", ".000000Z")


def test_all_of_it_is_a_kubectl_plugin(plane: Cluster, tmp_path: Path, lock: str) -> None:
    plugin = tmp_path / "kubectl-careen"
    plugin.write_text(f"#!{sys.executable}\nfrom careen.cli.main import main\n\nmain()\n")
    plugin.chmod(0o755)
    (tmp_path / "kubectl").symlink_to(plane.kubectl_program)
    source = Path(__file__).parents[2] / "operator"
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(source)}
    command = ["kubectl", "careen", "lock", "status", f"--kubeconfig={plane.kubeconfig}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "Available: 1\nMax: 1\n")
    wrong = ["kubectl", "careen", "lock", "status", "--lock=no", f"--kubeconfig={plane.kubeconfig}"]
    done = subprocess.run(wrong, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("kubectl careen: there is no RebootLock no;")
