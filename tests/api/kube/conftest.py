"""Sessions to the real control plane, and plain objects to try them on."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from careen.kube.session import RequestRecord, Session
from careen.sandbox.cluster import Cluster


@pytest.fixture
def records() -> list[RequestRecord]:
    """What `session` has asked the API server."""
    return []


@pytest.fixture
async def session(plane: Cluster, records: list[RequestRecord]) -> AsyncIterator[Session]:
    async with Session.connect(plane.kubeconfig, user_agent="careen-test", on_request=records.append) as opened:
        yield opened


@pytest.fixture
def pod() -> Callable[..., dict[str, Any]]:
    """Makes the manifest of a pod that is bound to a node, or to none."""

    def make(name: str, node: str | None = None, **metadata: Any) -> dict[str, Any]:
        spec: dict[str, Any] = {"containers": [{"name": "main", "image": "example.invalid/main"}]}
        if node is not None:
            spec["nodeName"] = node
        return {"metadata": {"name": name, "namespace": "default", **metadata}, "spec": spec}

    return make
