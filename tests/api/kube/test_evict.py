"""Evictions under real disruption budgets."""

import asyncio
import time

import pytest

from careen.kube.errors import Forbidden
from careen.kube.evict import AlreadyGone, Evicted, Refused, evict
from careen.kube.resources import CORE_NODES, PDBS, PODS
from careen.kube.session import Session
from careen.kube.write import create

UNKNOWN_UID = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
async def web(session, pod):
    """A pod that is ready on a node, so that budgets can count it."""
    await create(session, CORE_NODES, {"metadata": {"name": "n1", "annotations": {"kwok.x-k8s.io/node": "fake"}}})
    made = await create(session, PODS, pod("web", "n1", labels={"app": "web"}))
    await until_status(session, PODS.path("default", "web"), lambda status: status.get("phase") == "Running")
    return made


async def until_status(session, path, condition):
    deadline = time.monotonic() + 20
    while not condition((await session.request("GET", path)).body.get("status", {})):
        assert time.monotonic() < deadline, f"{path} did not get there"
        await asyncio.sleep(0.05)


async def protect(session, name):
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}
    await create(session, PDBS, {"metadata": {"name": name, "namespace": "default"}, "spec": spec})
    await until_status(session, PDBS.path("default", name), lambda status: status.get("currentHealthy") == 1)


async def test_a_pod_leaves(session, web):
    uid = web["metadata"]["uid"]
    assert await evict(session, "default", "web", uid, grace_seconds=0) == Evicted()
    assert await evict(session, "default", "web", uid) == AlreadyGone()


async def test_another_pod_of_the_same_name_stays(session, web):
    assert await evict(session, "default", "web", UNKNOWN_UID) == AlreadyGone()
    found = (await session.request("GET", PODS.path("default", "web"))).body
    assert "deletionTimestamp" not in found["metadata"]


async def test_a_refusal_names_the_budget_and_its_count(session, web):
    await protect(session, "web-budget")
    refused = await evict(session, "default", "web", web["metadata"]["uid"])
    assert isinstance(refused, Refused)
    assert refused.budget == "web-budget"
    assert refused.message == "The disruption budget web-budget needs 1 healthy pods and has 1 currently"


async def test_two_budgets_over_one_pod_are_said_to_be_the_reason(session, web):
    await protect(session, "one")
    await protect(session, "two")
    refused = await evict(session, "default", "web", web["metadata"]["uid"])
    assert isinstance(refused, Refused)
    assert refused.budget is None
    assert "more than one PodDisruptionBudget" in refused.message


async def test_a_missing_right_is_an_error_and_no_refusal(own_plane, session, web):
    async with Session.connect(own_plane.kubeconfig_for("nobody"), user_agent="t") as stranger:
        with pytest.raises(Forbidden):
            await evict(stranger, "default", "web", web["metadata"]["uid"])
