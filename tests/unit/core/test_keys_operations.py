"""Section 2: what each request does, what it answers, and what it refuses."""

from __future__ import annotations

import pytest

from key_store import Store

ROOT_READ_ONLY = (400, 107, "/")


@pytest.fixture
def filled(store: Store) -> Store:
    """/file = v (4), /dir/child = c (5), /empty (6)."""
    store.put("/file", "value=v")
    store.put("/dir/child", "value=c")
    store.put("/empty", "dir=true")
    return store


def test_set_is_201_then_200_and_resets_the_created_index(store: Store) -> None:
    first = store.put("/a", "value=1")
    assert (first.status, first.json) == (
        201,
        {"action": "set", "node": {"key": "/a", "value": "1", "modifiedIndex": 4, "createdIndex": 4}},
    )
    second = store.put("/a", "value=2")
    assert second.status == 200
    assert second.node == {"key": "/a", "value": "2", "modifiedIndex": 5, "createdIndex": 5}
    assert second.json["prevNode"] == first.node


def test_get_shows_what_was_set_and_the_index(filled: Store) -> None:
    reply = filled.get("/file")
    assert (reply.status, reply.json["action"], reply.node["value"]) == (200, "get", "v")
    assert reply.answer.index == 6
    assert "prevNode" not in reply.json


def test_without_a_value_the_empty_string_is_stored_and_shown(store: Store) -> None:
    assert store.put("/a", "").node["value"] == ""
    assert store.call("PUT", "/b").node["value"] == ""
    assert store.get("/b").node["value"] == ""


def test_parents_are_made_without_ttl_at_the_index_of_the_write(store: Store) -> None:
    store.put("/a/b/c", "value=x&ttl=5")
    parent = store.get("/a/b").node
    assert (parent["createdIndex"], parent["modifiedIndex"], parent.get("ttl")) == (4, 4, None)
    assert store.state.index == 4


def test_directories_are_made_once_and_replace_files(filled: Store) -> None:
    made = filled.put("/new", "dir=true&value=dropped")
    assert (made.status, made.node) == (201, {"key": "/new", "dir": True, "modifiedIndex": 7, "createdIndex": 7})
    assert filled.put("/new", "dir=true").fault == (403, 102, "/new")
    over = filled.put("/file", "dir=true")
    assert (over.status, over.json["prevNode"]["value"]) == (200, "v")
    assert "value" not in filled.get("/file").node


def test_a_value_on_a_directory_is_refused(filled: Store) -> None:
    assert filled.put("/dir", "value=x").fault == (403, 102, "/dir")


def test_create_makes_but_never_replaces(filled: Store) -> None:
    made = filled.put("/new?prevExist=false", "value=x")
    assert (made.status, made.json["action"]) == (201, "create")
    assert "prevNode" not in made.json
    for key in ("/new", "/dir", "/file"):
        assert filled.put(f"{key}?prevExist=false", "value=y").fault == (412, 105, key)
    assert filled.put("/d2?prevExist=false", "dir=true").node["dir"] is True


def test_create_ignores_other_conditions(filled: Store) -> None:
    assert filled.put("/new?prevExist=false&prevValue=zz&prevIndex=99").json["action"] == "create"


def test_update_keeps_the_created_index(filled: Store) -> None:
    reply = filled.put("/file?prevExist=true", "value=w")
    assert (reply.status, reply.json["action"]) == (200, "update")
    assert reply.node == {"key": "/file", "value": "w", "modifiedIndex": 7, "createdIndex": 4}
    assert reply.json["prevNode"]["value"] == "v"
    assert filled.put("/file?prevExist=true", "").node["value"] == ""
    assert filled.put("/no?prevExist=true").fault == (404, 100, "/no")


def test_updating_a_directory_tells_an_index_that_it_does_not_keep(filled: Store) -> None:
    assert filled.put("/dir?prevExist=true", "value=x").fault == (403, 102, "/dir")
    reply = filled.put("/dir?prevExist=true", "ttl=9")
    assert (reply.node["modifiedIndex"], reply.node["ttl"], reply.node["dir"]) == (7, 9, True)
    assert filled.get("/dir").node["modifiedIndex"] == 5
    assert filled.get("/dir/child").node["value"] == "c"
    again = filled.put("/dir?prevExist=true", "")
    assert again.json["prevNode"]["modifiedIndex"] == 5
    assert "ttl" not in filled.get("/dir").node


