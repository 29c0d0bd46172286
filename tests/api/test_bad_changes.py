"""Changes that an object may not go through: the API server refuses each."""

import copy
from typing import Any

import pytest

from bad_objects import BASE, NODE, ORDER, POLICY, ROLLOUT, put, refusal
from careen.sandbox.client import JSON_PATCH, Api
from careen.sandbox.cluster import Cluster


def test_retry_is_raised_and_never_lowered(plane: Cluster, admin: Api, operator_api: Api) -> None:
    operator_api.create(f"{BASE}/nodes", NODE)
    admin.patch(f"{BASE}/nodes/node-1", {"spec": {"retry": 2}})
    for lower in (1, None):
        message = refusal(lambda value=lower: admin.patch(f"{BASE}/nodes/node-1", {"spec": {"retry": value}}))
        assert "spec.retry" in message
        assert "must not be lowered or removed" in message


GOALS = ("Stage", "Activate", "Commit", "Abort")
FORWARD = {
    ("Stage", "Activate"), ("Activate", "Commit"), ("Stage", "Abort"), ("Activate", "Abort"), ("Commit", "Abort"),
}  # fmt: skip


@pytest.mark.parametrize("before", GOALS)
@pytest.mark.parametrize("after", GOALS)
def test_an_order_only_goes_forward(plane: Cluster, operator_api: Api, before: str, after: str) -> None:
    operator_api.create(f"{BASE}/nodes", NODE | {"spec": {"assignment": order(before, before)}})
    change = [{"op": "replace", "path": "/spec/assignment", "value": order(after, before)}]
    if before == after or (before, after) in FORWARD:
        operator_api.patch(f"{BASE}/nodes/node-1", change, JSON_PATCH)
        return
    message = refusal(lambda: operator_api.patch(f"{BASE}/nodes/node-1", change, JSON_PATCH))
    assert "spec.assignment.goal" in message
    assert "from Stage to Activate to Commit, or to Abort" in message


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("attempt", 1), ("lostAttempts", 1), ("retry", 1), ("policy.uid", "other"), ("rollout", "2-aaaaaaaa"),
        ("release.version", "3.0.0"), ("release.mirrors", ["http://m"]), ("terms.readySeconds", 30),
        ("terms.allowDowngrade", True), ("terms.bytesPerSecond", 5000),
    ],
)  # fmt: skip
def test_an_orders_content_needs_another_id(plane: Cluster, operator_api: Api, path: str, value: Any) -> None:
    operator_api.create(f"{BASE}/nodes", NODE)
    changed = copy.deepcopy(ORDER)
    put(path, value)(changed)
    message = refusal(lambda: operator_api.patch(f"{BASE}/nodes/node-1", {"spec": {"assignment": changed}}))
    assert "spec.assignment.id" in message
    assert "another order needs another id" in message
    changed["id"] = "order-2"
    operator_api.patch(f"{BASE}/nodes/node-1", {"spec": {"assignment": changed}})


@pytest.mark.parametrize(
    ("change", "field", "allowed"),
    [
        ({"number": 1}, "status.rollout.number", "never go backwards"),
        ({"digest": "sha256:" + "b" * 64}, "status.rollout.digest", "must stay as they are under one number"),
        ({"failed": 1, "forgiven": 2}, "status.rollout.forgiven", "at most failed"),
        (None, "status.rollout", "must stay"),
    ],
    ids=["number", "digest", "forgiven", "removed"],
)
def test_a_rollout_only_counts_on(
    plane: Cluster, admin: Api, operator_api: Api, change: dict[str, Any] | None, field: str, allowed: str
) -> None:
    admin.create(f"{BASE}/updatepolicies", POLICY)
    path = f"{BASE}/updatepolicies/fleet/status"
    operator_api.patch(path, {"status": {"rollout": ROLLOUT}})
    message = refusal(lambda: operator_api.patch(path, {"status": {"rollout": change}}))
    assert field in message
    assert allowed in message
    operator_api.patch(path, {"status": {"rollout": {"number": 3, "digest": "sha256:" + "b" * 64, "id": "3-bbbbbbbb"}}})


def order(goal: str, before: str) -> dict[str, Any]:
    made = ORDER | {"goal": goal}
    if goal == "Abort":
        made["cause"] = "People"
    if {goal, before} & {"Activate", "Commit"} and goal != "Stage":
        made["fromBootID"] = "boot-1"
    return made


def test_the_boot_that_an_order_was_activated_in_stays(plane: Cluster, operator_api: Api) -> None:
    activated = ORDER | {"goal": "Activate", "fromBootID": "boot-1"}
    operator_api.create(f"{BASE}/nodes", NODE | {"spec": {"assignment": activated}})
    for changed in (activated | {"fromBootID": "boot-2"}, ORDER | {"goal": "Abort", "cause": "People"}):
        whole = [{"op": "replace", "path": "/spec/assignment", "value": changed}]
        message = refusal(lambda whole=whole: operator_api.patch(f"{BASE}/nodes/node-1", whole, JSON_PATCH))
        assert "spec.assignment.fromBootID" in message
        assert "must stay as it is under one id" in message


def test_a_requests_action_needs_another_id(plane: Cluster, admin: Api, operator_api: Api) -> None:
    operator_api.create(f"{BASE}/nodes", NODE)
    path = f"{BASE}/nodes/node-1"
    admin.patch(path, {"spec": {"request": {"action": "Reboot", "id": "r-1"}}})
    message = refusal(lambda: admin.patch(path, {"spec": {"request": {"action": "Reset"}}}))
    assert "spec.request.action" in message
    assert "another request needs another id" in message
    admin.patch(path, {"spec": {"request": {"action": "Reset", "id": "r-2"}}})
    admin.patch(path, {"spec": {"request": None}})


def test_an_order_may_be_a_request_and_stays_the_one_it_is(plane: Cluster, operator_api: Api) -> None:
    asked = {key: value for key, value in ORDER.items() if key not in ("policy", "rollout", "release")}
    asked["request"] = {"action": "Reset", "id": "r-1"}
    operator_api.create(f"{BASE}/nodes", NODE | {"spec": {"assignment": asked}})
    path = f"{BASE}/nodes/node-1"
    operator_api.patch(path, {"spec": {"assignment": {"goal": "Activate", "fromBootID": "boot-1"}}})
    for changed in ({"request": {"id": "r-2"}}, {"release": ORDER["release"], "request": None}):
        message = refusal(lambda changed=changed: operator_api.patch(path, {"spec": {"assignment": changed}}))
        assert "another order needs another id" in message
