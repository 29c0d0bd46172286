"""Section 5: TTLs, refreshes and hidden keys."""

from __future__ import annotations

from careen.core.keys.operations import ExpireKey, find_due
from key_store import NOON, SECOND, Store


def test_a_ttl_counts_down_rounded_up_and_is_never_negative(store: Store) -> None:
    assert store.put("/a", "value=v&ttl=5").node["ttl"] == 5
    for passed, shown in ((0.1, 5), (1.0, 4), (4.0, 1), (4.999, 1), (5.0, None), (60.0, None)):
        store.now = NOON + int(passed * SECOND)
        assert store.get("/a").node.get("ttl") == shown
        assert store.get("/a").node["expiration"] == "2026-01-01T12:00:05Z"


def test_expiry_is_an_event_of_its_own(store: Store) -> None:
    store.put("/a", "value=v&ttl=5")
    assert store.sweep(4.9) == []
    (event,) = store.sweep(0.1)
    assert (event.action, event.index) == ("expire", 5)
    assert store.wait_reply(event).text == (
        '{"action":"expire","node":{"key":"/a","modifiedIndex":5,"createdIndex":4},"prevNode":{"key":"/a","value":"v",'
        '"expiration":"2026-01-01T12:00:05Z","modifiedIndex":4,"createdIndex":4}}\n'
    )
    assert store.get("/a").fault == (404, 100, "/a")
    assert store.sweep(100) == []


def test_an_empty_ttl_is_none_and_0_is_at_once(store: Store) -> None:
    assert "ttl" not in store.put("/a", "ttl=").node
    assert store.put("/b", "ttl=0").status == 201
    assert "ttl" not in store.get("/b").node
    assert [event.node.key for event in store.sweep()] == ["/b"]


def test_several_that_are_due_expire_in_order_of_time(store: Store) -> None:
    for name, ttl in (("c", 3), ("a", 9), ("b", 1), ("d", 2)):
        store.put(f"/{name}", f"ttl={ttl}")
    assert [event.node.key for event in store.sweep(5)] == ["/b", "/d", "/c"]
    assert [event.index for event in store.sweep(5)] == [11]


def test_a_sweep_takes_no_more_than_it_is_told(store: Store) -> None:
    for number in range(5):
        store.put(f"/{number}", "ttl=1")
    assert len(find_due(store.state, NOON + SECOND, 2)) == 2


def test_a_directory_takes_its_children_along_with_one_event(store: Store) -> None:
    store.put("/d", "dir=true&ttl=5")
    store.put("/d/longer", "ttl=50")
    store.put("/d/due", "ttl=5")
    events = store.sweep(6)
    assert [(event.action, event.node.key, event.node.directory) for event in events] == [("expire", "/d", True)]
    assert store.state.index == 7
    assert store.get("/d/longer").fault == (404, 100, "/d")
    assert store.sweep(60) == []


def test_many_keys_that_go_with_their_directory_are_forgotten(store: Store) -> None:
    store.put("/other", "ttl=50")
    for number in range(100):
        store.put(f"/d/{number}", "ttl=5")
    store.delete("/d?recursive=true")
    assert store.state.expiring == 1
    assert [event.node.key for event in store.sweep(100)] == ["/other"]


def test_renewing_a_ttl_for_ever_takes_no_more_memory(store: Store) -> None:
    for _ in range(1000):
        store.now += SECOND
        store.put("/a?ttl=5", "")
    assert len(store.state.expiries) < 100
    store.now += 5 * SECOND - 1
    assert find_due(store.state, store.now, 10) == ()
    assert [event.node.key for event in store.sweep(1)] == ["/a"]


def test_a_key_that_was_written_twice_with_one_end_is_due_once(store: Store) -> None:
    for _ in range(3):
        store.put("/a", "ttl=5")
    store.put("/b", "ttl=5")
    assert find_due(store.state, NOON + 5 * SECOND, 2) == (ExpireKey("/a", 6), ExpireKey("/b", 7))
    assert len(store.sweep(5)) == 2


def test_writing_children_does_not_extend_a_directory_and_update_does(store: Store) -> None:
    store.put("/d", "dir=true&ttl=5")
    store.now += 3 * SECOND
    store.put("/d/child")
    assert store.get("/d").node["ttl"] == 2
    store.put("/d?prevExist=true", "ttl=9")
    assert store.get("/d").node["ttl"] == 9
    store.put("/d?prevExist=true", "")
    assert store.sweep(100) == []
    assert store.get("/d/child").status == 200


