"""The store against a server that drops, stalls, repeats, forgets and refuses."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from careen.kube.resources import NODES
from careen.kube.session import Session
from careen.kube.store import Change, ChangeType, Store


async def until(condition: Callable[[], Any], seconds: float = 3.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        await asyncio.sleep(0.005)


def color(obj: dict[str, Any]) -> str | None:
    return obj.get("color", "plain") if obj.get("color") != "hidden" else None


def make(session: Session, **options: Any) -> tuple[Store[str], list[Change[str]]]:
    changes: list[Change[str]] = []
    return Store(session, NODES, decode=color, on_change=changes.append, **options), changes


@asynccontextmanager
async def running(store: Store[str]) -> AsyncIterator[None]:
    task = asyncio.create_task(store.run())
    try:
        await store.wait_synced(3)
        await until(lambda: store.live)
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled(), task.exception()


async def test_lists_all_pages_and_follows_changes(fake, session):
    for number in range(7):
        fake.put(f"n{number}", color="red")
    store, changes = make(session, page=3)
    async with running(store):
        assert len(store.objects) == 7
        assert fake.count("list") == 3
        fake.put("n1", color="blue")
        fake.remove("n2")
        fake.put("n9")
        await until(lambda: ("", "n9") in store.objects)
        assert store.objects["", "n1"] == "blue"
        assert ("", "n2") not in store.objects
        assert [(c.type, c.name, c.old, c.new) for c in changes[7:]] == [
            (ChangeType.MODIFIED, "n1", "red", "blue"),
            (ChangeType.DELETED, "n2", "red", None),
            (ChangeType.ADDED, "n9", None, "plain"),
        ]
        assert store.resource_version == str(fake.version)


async def test_objects_is_read_only(session):
    store, _ = make(session)
    with pytest.raises(TypeError):
        store.objects["", "x"] = "y"


async def test_delete_missed_behind_410_is_noticed(fake, session):
    fake.put("stays")
    fake.put("goes")
    store, changes = make(session)
    async with running(store):
        fake.remove("goes", tell=False)
        fake.put("comes", tell=False)
        fake.compact()
        fake.drop_watches()
        await until(lambda: store.relists == 1 and store.live)
        assert set(store.objects) == {("", "stays"), ("", "comes")}
        assert [c.type for c in changes if c.name == "goes"] == [ChangeType.ADDED, ChangeType.DELETED]


async def test_delete_and_recreate_across_a_gap_is_a_delete_and_an_add(fake, session):
    fake.put("n", uid="one")
    store, changes = make(session)
    async with running(store):
        fake.put("n", uid="two", tell=False)
        fake.compact()
        fake.drop_watches()
        await until(lambda: store.relists == 1)
    assert [(c.type, c.uid) for c in changes] == [
        (ChangeType.ADDED, "one"),
        (ChangeType.DELETED, "one"),
        (ChangeType.ADDED, "two"),
    ]


async def test_410_inside_the_stream_lists_again(fake, session):
    fake.put("n")
    store, _ = make(session)
    async with running(store):
        fake.send({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "old"}})
        await until(lambda: store.relists == 1 and store.live)
        assert [q.get("resourceVersion") for v, _, q in fake.requests if v == "list"] == [None, None]


async def test_a_dropped_stream_resumes_without_a_list(fake, session):
    fake.put("n", color="red")
    store, _ = make(session)
    async with running(store):
        fake.bookmark()
        await until(lambda: store.resource_version == str(fake.version))
        fake.put("n", color="blue", tell=False)
        last_seen = int(store.resource_version)
        before = time.monotonic()
        fake.drop_watches()
        await until(lambda: store.objects["", "n"] == "blue")
        assert time.monotonic() - before < 0.2
        assert fake.count("list") == 1
        assert [q["resourceVersion"] for v, _, q in fake.requests if v == "watch"][-1] == str(last_seen)
        assert all(q["allowWatchBookmarks"] == "true" for v, _, q in fake.requests if v == "watch")


async def test_a_stalled_stream_is_left(fake, session):
    fake.put("n", color="red")
    store, _ = make(session, stall=0.3)
    async with running(store):
        fake.put("n", color="blue", tell=False)
        await until(lambda: store.objects["", "n"] == "blue", 2)
        assert fake.count("list") == 1


async def test_a_quiet_watch_without_bookmarks_is_no_gap_but_a_dead_one_is(fake, session):
    fake.put("n", color="red")
    store, _ = make(session, stall=0.3)
    async with running(store):
        since = store.live_since
        await until(lambda: fake.count("watch") == 4)
        assert store.live
        assert store.live_since == since
        fake.put("n", color="blue", tell=False)
        await until(lambda: store.objects["", "n"] == "blue", 2)
        assert store.live_since > since
        assert fake.count("list") == 1


async def test_live_and_live_since_tell_a_gap_from_a_rollover(fake, session, fail):
    store, _ = make(session)
    async with running(store):
        first = store.live_since
        fake.end_watches()
        await until(lambda: fake.count("watch") == 2 and fake.watchers)
        assert store.live
        assert store.live_since == first
        fake.faults["watch"].extend([fail(503, "ServiceUnavailable", "no")] * 2)
        fake.drop_watches()
        await until(lambda: not store.live)
        await until(lambda: store.live)
        assert store.live_since > first


@pytest.mark.parametrize(
    ("code", "reason"), [(429, "TooManyRequests"), (500, "InternalError"), (401, "Unauthorized"), (404, "NotFound")]
)
async def test_refused_lists_and_watches_are_tried_again(fake, session, fail, code, reason):
    fake.put("n")
    fake.faults["list"].extend([fail(code, reason, "no")] * 2)
    fake.faults["watch"].extend([fail(code, reason, "no")] * 2)
    store, _ = make(session)
    async with running(store):
        assert ("", "n") in store.objects
        assert store.last_error is None


async def test_back_off_waits_longer_and_longer_up_to_the_cap(fake, session, fail):
    fake.faults["list"].extend([fail(503, "ServiceUnavailable", "no")] * 1000)
    store, _ = make(session, max_backoff=0.4)
    task = asyncio.create_task(store.run())
    await asyncio.sleep(2.0)
    # 0, 0, 0.1..0.2, 0.2..0.4, 0.2..0.4, ...: never the thousand tries of a loop without waits.
    assert 5 <= fake.count("list") <= 13
    with pytest.raises(TimeoutError, match="503 ServiceUnavailable: no"):
        await store.wait_synced(0.01)
    task.cancel()


async def test_a_server_that_fails_after_a_good_watch_is_not_hammered(fake, session, fail):
    store, _ = make(session)
    async with running(store):
        fake.put("n")
        await until(lambda: store.objects)
        fake.faults["watch"].extend([fail(503, "ServiceUnavailable", "no")] * 1000)
        fake.drop_watches()
        await asyncio.sleep(1.0)
        assert 3 <= fake.count("watch") < 8
        assert not store.live


async def test_a_server_that_ends_every_watch_at_once_is_not_hammered(fake, session):
    store, _ = make(session)
    async with running(store):
        for _ in range(300):
            fake.end_watches()
            await asyncio.sleep(0.005)
        assert fake.count("watch") < 12


async def test_retry_after_is_obeyed(fake, session, fail):
    fake.faults["list"].extend([fail(429, "TooManyRequests", "slow", headers={"Retry-After": "1"})] * 2)
    store, _ = make(session)
    task = asyncio.create_task(store.run())
    before = time.monotonic()
    await store.wait_synced(5)
    assert time.monotonic() - before >= 1.0
    task.cancel()


async def test_repeated_and_late_events_change_nothing(fake, session):
    old = fake.put("n", color="red")
    new = fake.put("n", color="blue")
    store, changes = make(session)
    async with running(store):
        newest = fake.put("n", color="green")
        for obj in (newest, new, newest):
            store.apply(obj)
        fake.send({"type": "MODIFIED", "object": newest})
        fake.put("other")
        await until(lambda: ("", "other") in store.objects)
        assert store.objects["", "n"] == "green"
        assert [c.new for c in changes if c.name == "n"] == ["blue", "green"]
        store.apply(old)
        assert store.objects["", "n"] == "green"


async def test_own_writes_are_seen_at_once_and_not_undone_by_older_events(fake, session):
    fake.put("n", color="red")
    store, changes = make(session)
    async with running(store):
        between = fake.put("n", color="blue", tell=False)
        own = fake.put("n", color="green", tell=False)
        store.apply(own)
        assert store.objects["", "n"] == "green"
        fake.send({"type": "MODIFIED", "object": between})
        fake.send({"type": "MODIFIED", "object": own})
        fake.put("other")
        await until(lambda: ("", "other") in store.objects)
        assert [c.new for c in changes if c.name == "n"] == ["red", "green"]


async def test_an_answer_that_comes_after_the_objects_delete_does_not_bring_it_back(fake, session):
    fake.put("n")
    store, _ = make(session)
    async with running(store):
        answer = fake.put("n", color="blue")
        fake.remove("n")
        await until(lambda: not store.objects)
        store.apply(answer)
        assert not store.objects


async def test_forget_holds_against_late_events_but_not_against_a_new_object(fake, session):
    obj = fake.put("n", uid="one")
    store, changes = make(session)
    async with running(store):
        late = fake.put("n", color="late", tell=False)
        store.forget("", "n", "another")
        assert ("", "n") in store.objects
        store.forget("", "n", "one")
        assert not store.objects
        fake.send({"type": "MODIFIED", "object": late})
        fake.remove("n", tell=False)
        fake.put("n", uid="two", color="new")
        await until(lambda: store.objects.get(("", "n")) == "new")
        assert [(c.type, c.uid) for c in changes] == [
            (ChangeType.ADDED, obj["metadata"]["uid"]),
            (ChangeType.DELETED, "one"),
            (ChangeType.ADDED, "two"),
        ]


async def test_forget_of_an_object_that_only_terminates_heals_with_its_next_event(fake, session):
    fake.put("n", uid="one")
    store, _ = make(session)
    async with running(store):
        store.forget("", "n", "one")
        obj = fake.put("n", uid="one", tell=False)
        obj["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        fake.send({"type": "MODIFIED", "object": obj})
        await until(lambda: ("", "n") in store.objects)


async def test_what_the_decoder_drops_leaves(fake, session):
    fake.put("n", color="red")
    fake.put("never", color="hidden")
    store, changes = make(session)
    async with running(store):
        assert set(store.objects) == {("", "n")}
        fake.put("n", color="hidden")
        await until(lambda: not store.objects)
        fake.put("n", color="back")
        await until(lambda: store.objects)
        assert [c.type for c in changes] == [ChangeType.ADDED, ChangeType.DELETED, ChangeType.ADDED]


async def test_relist_sees_what_a_silent_watch_does_not_and_late_events_do_not_undo_it(fake, session):
    fake.put("goes")
    fake.put("n", color="red")
    store, _ = make(session)
    async with running(store):
        late = [fake.put("goes", color=color, tell=False) for color in ("late", "later")]
        fake.remove("goes", tell=False)
        fake.put("n", color="blue", tell=False)
        await store.relist(2)
        assert dict(store.objects) == {("", "n"): "blue"}
        for obj in late:
            fake.send({"type": "MODIFIED", "object": obj})
        fake.put("other")
        await until(lambda: ("", "other") in store.objects)
        assert ("", "goes") not in store.objects
        assert fake.count("watch") == 1


async def test_a_write_taken_in_during_a_list_survives_it(fake, session):
    fake.put("n")
    store, _ = make(session)
    async with running(store):
        gate = asyncio.Event()

        async def slow(request):
            answer = fake._list(0, 0)
            await gate.wait()
            return answer

        fake.faults["list"].append(slow)
        relist = asyncio.create_task(store.relist(2))
        await until(lambda: fake.count("list") == 2)
        store.apply(fake.put("made", tell=False))
        store.apply(fake.put("n", color="own", tell=False))
        gate.set()
        await relist
        assert dict(store.objects) == {("", "n"): "own", ("", "made"): "plain"}


async def test_data_restored_from_a_backup_replaces_everything(fake, session):
    fake.put("kept", color="new")
    fake.put("ghost")
    store, _ = make(session)
    async with running(store):
        fake.version = 50
        fake.objects.clear()
        fake.history.clear()
        fake.put("kept", uid="kept-101", color="old", tell=False)
        fake.drop_watches()
        await until(lambda: fake.count("watch") == 2 and fake.watchers)
        fake.bookmark()
        await until(lambda: store.relists == 1)
        assert dict(store.objects) == {("", "kept"): "old"}
        fake.put("kept", color="next")
        await until(lambda: store.objects["", "kept"] == "next")


async def test_an_unreadable_object_ends_the_run_and_is_named(fake, session):
    fake.put("bad")

    def decode(obj):
        raise KeyError("spec")

    store = Store(session, NODES, decode=decode)
    with pytest.raises(KeyError) as caught:
        await asyncio.wait_for(store.run(), 3)
    assert "('', 'bad')" in caught.value.__notes__[0]


async def test_raw_is_kept_only_on_demand(fake, session):
    fake.put("n", color="red")
    for keep in (True, False):
        store, _ = make(session, keep_raw=keep)
        async with running(store):
            assert (store.raw("", "n") or {}).get("color") == ("red" if keep else None)
            assert store.raw("", "none") is None
