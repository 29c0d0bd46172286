"""Sections 3 and 4: answers byte for byte, headers, and the table of errors."""

from __future__ import annotations

import pytest

from careen.core.keys.answers import answer_refusal, quote, spell_instant
from careen.core.keys.faults import MESSAGES, Code, Refusal
from key_store import NOON, SECOND, Store


def test_fields_come_in_etcds_order_without_blanks_and_end_with_a_newline(store: Store) -> None:
    store.put("/a", "value=1")
    assert store.put("/a", "value=2&ttl=5").text == (
        '{"action":"set","node":{"key":"/a","value":"2","expiration":"2026-01-01T12:00:05Z","ttl":5,'
        '"modifiedIndex":5,"createdIndex":5},'
        '"prevNode":{"key":"/a","value":"1","modifiedIndex":4,"createdIndex":4}}\n'
    )
    store.put("/d/x", "value=")
    assert store.get("/d").text == (
        '{"action":"get","node":{"key":"/d","dir":true,"nodes":[{"key":"/d/x","value":"","modifiedIndex":6,'
        '"createdIndex":6}],"modifiedIndex":6,"createdIndex":6}}\n'
    )


def test_the_root_has_no_key_and_no_indexes(store: Store) -> None:
    assert store.get("/").text == '{"action":"get","node":{"dir":true}}\n'
    store.put("/a")
    assert set(store.get("/").node) == {"dir", "nodes"}


def test_a_directory_is_listed_one_level_or_whole(store: Store) -> None:
    store.put("/d/sub/deep", "value=x")
    store.put("/d/empty", "dir=true")
    level = store.get("/d?sorted=true").node
    assert [node["key"] for node in level["nodes"]] == ["/d/empty", "/d/sub"]
    assert all("nodes" not in node for node in level["nodes"])
    whole = store.get("/d?recursive=true&sorted=true").node
    assert "nodes" not in whole["nodes"][0]
    assert whole["nodes"][1]["nodes"][0]["value"] == "x"
    assert store.get("/d?recursive=true&dir=false").node["nodes"]


def test_sorted_is_by_bytes_at_every_level(store: Store) -> None:
    names = ["b", "a", "B", "a.b", "a-b", "ä", "\U0001f600", "10", "9"]
    for name in names:
        store.put(f"/d/{name}/{name}")
        store.put(f"/d/{name}/0")
    expected = sorted(names, key=str.encode)
    shown = store.get("/d?sorted=true&recursive=true").node["nodes"]
    assert [node["key"].rpartition("/")[2] for node in shown] == expected
    for node, name in zip(shown, expected, strict=True):
        assert [leaf["key"] for leaf in node["nodes"]] == [f"/d/{name}/0", f"/d/{name}/{name}"]


def test_text_is_escaped_as_go_does() -> None:
    assert quote('<a href="x">&\\\n\r\t\b\f\x00\x7f\u2028é') == (
        '"\\u003ca href=\\"x\\"\\u003e\\u0026\\\\\\n\\r\\t\\u0008\\u000c\\u0000\x7f\\u2028é"'
    )


@pytest.mark.parametrize(
    ("fraction", "spelled"),
    [(0, "2026-01-01T12:00:00Z"), (500_000_000, "2026-01-01T12:00:00.5Z"), (1, "2026-01-01T12:00:00.000000001Z")],
)
def test_instants_are_utc_with_nanoseconds(fraction: int, spelled: str) -> None:
    assert spell_instant(NOON + fraction) == spelled
    assert spell_instant(-SECOND) == "1969-12-31T23:59:59Z"


def test_the_index_header_is_the_stores_or_the_errors(store: Store) -> None:
    written = store.put("/a")
    store.put("/b")
    assert written.answer.index == 4
    assert store.get("/a").answer.index == 5
    assert store.get("/no").answer.index == 5
    assert store.get("/a?sorted=x").answer.index == 0
    event = store.past("/a", 4)[0]  # type: ignore[index]
    assert store.wait_reply(event).answer.index == 5
    assert store.wait_reply(event).text == written.text


def test_raft_headers_are_on_success_only(store: Store) -> None:
    assert store.put("/a").answer.raft
    assert store.get("/a").answer.raft
    assert not store.get("/no").answer.raft
    assert not store.get("/a?sorted=x").answer.raft


def test_head_is_answered_as_get(store: Store) -> None:
    store.put("/a")
    for target in ("/a", "/no", "/a/b"):
        assert store.call("HEAD", target) == store.call("GET", target)


@pytest.mark.parametrize(
    ("code", "message", "status"),
    [
        (100, "Key not found", 404),
        (101, "Compare failed", 412),
        (102, "Not a file", 403),
        (104, "Not a directory", 400),
        (105, "Key already exists", 412),
        (107, "Root is read only", 400),
        (108, "Directory not empty", 403),
        (110, "The request requires user authentication", 401),
        (120, "Limit exceeded", 403),
        (121, "Reboot lock refused", 403),
        (201, "PrevValue is Required in POST form", 400),
        (202, "The given TTL in POST form is not a number", 400),
        (203, "The given index in POST form is not a number", 400),
        (209, "Invalid field", 400),
        (210, "Invalid POST form", 400),
        (211, "Value provided on refresh", 400),
        (212, "A TTL must be provided on refresh", 400),
        (300, "Raft Internal Error", 500),
        (301, "During Leader Election", 500),
        (400, "watcher is cleared due to etcd recovery", 400),
        (401, "The event in requested index is outdated and cleared", 400),
    ],
)
def test_the_table_of_errors(code: int, message: str, status: int) -> None:
    answer = answer_refusal(Refusal(Code(code), "/a<b", 7))
    assert answer.status == status
    assert answer.body.decode() == (f'{{"errorCode":{code},"message":"{message}","cause":"/a\\u003cb","index":7}}\n')


def test_an_empty_cause_is_left_out_and_every_code_has_words() -> None:
    assert answer_refusal(Refusal(Code.NOT_A_FILE)).body == b'{"errorCode":102,"message":"Not a file","index":0}\n'
    assert set(MESSAGES) == set(Code)
