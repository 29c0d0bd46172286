"""Section 6: who is told of what, and what the history still knows."""

from __future__ import annotations

import pytest

from careen.core.keys import history
from careen.core.keys.events import Event
from careen.core.keys.faults import Refusal
from careen.core.keys.history import Watch
from key_store import Store


def told(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.action, event.node.key) for event in events]


def test_a_wait_is_told_of_every_kind_of_change_of_its_key(store: Store) -> None:
    heard = store.wait("/a")
    store.put("/a", "value=v")
    store.put("/a?prevExist=true", "value=w")
    store.put("/a?prevValue=w", "value=x")
    store.delete("/a?prevValue=x")
    store.put("/a?prevExist=false", "ttl=1")
    store.sweep(2)
    store.put("/a", "dir=true")
    store.delete("/a?dir=true")
    assert [event.action for event in heard] == [
        "set", "update", "compareAndSwap", "compareAndDelete", "create", "expire", "set", "delete",
    ]  # fmt: skip


def test_missing_keys_and_paths_below_files_may_be_watched(store: Store) -> None:
    store.put("/file")
    missing, below = store.wait("/no/such/key"), store.wait("/file/below")
    store.put("/no/such/key")
    store.delete("/file")
    store.put("/file/below")
    assert told(missing) == [("set", "/no/such/key")]
    assert told(below) == [("set", "/file/below")]


def test_only_a_recursive_wait_is_told_of_children(store: Store) -> None:
    alone, tree, root = store.wait("/d"), store.wait("/d", recursive=True), store.wait("/", recursive=True)
    store.put("/d/child")
    store.post("/d")
    store.put("/dd/sibling")
    assert alone == []
    assert told(tree) == [("set", "/d/child"), ("create", "/d/00000000000000000005")]
    assert told(root) == [*told(tree), ("set", "/dd/sibling")]


def test_a_directory_that_comes_to_be_on_the_way_is_not_told(store: Store) -> None:
    heard = store.wait("/a/b")
    store.put("/a/b/c")
    assert heard == []


@pytest.mark.parametrize("ended_by", ["delete", "expire"])
def test_the_end_of_a_parent_is_told_to_those_who_watch_what_was_below(store: Store, ended_by: str) -> None:
    store.put("/d", "dir=true&ttl=5")
    store.put("/d/sub/_x/child")
    waits = {path: store.wait(path) for path in ("/d", "/d/sub", "/d/sub/_x/child", "/d/other", "/d/sub/_x/child/x")}
    waits["/"] = store.wait("/", recursive=True)
    waits["/dd"] = store.wait("/dd", recursive=True)
    if ended_by == "delete":
        store.delete("/d?recursive=true")
    else:
        store.sweep(5)
    ended = [path for path, heard in waits.items() if told(heard) == [(ended_by, "/d")]]
    assert ended == ["/d", "/d/sub", "/d/sub/_x/child", "/"]
    assert all(heard == [] for path, heard in waits.items() if path not in ended)


def test_hidden_events_are_not_told_above_and_are_told_inside(store: Store) -> None:
    root, parent = store.wait("/", recursive=True), store.wait("/d", recursive=True)
    inside, by_name = store.wait("/d/_h", recursive=True), store.wait("/d/_h/x")
    store.put("/d/_h/x")
    store.put("/d/_h/_more/y")
    store.put("/_top")
    store.delete("/d/_h?recursive=true")
    assert root == parent == []
    assert told(inside) == [("set", "/d/_h/x"), ("delete", "/d/_h")]
    assert told(by_name) == [("set", "/d/_h/x"), ("delete", "/d/_h")]


def test_hidden_events_are_not_told_from_the_past_either(store: Store) -> None:
    store.put("/d/_h/x")
    store.put("/d/shown")
    events = store.past("/d", 4, recursive=True)
    assert isinstance(events, list)
    assert told(events) == [("set", "/d/shown")]
    assert isinstance(inside := store.past("/d/_h/x", 4), list)
    assert told(inside) == [("set", "/d/_h/x")]


