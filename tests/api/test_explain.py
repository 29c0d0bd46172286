"""What kubectl shows of our kinds: descriptions, columns, filled-in defaults, waiting."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from careen.api.lock import RebootLockSpec
from careen.api.policy import Boot, ReleaseRef, Strategy, UpdatePolicySpec
from careen.sandbox.binaries import SandboxError
from careen.sandbox.client import Api
from careen.sandbox.cluster import Cluster
from careen.sandbox.controlplane import ControlPlane
from careen.sandbox.nodes import create_nodes, node_manifest

BASE = "/apis/careen.dev/v1alpha1"
NOW = "2026-01-01T00:00:00Z"
DIGEST = "sha256:" + "a" * 64
RELEASE = {"repository": "http://127.0.0.1:8000/os", "version": "1.0.0"}
ORDER: dict[str, Any] = {
    "id": "order-1",
    "policy": {"name": "fleet", "uid": "1b4e28ba"},
    "rollout": "2-aaaaaaaa",
    "release": RELEASE | {"version": "2.0.0", "digest": DIGEST, "sizeBytes": 1, "path": "2.0.0.img"},
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


def document(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "careen.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def condition(kind: str, status: str, reason: str, generation: int, message: str = "") -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": NOW,
        "observedGeneration": generation,
    }


def table(text: str) -> list[dict[str, str]]:
    """kubectl's table as one dict a row, cut at the columns' starts."""
    header, *rows = text.splitlines()
    found = list(re.finditer(r"\S+", header))
    names, starts = [each.group() for each in found], [each.start() for each in found]
    ends = [*starts[1:], None]
    return [
        {name: row[start:end].strip() for name, start, end in zip(names, starts, ends, strict=True)} for row in rows
    ]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("updatepolicies", "which machines run which release"),
        ("upol.spec.drain.timeoutSeconds", "Default 3600."),
        ("upol.spec.strategy.maxUnavailable", "a percentage of them"),
        ("upol.spec.release.digest", "64 hex digits"),
        ("upol.status.rollout.haltedAt", "careen resume"),
        ("cnode", "The shadow of one machine"),
        ("cnode.spec.abort", "set by `careen abort`"),
        ("cnode.spec.assignment", "written by the operator alone"),
        ("cnode.status.slots.A.tries", "Boot attempts that the boot loader may still spend"),
        ("rlock.spec.max", "0 grants nothing"),
        ("rlock.status.holders.unavailableAtGrant", "not Ready, or its agent silent, when the lock was granted"),
    ],
)
def test_explain_shows_what_the_models_say(plane: Cluster, path: str, words: str) -> None:
    assert words in " ".join(plane.kubectl("explain", path).split())


def test_explain_has_words_for_each_field(plane: Cluster, admin: Api) -> None:
    """From the document that `kubectl explain` reads."""
    schemas = admin.get("/openapi/v3/apis/careen.dev/v1alpha1")["components"]["schemas"]
    ours = {name: schema for name, schema in schemas.items() if name.startswith("dev.careen.") and "List" not in name}
    assert len(ours) == 4
    assert [path for name, schema in ours.items() for path in find_silent(schema, name.rpartition(".")[2])] == []


def find_silent(schema: dict[str, Any], path: str) -> Iterator[str]:
    """Paths of fields without a description."""
    for name, inner in schema.get("properties", {}).items():
        if not inner.get("description"):
            yield f"{path}.{name}"
        yield from find_silent(inner, f"{path}.{name}")
    for part in ("items", "additionalProperties"):
        if isinstance(schema.get(part), dict):
            yield from find_silent(schema[part], f"{path}[]")


def test_defaults_are_filled_in_as_the_models_have_them(plane: Cluster, admin: Api) -> None:
    made = admin.create(f"{BASE}/updatepolicies", document("UpdatePolicy", "fleet", {"release": RELEASE}))
    assert made["spec"] == UpdatePolicySpec(release=ReleaseRef.model_validate(RELEASE)).dump()
    lock = admin.create(f"{BASE}/rebootlocks", document("RebootLock", "other", {"max": 2}))
    assert lock["spec"] == RebootLockSpec(max=2).dump()


def test_defaults_beside_given_fields_are_filled_in_too(plane: Cluster, admin: Api) -> None:
    given = {"release": RELEASE, "strategy": {"maxUnavailable": "30%"}, "boot": {"onSilence": "Wait"}}
    made = admin.create(f"{BASE}/updatepolicies", document("UpdatePolicy", "fleet", given))
    assert made["spec"]["strategy"] == Strategy(max_unavailable="30%").dump()
    assert made["spec"]["boot"] == Boot(on_silence="Wait").dump()


def test_a_machine_tells_its_story_in_one_row(own_plane: ControlPlane, admin: Api, operator_api: Api) -> None:
    operator_api.create(f"{BASE}/nodes", document("Node", "node-1", {"assignment": ORDER}))
    orchestration = {"state": "Waiting", "reason": "LockFull", "message": "lock default: 1 of 1 held", "since": NOW}
    operator_api.patch(f"{BASE}/nodes/node-1/status", {"status": {"orchestration": orchestration}})
    row = table(own_plane.kubectl("get", "cnode"))[0]
    assert row.pop("AGE")
    assert row == {
        "NAME": "node-1", "BOOTED": "", "A": "", "B": "", "WANTED": "2.0.0", "GOAL": "Stage", "PHASE": "",
        "REASON": "LockFull",
    }  # fmt: skip


def test_an_agents_report_fills_its_columns(
    plane: Cluster, admin: Api, operator_api: Api, agent_api: Callable[[str], Api]
) -> None:
    create_nodes(admin, [node_manifest("node-1", "zone-a")])
    operator_api.create(f"{BASE}/nodes", document("Node", "node-1", {"assignment": ORDER}))
    status = {
        "slots": {
            "A": {"partition": 2, "priority": 2, "tries": 0, "successful": True, "version": "1.0.0"},
            "B": {"partition": 3, "priority": 0, "tries": 1, "successful": False, "version": "2.0.0"},
        },
        "booted": "A",
        "bootID": "8c1f6f1e",
        "step": {"id": "order-1", "phase": "Staged"},
    }
    agent_api("node-1").patch(f"{BASE}/nodes/node-1/status", {"status": status})
    row = table(plane.kubectl("get", "cnode", "-o", "wide"))[0]
    shown = {name: row[name] for name in ("BOOTED", "A", "B", "PHASE", "BOOT-ID", "POLICY")}
    assert shown == {
        "BOOTED": "A", "A": "1.0.0", "B": "2.0.0", "PHASE": "Staged", "BOOT-ID": "8c1f6f1e", "POLICY": "fleet",
    }  # fmt: skip
    assert [row[f"A-{letter}"] for letter in "PTS"] == ["2", "0", "true"]
    assert [row[f"B-{letter}"] for letter in "PTS"] == ["0", "1", "false"]


def test_a_policy_tells_its_story_in_one_row(plane: Cluster, admin: Api, operator_api: Api) -> None:
    admin.create(f"{BASE}/updatepolicies", document("UpdatePolicy", "fleet", {"release": RELEASE}))
    rollout = RELEASE | {
        "id": "1-aaaaaaaa", "number": 1, "digest": DIGEST, "sizeBytes": 1, "path": "1.img", "startedAt": NOW,
        "waveNames": ["canary", "rest"], "waveBounds": ["4", ""], "wave": 1,
    }  # fmt: skip
    conditions = [
        condition("Complete", "False", "RollingOut", 1),
        condition("Waiting", "True", "LockFull", 1, "lock default: 1 of 1 held"),
    ]
    counts = {"selected": 6, "updated": 3, "unavailable": 1, "inFlight": 1}
    status = {"rollout": rollout, "counts": counts, "summary": "3/6", "conditions": conditions}
    operator_api.patch(f"{BASE}/updatepolicies/fleet/status", {"status": status})
    row = table(plane.kubectl("get", "upol"))[0]
    assert row.pop("AGE")
    assert row == {
        "NAME": "fleet", "VERSION": "1.0.0", "WAVE": "1", "UPDATED": "3/6", "UNAVAILABLE": "1", "COMPLETE": "False",
        "REASON": "RollingOut", "WAITING": "LockFull", "PAUSED": "false",
    }  # fmt: skip
    assert table(plane.kubectl("get", "upol", "-o", "wide"))[0]["MESSAGE"] == "lock default: 1 of 1 held"


def test_a_lock_tells_its_story_in_one_row(plane: Cluster, admin: Api, operator_api: Api) -> None:
    admin.create(f"{BASE}/rebootlocks", document("RebootLock", "racks", {"max": 2}))
    holders = [{"id": "node-1", "since": NOW, "order": "order-1"}]
    operator_api.patch(f"{BASE}/rebootlocks/racks/status", {"status": {"term": 3, "available": 1, "holders": holders}})
    row = table(plane.kubectl("get", "rlock", "racks"))[0]
    assert row.pop("AGE")
    assert row == {"NAME": "racks", "MAX": "2", "AVAILABLE": "1", "HOLDER": "node-1", "PAUSED": "false", "TERM": "3"}


def test_all_kinds_are_in_one_category(plane: Cluster, admin: Api, operator_api: Api) -> None:
    operator_api.create(f"{BASE}/nodes", document("Node", "node-1", {}))
    admin.create(f"{BASE}/updatepolicies", document("UpdatePolicy", "fleet", {"release": RELEASE}))
    admin.create(f"{BASE}/rebootlocks", document("RebootLock", "racks", {"max": 1}))
    shown = plane.kubectl("get", "careen", "-o", "name").split()
    assert {"node.careen.dev/node-1", "updatepolicy.careen.dev/fleet", "rebootlock.careen.dev/racks"} <= set(shown)


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("spec.assignment.policy.name=fleet", ["node-1"]),
        ("spec.assignment.policy.name=", ["node-2"]),
        ("spec.assignment.goal=Activate", []),
        ("status.orchestration.reason=LockFull", ["node-1"]),
        ("metadata.name=node-2", ["node-2"]),
    ],
)
def test_machines_are_found_by_field(plane: Cluster, operator_api: Api, selector: str, found: list[str]) -> None:
    operator_api.create(f"{BASE}/nodes", document("Node", "node-1", {"assignment": ORDER}))
    operator_api.create(f"{BASE}/nodes", document("Node", "node-2", {}))
    orchestration = {"state": "Waiting", "reason": "LockFull", "message": "", "since": NOW}
    operator_api.patch(f"{BASE}/nodes/node-1/status", {"status": {"orchestration": orchestration}})
    names = [each["metadata"]["name"] for each in operator_api.items(f"{BASE}/nodes", fieldSelector=selector)]
    assert names == found


def test_waiting_after_an_apply_waits_for_the_new_release(
    plane: Cluster, admin: Api, operator_api: Api, tmp_path: Path
) -> None:
    """Complete=True of the release before must not end the wait, however late the operator notices the change."""
    path = f"{BASE}/updatepolicies/fleet/status"
    plane.kubectl("apply", "-f", "-", stdin=manifest("1.0.0"))
    operator_api.patch(path, {"status": {"conditions": [condition("Complete", "True", "Complete", 1)]}})
    wait(plane, "2s")
    plane.kubectl("apply", "-f", "-", stdin=manifest("2.0.0"))
    assert admin.get(f"{BASE}/updatepolicies/fleet")["metadata"]["generation"] == 2
    with pytest.raises(SandboxError, match="timed out"):
        wait(plane, "2s")
    with waiting(plane, "20s") as waiter:
        operator_api.patch(path, {"status": {"conditions": [condition("Complete", "False", "RollingOut", 2)]}})
        time.sleep(1)
        assert waiter.poll() is None
        operator_api.patch(path, {"status": {"conditions": [condition("Complete", "True", "Complete", 2)]}})
        assert waiter.wait(10) == 0


def test_a_report_does_not_count_as_a_change_of_the_policy(plane: Cluster, admin: Api, operator_api: Api) -> None:
    admin.create(f"{BASE}/updatepolicies", document("UpdatePolicy", "fleet", {"release": RELEASE}))
    operator_api.patch(f"{BASE}/updatepolicies/fleet/status", {"status": {"summary": "1/2"}})
    admin.patch(f"{BASE}/updatepolicies/fleet", {"metadata": {"annotations": {"careen.dev/resume": "1-a/1"}}})
    assert admin.get(f"{BASE}/updatepolicies/fleet")["metadata"]["generation"] == 1


def manifest(version: str) -> str:
    release = f"{{repository: 'http://127.0.0.1:8000/os', version: '{version}'}}"
    head = "{apiVersion: careen.dev/v1alpha1, kind: UpdatePolicy, metadata: {name: fleet}, "
    return f"{head}spec: {{release: {release}}}}}"


def wait(plane: Cluster, timeout: str) -> None:
    plane.kubectl("wait", "--for=condition=Complete", "updatepolicy/fleet", f"--timeout={timeout}")


def waiting(plane: Cluster, timeout: str) -> "subprocess.Popen[bytes]":
    program = str(plane.kubectl_program)
    arguments = ["wait", "--for=condition=Complete", "updatepolicy/fleet", f"--timeout={timeout}"]
    return subprocess.Popen([program, f"--kubeconfig={plane.kubeconfig}", *arguments])
