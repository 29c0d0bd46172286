"""The store on the real control plane, behind a line that is cut."""

import asyncio
import time

import pytest

from careen.kube.resources import CONFIGMAPS
from careen.kube.session import Session
from careen.kube.store import ChangeType, Store
from careen.kube.write import create, delete, patch_merge


def name_map(name, **data):
    return {"metadata": {"name": name, "namespace": "default", "labels": {"test": "store"}}, "data": data}


async def until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        await asyncio.sleep(0.005)


@pytest.fixture
async def cleared(session):
    """ConfigMaps are not wiped by the plane's fixture; ours go here."""
    yield
    for item in (await session.request("GET", CONFIGMAPS.path("default"))).body["items"]:
        if item["metadata"].get("labels", {}).get("test") == "store":
            await delete(session, CONFIGMAPS, item["metadata"]["name"], namespace="default")


def make(session, changes, **options):
    return Store(
        session,
        CONFIGMAPS,
        decode=lambda obj: obj.get("data", {}),
        namespace="default",
        label_selector="test=store",
        on_change=changes.append,
        **options,
    )


async def test_follows_the_server_page_by_page_event_by_event(session, cleared):
    for number in range(5):
        await create(session, CONFIGMAPS, name_map(f"m{number}", color="red"))
    changes = []
    store = make(session, changes, page=2)
    task = asyncio.create_task(store.run())
    await store.wait_synced(5)
    assert len(store.objects) == 5
    await until(lambda: store.live)
    done = await patch_merge(session, CONFIGMAPS, "m0", {"data": {"color": "blue"}}, namespace="default")
    store.apply(done)
    assert store.objects["default", "m0"] == {"color": "blue"}
    await delete(session, CONFIGMAPS, "m1", namespace="default")
    made = await create(session, CONFIGMAPS, name_map("m1", color="new"))
    store.apply(made)
    await patch_merge(session, CONFIGMAPS, "m2", {"metadata": {"labels": {"test": "other"}}}, namespace="default")
    await until(lambda: ("default", "m2") not in store.objects)
    assert [(c.type, c.name) for c in changes[5:]] == [
        (ChangeType.MODIFIED, "m0"),
        (ChangeType.DELETED, "m1"),
        (ChangeType.ADDED, "m1"),
        (ChangeType.DELETED, "m2"),
    ]
    await patch_merge(session, CONFIGMAPS, "m2", {"metadata": {"labels": {"test": "store"}}}, namespace="default")
    await store.relist(5)
    assert set(store.objects) == {("default", f"m{number}") for number in range(5)}
    task.cancel()


async def test_a_short_cut_is_made_up_without_a_list(own_plane, session, cleared, records):
    await create(session, CONFIGMAPS, name_map("goes"))
    changes = []
    with own_plane.proxy() as proxy:
        kubeconfig = own_plane.kubeconfig_for("watcher", ["system:masters"], server=proxy.url)
        async with Session.connect(kubeconfig, user_agent="t", on_request=records.append) as cut:
            store = make(cut, changes)
            task = asyncio.create_task(store.run())
            await store.wait_synced(5)
            await until(lambda: store.live)
            since = store.live_since
            proxy.cut()
            await until(lambda: not store.live)
            await delete(session, CONFIGMAPS, "goes", namespace="default")
            await asyncio.sleep(0.3)
            proxy.restore()
            await until(lambda: not store.objects, 2)
            assert store.relists == 0
            assert store.live
            assert store.live_since > since
            task.cancel()


async def test_a_delete_behind_a_compaction_is_noticed_within_two_seconds(own_plane, session, cleared):
    await create(session, CONFIGMAPS, name_map("stays"))
    await create(session, CONFIGMAPS, name_map("goes"))
    recreated = await create(session, CONFIGMAPS, name_map("recreated"))
    changes = []
    with own_plane.proxy() as proxy:
        kubeconfig = own_plane.kubeconfig_for("watcher", ["system:masters"], server=proxy.url)
        async with Session.connect(kubeconfig, user_agent="t") as cut:
            store = make(cut, changes, max_backoff=1.0)
            task = asyncio.create_task(store.run())
            await store.wait_synced(5)
            proxy.cut()
            await delete(session, CONFIGMAPS, "goes", namespace="default")
            await delete(session, CONFIGMAPS, "recreated", namespace="default")
            await create(session, CONFIGMAPS, name_map("recreated"))
            own_plane.compact_etcd()
            await asyncio.to_thread(own_plane.restart_apiserver)
            before = time.monotonic()
            proxy.restore()
            await until(lambda: store.relists == 1, 5)
            seconds = time.monotonic() - before
            assert set(store.objects) == {("default", "stays"), ("default", "recreated")}
            ours = [(c.type, c.uid) for c in changes if c.name == "recreated"]
            assert ours[:2] == [
                (ChangeType.ADDED, recreated["metadata"]["uid"]),
                (ChangeType.DELETED, recreated["metadata"]["uid"]),
            ]
            assert ours[2][0] is ChangeType.ADDED
            assert seconds < 2.0
            task.cancel()
