"""Good objects, and ways to spoil one field of them."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from careen.sandbox.client import Api, ApiError

BASE = "/apis/careen.dev/v1alpha1"
DIGEST = "sha256:" + "a" * 64
Edit = Callable[[dict[str, Any]], Any]

POLICY: dict[str, Any] = {
    "apiVersion": "careen.dev/v1alpha1",
    "kind": "UpdatePolicy",
    "metadata": {"name": "fleet"},
    "spec": {
        "selector": {"matchExpressions": [{"key": "pool", "operator": "In", "values": ["web"]}]},
        "release": {"repository": "http://127.0.0.1:8000/os", "version": "2.0.0"},
        "strategy": {
            "maxUnavailable": "10%",
            "topology": [{"key": "topology.kubernetes.io/zone", "maxUnavailable": 1}],
            "waves": [{"name": "canary", "count": 1, "soakSeconds": 60}, {"name": "half", "percent": 50}],
        },
    },
}
LOCK: dict[str, Any] = {
    "apiVersion": "careen.dev/v1alpha1",
    "kind": "RebootLock",
    "metadata": {"name": "default"},
    "spec": {"max": 1},
}
ORDER: dict[str, Any] = {
    "id": "order-1",
    "policy": {"name": "fleet", "uid": "1b4e28ba"},
    "rollout": "1-aaaaaaaa",
    "release": {
        "repository": "http://127.0.0.1:8000/os",
        "version": "2.0.0",
        "digest": DIGEST,
        "sizeBytes": 1048576,
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
NODE: dict[str, Any] = {
    "apiVersion": "careen.dev/v1alpha1",
    "kind": "Node",
    "metadata": {"name": "node-1"},
    "spec": {"assignment": ORDER},
}
ROLLOUT: dict[str, Any] = {
    "id": "2-aaaaaaaa",
    "number": 2,
    "repository": "http://127.0.0.1:8000/os",
    "version": "2.0.0",
    "digest": DIGEST,
    "sizeBytes": 1048576,
    "path": "2.0.0.img",
    "startedAt": "2026-01-01T00:00:00Z",
    "waveNames": ["all"],
    "waveBounds": [""],
}


def put(path: str, value: Any) -> Edit:
    """Sets one field, as `strategy.waves.0.count`; None removes it."""

    def edit(document: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        at: Any = document
        for key in parents:
            at = at[int(key)] if isinstance(at, list) else at.setdefault(key, {})
        if value is None:
            del at[last]
        else:
            at[int(last) if isinstance(at, list) else last] = value

    return edit


def cases(table: list[tuple[str, Edit, str, str]]) -> Any:
    return pytest.mark.parametrize(
        ("edit", "field", "allowed"), [row[1:] for row in table], ids=[row[0] for row in table]
    )


def refusal(request: Callable[[], object]) -> str:
    with pytest.raises(ApiError) as caught:
        request()
    assert caught.value.status == 422, caught.value
    return str(caught.value)


def assert_refused(api: Api, plural: str, good: dict[str, Any], edit: Edit, field: str, allowed: str) -> None:
    document = copy.deepcopy(good)
    edit(document)
    message = refusal(lambda: api.create(f"{BASE}/{plural}", document))
    assert field in message
    assert allowed in message
