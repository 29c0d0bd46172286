"""The chart on a real API server: it installs, upgrades, rolls back and goes, and people's objects stay."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from careen.sandbox.client import Api, ApiError, wait_until
from careen.sandbox.cluster import DEFINITIONS
from careen.sandbox.controlplane import ControlPlane
from helm import CHART, NAMESPACE, RELEASE

BASE = "/apis/careen.dev/v1alpha1"
HERE = Path(__file__).parent
VALUES = [*sorted((HERE / "values").glob("*.yaml")), HERE.parent / "e2e/values-kind.yaml"]
KINDS = Path(__file__).parents[2] / "crds"
MONITORING = Path(__file__).parent / "monitoring.yaml"
RULES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
POLICY = {
    "apiVersion": "careen.dev/v1alpha1",
    "kind": "UpdatePolicy",
    "metadata": {"name": "os"},
    "spec": {"release": {"repository": "https://releases.example.com/os", "channel": "stable"}},
}


def test_each_values_file_is_taken_by_the_api_server(bare, admin: Api, plane: ControlPlane) -> None:
    """With all kinds there, but nothing of Careen: what is laid over an older object is mixed with it."""
    kinds = [MONITORING, *sorted(KINDS.glob("*.careen.dev.yaml"))]
    plane.kubectl("apply", "--server-side", *(f"--filename={path}" for path in kinds))
    names = [f"crd/{each['metadata']['name']}" for path in kinds for each in yaml.safe_load_all(path.read_text())]
    plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)
    if admin.find(f"/api/v1/namespaces/{NAMESPACE}") is None:
        admin.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    for values in VALUES:
        text = bare.helm.run("template", RELEASE, CHART, "--values", values)
        answer = plane.kubectl(
            "apply", "--server-side", "--dry-run=server", "--validate=strict", "--force-conflicts", "--filename=-",
            stdin=text,
        )  # fmt: skip
        assert "serverside-applied" in answer


def test_it_is_installed_as_it_says(installed, admin: Api, plane: ControlPlane) -> None:
    deployment = admin.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/careen-operator")
    assert deployment["status"]["readyReplicas"] == 2
    assert len({pod["spec"]["nodeName"] for pod in installed.operator_pods()}) == 2, "one operator a Node"
    assert admin.get(f"{BASE}/rebootlocks/default")["spec"]["max"] == 1
    columns = plane.kubectl("get", "rebootlocks").splitlines()[0].split()
    assert columns[:3] == ["NAME", "MAX", "AVAILABLE"]
    # Without a token nobody is the operator, and without its token nobody is an agent.
    for name in ("careen-operator", "careen-agent"):
        account = admin.get(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{name}")
        assert account["automountServiceAccountToken"] is False
    probe = {"apiVersion": "careen.dev/v1alpha1", "kind": "Node", "metadata": {"name": "probe"}, "spec": {}}
    wait_until(lambda: refuses(admin, probe), "the admission policies are in force", 30)


def test_the_commands_of_the_notes_work(installed, admin: Api, plane: ControlPlane) -> None:
    notes = installed.helm.run("get", "notes", RELEASE)
    commands = find_commands(notes)
    assert len(commands) == 4
    path = f"{plane.kubectl_program.parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "KUBECONFIG": str(plane.kubeconfig), "HOME": "/nonexistent"}
    try:
        for command in commands:
            # A watch that is taken goes on until it is ended.
            seconds, code = ("5", 124) if command.endswith("--watch") else ("60", 0)
            limited = ["timeout", seconds, "bash", "-c", command]
            done = subprocess.run(limited, env=environment, capture_output=True, text=True, check=False, timeout=70)
            assert done.returncode == code, f"{command}: {done.stderr}"
        assert admin.get(f"{BASE}/updatepolicies/os")["spec"]["release"]["channel"] == "stable"
        switch = admin.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/careen-switch")
        assert switch["data"] == {"paused": "true"}
    finally:
        admin.delete(f"/api/v1/namespaces/{NAMESPACE}/configmaps/careen-switch")


def find_commands(notes: str) -> list[str]:
    """The commands that the notes tell, each with its here-document."""
    text = re.sub(r"^   ", "", notes, flags=re.MULTILINE)
    return re.findall(r"^(?:To stop: )?(kubectl (?:[^\n]*<<EOF\n.*?^EOF$|[^\n]*))", text, re.MULTILINE | re.DOTALL)


def refuses(admin: Api, document: dict[str, Any]) -> bool:
    try:
        admin.request("POST", f"{BASE}/nodes", document, query={"dryRun": "All"})
    except ApiError as error:
        return error.status == 403
    return False


def test_the_rules_are_sound_to_the_api_server(installed, admin: Api) -> None:
    """Its own type check of each expression has nothing to say."""
    wait_until(lambda: all(is_checked(each) for each in ours(admin)), "the policies' types are checked", 60)
    checked = ours(admin)
    assert len(checked) == 6
    for policy in checked:
        assert policy["status"]["typeChecking"].get("expressionWarnings") in (None, []), policy["metadata"]["name"]


def is_checked(policy: dict[str, Any]) -> bool:
    return "typeChecking" in (policy.get("status") or {})


def ours(admin: Api) -> list[dict[str, Any]]:
    return [each for each in admin.items(RULES) if each["metadata"]["name"].startswith("careen-")]


def test_operators_run_in_a_namespace_of_restricted_pods(installed, admin: Api) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    admin.create("/api/v1/namespaces", {"metadata": {"name": "restricted", "labels": labels}})
    account = "/api/v1/namespaces/restricted/serviceaccounts/careen-operator"
    admin.create(account.rpartition("/")[0], {"metadata": {"name": "careen-operator"}})
    agent = admin.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/careen-agent")["spec"]["template"]["spec"]
    try:
        for spec, taken in ((installed.operator_pods()[0]["spec"], True), (agent, False)):
            here = {"nodeName": "infra-1", "serviceAccountName": "careen-operator", "serviceAccount": "careen-operator"}
            pod = {"metadata": {"name": "probe"}, "spec": {**spec, **here}}
            path = "/api/v1/namespaces/restricted/pods"
            if taken:
                admin.request("POST", path, pod, query={"dryRun": "All"})
            else:
                with pytest.raises(ApiError, match="violates PodSecurity"):
                    admin.request("POST", path, pod, query={"dryRun": "All"})
    finally:
        admin.delete("/api/v1/namespaces/restricted")


@pytest.fixture
def previous(tmp_path: Path) -> Path:
    """A chart of an older version: another image, a kind that lacks a field and a column, no network policies."""
    chart = tmp_path / "previous"
    shutil.copytree(CHART, chart)
    about = chart / "Chart.yaml"
    about.write_text(about.read_text().replace("ersion: 0.1.0", "ersion: 0.0.9").replace('"0.1.0"', '"0.0.9"'))
    (chart / "templates" / "networkpolicies.yaml").unlink()
    kind = chart / "templates" / "crd-rebootlocks.yaml"
    head, _, rest = kind.read_text().partition("              paused:\n")
    kind.write_text(head + rest[rest.index("          status:\n") :])
    return chart


@pytest.mark.slow
def test_upgrade_rollback_and_uninstall_keep_peoples_objects(bare, admin: Api, previous: Path) -> None:
    bare.set_up(chart=previous)
    assert "paused" not in lock_fields(admin)
    admin.create(f"{BASE}/updatepolicies", POLICY)
    admin.patch(f"{BASE}/rebootlocks/default", {"spec": {"max": 4}})
    before = identities(admin)

    bare.set_up()
    assert image(admin).endswith(":0.1.0")
    assert "paused" in lock_fields(admin), "the kinds are upgraded with the chart"
    assert identities(admin) == before
    admin.patch(f"{BASE}/rebootlocks/default", {"spec": {"paused": True}})
    admin.patch(f"{BASE}/rebootlocks/default", {"spec": {"paused": False}})

    bare.helm.run("rollback", RELEASE, "1", "--wait")
    assert image(admin).endswith(":0.0.9")
    assert identities(admin) == before

    bare.set_up()
    bare.helm.run("uninstall", RELEASE, "--wait")
    assert identities(admin) == before, "uninstall keeps kinds and objects"
    assert ours(admin) == []
    assert admin.find(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/careen-operator") is None

    bare.set_up()
    assert identities(admin) == before, "a new install takes them over as they are"


def lock_fields(admin: Api) -> set[str]:
    kind = admin.get(f"{DEFINITIONS}/rebootlocks.careen.dev")
    return set(kind["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"])


def identities(admin: Api) -> dict[str, Any]:
    """UID and wishes of people's objects."""
    policy, lock = admin.get(f"{BASE}/updatepolicies/os"), admin.get(f"{BASE}/rebootlocks/default")
    return {
        "policy": (policy["metadata"]["uid"], policy["spec"]["release"]),
        "lock": (lock["metadata"]["uid"], lock["spec"]["max"]),
    }


def image(admin: Api) -> str:
    deployment = admin.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/careen-operator")
    return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])
