"""What the real API server answers to our writes."""

import pytest

from careen.kube.errors import AlreadyExists, Conflict, Gone, Invalid, NotFound
from careen.kube.events import Reporting, post_event
from careen.kube.resources import CORE_NODES, EVENTS, LEASES, NODES, PODS
from careen.kube.write import (
    Deletion,
    TestFailed,
    apply_server_side,
    create,
    delete,
    patch_json,
    patch_merge,
    replace,
)

UNKNOWN_UID = "00000000-0000-0000-0000-000000000000"
LEASE = {"metadata": {"name": "l1", "namespace": "default"}, "spec": {"holderIdentity": "one"}}
REPORTING = Reporting("careen.dev/operator", "operator-1")


@pytest.fixture
async def node(session):
    return await create(session, CORE_NODES, {"metadata": {"name": "n1", "annotations": {"color": "red"}}})


@pytest.fixture
async def lease(session):
    """Unlike a core Node, an object that no controller writes to."""
    return await create(session, LEASES, LEASE)


def cordon(*tests):
    return [*tests, {"op": "add", "path": "/spec/unschedulable", "value": True}]


@pytest.mark.parametrize("subresource", [None, "status"])
@pytest.mark.parametrize(
    "test",
    [
        {"op": "test", "path": "/metadata/uid", "value": UNKNOWN_UID},
        {"op": "test", "path": "/metadata/resourceVersion", "value": "1"},
        {"op": "test", "path": "/metadata/annotations/color", "value": "blue"},
        {"op": "test", "path": "/metadata/annotations/shape", "value": "round"},
        {"op": "test", "path": "/spec/no/such/path", "value": 1},
    ],
)
async def test_a_failed_test_is_told_from_everything_else(session, node, test, subresource):
    result = await patch_json(session, CORE_NODES, "n1", cordon(test), subresource=subresource)
    assert isinstance(result, TestFailed)
    assert result.message


async def test_tests_that_hold_let_the_patch_through(session, lease):
    meta = lease["metadata"]
    ops = [{"op": "test", "path": f"/metadata/{key}", "value": meta[key]} for key in ("uid", "resourceVersion")]
    ops += [{"op": "add", "path": "/spec/holderIdentity", "value": "two"}]
    done = await patch_json(session, LEASES, "l1", ops, namespace="default")
    assert done["spec"]["holderIdentity"] == "two"
    assert isinstance(await patch_json(session, LEASES, "l1", ops, namespace="default"), TestFailed)


async def test_what_validation_refuses_is_no_failed_test(session, node):
    taint = {"key": "!!", "effect": "Nope"}
    with pytest.raises(Invalid, match="supported values"):
        await patch_json(session, CORE_NODES, "n1", [{"op": "add", "path": "/spec/taints", "value": [taint]}])
    with pytest.raises(Invalid, match="cannot unmarshal"):
        await patch_json(session, CORE_NODES, "n1", [{"op": "add", "path": "/spec/unschedulable", "value": "yes"}])
    with pytest.raises(NotFound, match=r"PATCH .*/nodes/n2: 404 NotFound"):
        await patch_json(session, CORE_NODES, "n2", cordon())


async def test_a_merge_patch_is_a_compare_and_swap_only_with_a_version(session, lease):
    async def hold(holder, **version):
        change = {"metadata": {"labels": {"by": holder}}, "spec": {"holderIdentity": holder}}
        return (await patch_merge(session, LEASES, "l1", change, namespace="default", **version))["spec"]

    first = lease["metadata"]["resourceVersion"]
    assert (await hold("two", resource_version=first))["holderIdentity"] == "two"
    with pytest.raises(Conflict):
        await hold("three", resource_version=first)
    assert (await hold("three"))["holderIdentity"] == "three"


async def test_create_and_replace(session, lease):
    with pytest.raises(AlreadyExists):
        await create(session, LEASES, LEASE)
    done = await replace(session, LEASES, {**lease, "spec": {"holderIdentity": "two"}})
    assert done["spec"] == {"holderIdentity": "two"}
    with pytest.raises(Conflict):
        await replace(session, LEASES, lease)


async def test_replace_of_a_subresource_leaves_the_rest(session, node):
    status = {"conditions": [{"type": "Odd", "status": "True"}]}
    whole = {"metadata": {"name": "n1"}, "spec": {"unschedulable": True}, "status": status}
    await replace(session, CORE_NODES, whole, subresource="status")
    found = (await session.request("GET", CORE_NODES.path(name="n1"))).body
    assert "Odd" in [condition["type"] for condition in found["status"]["conditions"]]
    assert "unschedulable" not in found["spec"]


async def test_delete_keeps_to_its_preconditions(session, node):
    with pytest.raises(Conflict):
        await delete(session, CORE_NODES, "n1", resource_version="1")
    assert await delete(session, CORE_NODES, "n1", uid=UNKNOWN_UID) is Deletion.ABSENT
    assert (await session.request("GET", CORE_NODES.path(name="n1"))).status == 200
    assert await delete(session, CORE_NODES, "n1", uid=node["metadata"]["uid"]) is Deletion.DELETED
    assert await delete(session, CORE_NODES, "n1") is Deletion.ABSENT


async def test_delete_says_when_something_still_holds_the_object(session, node, pod):
    made = pod("p", "n1", finalizers=["careen.dev/test"])
    await create(session, PODS, made)
    assert await delete(session, PODS, "p", namespace="default", grace_seconds=0) is Deletion.TERMINATING
    await create(session, PODS, pod("q", "n1"))
    assert await delete(session, PODS, "q", namespace="default") is Deletion.TERMINATING
    assert await delete(session, PODS, "q", namespace="default", grace_seconds=0) in (
        Deletion.DELETED,
        Deletion.ABSENT,
    )


async def test_server_side_apply_takes_a_field_from_another_manager_only_by_force(session, node):
    def labelled(color):
        return {"metadata": {"name": "n1", "labels": {"color": color}}}

    await apply_server_side(session, CORE_NODES, labelled("red"), field_manager="one")
    with pytest.raises(Conflict, match='conflict with "one"'):
        await apply_server_side(session, CORE_NODES, labelled("blue"), field_manager="two")
    done = await apply_server_side(session, CORE_NODES, labelled("blue"), field_manager="two", force=True)
    assert done["metadata"]["labels"]["color"] == "blue"


async def test_a_version_from_before_the_compaction_is_gone(session, own_plane):
    own_plane.compact_etcd()
    # Of a kind that came late: the API server has snapshots of the early ones from their very first versions on.
    with pytest.raises(Gone):
        await session.request("GET", NODES.path(), query={"resourceVersion": 2, "resourceVersionMatch": "Exact"})


async def test_an_event_is_posted_once_however_often_it_is_said(session, node, records):
    regarding = {"apiVersion": "v1", "kind": "Node", **node}

    async def post(**more):
        words = {"reason": "Granted", "note": "the lock is yours", "type": "Normal", "action": "Grant", "dedup": "abc"}
        return await post_event(session, regarding, reporting=REPORTING, **(words | more))

    assert await post()
    assert await post()
    assert await post(note="ä" * 2000, dedup="def")
    events = (await session.request("GET", EVENTS.path("default"))).body["items"]
    found = {event["metadata"]["name"]: event for event in events}
    assert set(found) == {"n1.abc", "n1.def"}
    assert found["n1.abc"]["regarding"]["uid"] == node["metadata"]["uid"]
    assert found["n1.abc"]["note"] == "the lock is yours"
    assert found["n1.def"]["note"].endswith("…")
    assert not await post(type="Nonsense", dedup="ghi")