@pytest.mark.parametrize("condition", ["prevValue=v", "prevIndex=4", "prevValue=v&prevIndex=4&prevExist=true"])
def test_swap_when_all_is_as_expected(filled: Store, condition: str) -> None:
    reply = filled.put(f"/file?{condition}", "value=w")
    assert (reply.status, reply.json["action"]) == (200, "compareAndSwap")
    assert reply.node == {"key": "/file", "value": "w", "modifiedIndex": 7, "createdIndex": 4}
    assert reply.json["prevNode"] == {"key": "/file", "value": "v", "modifiedIndex": 4, "createdIndex": 4}


@pytest.mark.parametrize(
    ("condition", "cause"),
    [
        ("prevValue=x", "[x != v]"),
        ("prevIndex=9", "[9 != 4]"),
        ("prevValue=x&prevIndex=9", "[x != v] [9 != 4]"),
        ("prevValue=v&prevIndex=9", "[9 != 4]"),
        ("prevValue=x&prevIndex=4", "[x != v]"),
        (f"prevIndex={(1 << 64) - 1}", f"[{(1 << 64) - 1} != 4]"),
    ],
)
def test_the_three_forms_of_a_failed_compare(filled: Store, condition: str, cause: str) -> None:
    assert filled.put(f"/file?{condition}").fault == (412, 101, cause)
    assert filled.delete(f"/file?{condition}").fault == (412, 101, cause)


def test_swap_on_what_is_no_file(filled: Store) -> None:
    assert filled.put("/dir?prevValue=x").fault == (403, 102, "/dir")
    assert filled.put("/no/where?prevIndex=4").fault == (404, 100, "/no")


def test_index_0_is_no_condition(filled: Store) -> None:
    assert filled.put("/file?prevIndex=0").json["action"] == "set"
    assert filled.delete("/file?prevIndex=0").json["action"] == "delete"


def test_post_makes_keys_in_order(filled: Store) -> None:
    first, second = filled.post("/queue", "value=a"), filled.post("/queue", "value=b")
    assert (first.status, first.json["action"]) == (201, "create")
    assert first.node["key"] == "/queue/00000000000000000007"
    assert second.node["key"] == "/queue/00000000000000000008"
    assert filled.get("/queue").node["createdIndex"] == 7
    assert filled.post("/queue?prevExist=true", "dir=true&ttl=5").node["ttl"] == 5
    assert filled.post("/", "value=r").node["key"] == "/00000000000000000010"
    assert filled.post("/file").fault == (400, 104, "/file")


def test_post_over_a_key_that_was_named_so_is_refused(filled: Store) -> None:
    filled.put("/queue/00000000000000000008")
    assert filled.post("/queue").fault == (412, 105, "/queue/00000000000000000008")


def test_delete(filled: Store) -> None:
    assert filled.delete("/no").fault == (404, 100, "/no")
    assert filled.delete("/dir").fault == (403, 102, "/dir")
    assert filled.delete("/dir?dir=true").fault == (403, 108, "/dir")
    gone = filled.delete("/file?dir=true")
    assert (gone.status, gone.json) == (
        200,
        {
            "action": "delete",
            "node": {"key": "/file", "modifiedIndex": 7, "createdIndex": 4},
            "prevNode": {"key": "/file", "value": "v", "modifiedIndex": 4, "createdIndex": 4},
        },
    )
    assert filled.delete("/empty?dir=true").node["dir"] is True
    tree = filled.delete("/dir?recursive=true")
    assert tree.node == {"key": "/dir", "dir": True, "modifiedIndex": 9, "createdIndex": 5}
    assert tree.json["prevNode"] == {"key": "/dir", "dir": True, "modifiedIndex": 5, "createdIndex": 5}
    assert filled.get("/dir/child").fault == (404, 100, "/dir")
    assert filled.state.size.keys == filled.state.size.octets == 0