def test_set_update_and_swap_without_ttl_make_a_key_permanent(store: Store) -> None:
    for number, query in enumerate(("", "?prevExist=true", "?prevValue=v")):
        store.put(f"/{number}", "value=v&ttl=5")
        reply = store.put(f"/{number}{query}", "value=w")
        assert "expiration" not in reply.node
        assert reply.json["prevNode"]["ttl"] == 5
    assert store.sweep(100) == []
    assert store.state.expiring == 0


def test_refresh_keeps_the_value_and_tells_nobody(store: Store) -> None:
    store.put("/a", "value=v&ttl=5")
    heard = store.wait("/a")
    queries = ("", "prevExist=true&", "prevIndex=6&")
    set_, updated, swapped = (store.put(f"/a?{query}refresh=true&ttl=9", "") for query in queries)
    assert [reply.json["action"] for reply in (set_, updated, swapped)] == ["set", "update", "compareAndSwap"]
    assert [reply.node["value"] for reply in (set_, updated, swapped)] == ["v", "v", "v"]
    assert set_.node["createdIndex"] == 5
    assert updated.node["createdIndex"] == 5
    assert swapped.answer.index == 7
    assert heard == []
    assert store.past("/a", 5) == []
    assert store.sweep(8) == []
    assert [event.index for event in store.sweep(1)] == [8]


def test_what_a_refresh_needs(store: Store) -> None:
    store.put("/a", "value=v")
    store.put("/d", "dir=true")
    assert store.put("/a", "refresh=true").fault == (400, 212, "No TTL value set")
    assert store.put("/a", "refresh=true&ttl=").fault == (400, 212, "No TTL value set")
    assert store.put("/a", "refresh=true&ttl=5&value=x").fault == (400, 211, "A value was provided on a refresh")
    assert store.put("/a", "refresh=true&ttl=5&value=").status == 200
    assert store.put("/no", "refresh=true&ttl=5").fault == (404, 100, "/no")
    assert store.put("/d", "refresh=true&ttl=5").fault == (403, 102, "/d")
    assert store.put("/d?prevExist=true", "refresh=true&ttl=5").node["ttl"] == 5


def test_a_refresh_between_sweep_and_expiry_wins(store: Store) -> None:
    store.put("/a", "value=v&ttl=5")
    store.put("/d", "dir=true&ttl=5")
    store.now += 5 * SECOND
    file, directory = find_due(store.state, store.now, 10)
    store.put("/a", "refresh=true&ttl=5")
    store.put("/d?prevExist=true", "ttl=5")
    index = store.state.index
    assert store.do(file) != store.do(directory)
    assert store.state.index == index
    assert store.get("/a").status == store.get("/d").status == 200


def test_an_expiry_that_was_done_already_or_is_early_changes_nothing(store: Store) -> None:
    store.put("/a", "ttl=5")
    for early in (ExpireKey("/a", 4), ExpireKey("/no", 4), ExpireKey("/a", 9)):
        store.do(early)
    assert (store.state.index, store.get("/a").status) == (4, 200)
    (due,) = find_due(store.state, NOON + 5 * SECOND, 10)
    store.sweep(5)
    store.do(due)
    assert store.state.index == 5


def test_hidden_keys_are_left_out_of_lists_at_every_level(store: Store) -> None:
    for key in ("/_top", "/d/_file", "/d/_dir/x", "/d/sub/_deep/y", "/d/sub/shown", "/d/not_hidden"):
        store.put(key)
    assert [node["key"] for node in store.get("/").node["nodes"]] == ["/d"]
    whole = store.get("/d?recursive=true&sorted=true").text
    assert "_file" not in whole
    assert "_dir" not in whole
    assert "_deep" not in whole
    assert "/d/not_hidden" in whole
    assert "/d/sub/shown" in whole


def test_hidden_keys_are_there_for_those_who_name_them(store: Store) -> None:
    store.put("/d/_dir/x", "value=1")
    assert store.get("/d/_dir/x").node["value"] == "1"
    assert [node["key"] for node in store.get("/d/_dir").node["nodes"]] == ["/d/_dir/x"]
    assert store.put("/d/_dir/x?prevValue=1", "value=2").status == 200
    assert store.delete("/d?dir=true").fault == (403, 108, "/d")
    assert store.delete("/d/_dir?recursive=true").status == 200