def test_a_wait_from_an_index_gets_what_was_there_at_or_after_it(store: Store) -> None:
    for value in "xyz":
        store.put("/a", f"value={value}")
    store.put("/b")
    for since, first in ((1, 4), (4, 4), (5, 5), (6, 6)):
        events = store.past("/a", since)
        assert isinstance(events, list)
        assert events[0].index == first
    assert store.past("/a", 7) == store.past("/a", 8) == store.past("/a", 99) == []


def test_a_future_index_lets_earlier_events_pass(store: Store) -> None:
    heard = store.wait("/a", since=6)
    for _ in range(3):
        store.put("/a")
    assert [event.index for event in heard] == [6]


def test_index_0_is_from_now_on(store: Store) -> None:
    store.put("/a")
    assert Watch("/a").settle(store.state.index) == Watch("/a", since=5)
    assert Watch("/a", since=2).settle(store.state.index) == Watch("/a", since=2)


def test_a_stream_gets_all_of_the_past_and_then_what_comes(store: Store) -> None:
    store.put("/a", "value=1")
    store.put("/a", "value=2")
    past = store.past("/a", 4)
    heard = store.wait("/a")
    store.put("/a", "value=3")
    assert isinstance(past, list)
    assert [event.node.value for event in [*past, *heard]] == ["1", "2", "3"]


def test_a_past_wait_below_an_ended_directory_is_told_and_a_sibling_is_not(store: Store) -> None:
    store.put("/w/dd/x")
    store.delete("/w/dd?recursive=true")
    assert isinstance(below := store.past("/w/dd/x", 5), list)
    assert told(below) == [("delete", "/w/dd")]
    assert store.past("/w/ddd", 4) == []


def test_the_history_holds_1000_events_of_the_whole_store(store: Store) -> None:
    for _ in range(999):
        store.put("/other", "value=x&ttl=50")
    store.put("/other", "refresh=true&ttl=50")
    assert store.state.index == 1003
    oldest = store.past("/other", 4)
    assert isinstance(oldest, list)
    assert oldest[0].index == 4
    assert store.past("/other", 3) == Refusal(401, "the requested history has been cleared [4/3]", 1003)
    store.put("/other", "refresh=true&ttl=50")
    assert store.past("/a", 4) == Refusal(401, "the requested history has been cleared [5/4]", 1004)
    assert store.past("/a", 5) == []


def test_what_etcd_used_before_the_first_write_takes_places(store: Store) -> None:
    assert store.past("/a", 1) == []
    for _ in range(997):
        store.put("/a")
    assert not isinstance(store.past("/a", 1), Refusal)
    store.put("/a")
    assert isinstance(store.past("/a", 1), Refusal)
    assert not isinstance(store.past("/a", 2), Refusal)


def test_big_values_shorten_the_history(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "HISTORY_OCTETS", 1000)
    for _ in range(5):
        store.put("/a", "value=" + "x" * 200)
    kept = store.state.history
    assert [event.index for event in kept.events] == [7, 8]
    assert kept.octets <= 1000
    assert store.past("/a", 6) == Refusal(401, "the requested history has been cleared [7/6]", 8)


def test_the_history_does_not_hold_on_to_what_was_removed(store: Store) -> None:
    store.put("/d/x")
    heard = store.wait("/d/x")
    store.delete("/d?recursive=true")
    assert heard[0].removed is not None
    assert all(event.removed is None for event in store.state.history.events)


def test_a_waiter_that_goes_is_forgotten(store: Store) -> None:
    heard = store.wait("/a")
    store.wait("/a")
    assert len(store.table) == 2
    store.table.remove(0, "/a")
    store.table.remove(0, "/a")
    store.table.remove(7, "/never")
    store.put("/a")
    assert (len(store.table), heard, len(store.heard[1])) == (1, [], 1)
    store.table.remove(1, "/a")
    assert len(store.table) == 0


def test_one_event_tells_500_who_wait(store: Store) -> None:
    waits = [store.wait("/a/b", recursive=number % 2 == 0) for number in range(500)]
    store.put("/a/b")
    assert all(told(heard) == [("set", "/a/b")] for heard in waits)