def test_compare_and_delete(filled: Store) -> None:
    assert filled.delete("/dir?prevIndex=5&dir=true").fault == (403, 102, "/dir")
    gone = filled.delete("/file?prevValue=v&prevIndex=4")
    assert (gone.status, gone.json["action"]) == (200, "compareAndDelete")
    assert gone.node == {"key": "/file", "modifiedIndex": 7, "createdIndex": 4}
    assert gone.json["prevNode"]["value"] == "v"
    assert filled.delete("/file?prevValue=v").fault == (404, 100, "/file")


def test_a_path_through_a_file_is_refused_with_the_file(filled: Store) -> None:
    for method in ("GET", "PUT", "DELETE", "HEAD"):
        assert filled.call(method, "/dir/child/x/y").fault == (400, 104, "/dir/child")
    for query in ("prevExist=true", "prevExist=false", "prevIndex=5", "dir=true"):
        assert filled.put(f"/dir/child/x?{query}", "").fault == (400, 104, "/dir/child")


def test_what_is_missing_may_be_a_parent(filled: Store) -> None:
    assert filled.get("/dir/no/x").fault == (404, 100, "/dir/no")
    assert filled.get("/dir/no/x").json["index"] == 6


def test_the_root_is_read_only(filled: Store) -> None:
    for query in ("", "dir=true", "prevExist=true", "prevExist=false", "prevIndex=4", "refresh=true&ttl=5"):
        assert filled.put(f"/?{query}", "").fault == ROOT_READ_ONLY
    assert filled.delete("/?recursive=true").fault == ROOT_READ_ONLY
    assert filled.delete("/?prevIndex=4").fault == (403, 102, "")


def test_failed_writes_keep_the_index(filled: Store) -> None:
    before = filled.state.index
    for reply in (
        filled.put("/dir"),
        filled.put("/file?prevValue=x"),
        filled.put("/file?prevExist=false"),
        filled.put("/file/below/it"),
        filled.delete("/no"),
        filled.put("/new/refreshed", "refresh=true&ttl=5"),
    ):
        assert reply.status >= 400
        assert reply.answer.index == before
    assert filled.state.index == before
    assert filled.get("/new").status == 404


def test_each_write_raises_the_index_by_one_and_the_first_is_4(store: Store) -> None:
    indexes = [
        reply.answer.index
        for reply in (
            store.put("/a"),
            store.put("/a/b?prevExist=false", ""),
            store.put("/a?prevExist=true"),
            store.post("/q/deep/queue"),
            store.put("/a", "refresh=true&ttl=5"),
            store.delete("/q?recursive=true"),
            store.delete("/a?prevValue=v"),
        )
        if reply.status < 400
    ]
    assert indexes == [4, 5, 6, 7, 8, 9]


def test_a_successful_answer_may_come_without_the_node(filled: Store) -> None:
    assert filled.put("/new?noValueOnSuccess=true").text == '{"action":"set"}\n'
    assert filled.put("/new?noValueOnSuccess=true").status == 200
    assert filled.put("/new?noValueOnSuccess=true&prevExist=true").text == '{"action":"update"}\n'
    assert filled.put("/new?noValueOnSuccess=true&prevValue=v").text == '{"action":"compareAndSwap"}\n'
    assert filled.post("/q?noValueOnSuccess=true").text == '{"action":"create"}\n'
    assert filled.post("/q?noValueOnSuccess=true").status == 201
    assert filled.delete("/new?noValueOnSuccess=true").node["key"] == "/new"


def test_of_many_swaps_and_creates_one_wins(filled: Store) -> None:
    swaps = [filled.put("/file?prevIndex=4", f"value={n}").status for n in range(50)]
    creates = [filled.put("/new?prevExist=false", f"value={n}").status for n in range(50)]
    posts = {filled.post("/q").node["key"] for _ in range(50)}
    assert swaps.count(200) == creates.count(201) == 1
    assert len(posts) == 50
