"""Section 1: where parameters are read, and what is refused in which words."""

from __future__ import annotations

import pytest

from careen.core.keys.faults import Refusal
from careen.core.keys.forms import FORM_OCTETS, FORM_TYPE, read_form
from careen.core.keys.operations import ExpireKey, find_due
from careen.core.keys.paths import Moved, find_key
from careen.core.keys.requests import METHODS, Read, Wait, read_request
from key_store import NOON, SECOND, Store


def test_the_value_may_be_in_the_query_and_the_body_wins(store: Store) -> None:
    assert store.call("PUT", "/a?value=query").node["value"] == "query"
    assert store.put("/a?value=query", "value=body").node["value"] == "body"
    assert store.put("/a?value=one&value=two", "").node["value"] == "one"
    assert store.put("/a?prevExist=true", "prevExist=false").fault == (412, 105, "/a")


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x", "text/plain", ""])
def test_other_bodies_are_ignored_and_the_empty_string_is_stored(store: Store, kind: str) -> None:
    assert store.call("PUT", "/a", "value=lost", kind).node["value"] == ""


def test_a_form_may_name_its_charset(store: Store) -> None:
    assert store.call("PUT", "/a", "value=x", f"{FORM_TYPE}; charset=utf-8").node["value"] == "x"


def test_the_body_of_a_delete_is_ignored_and_its_condition_lost(store: Store) -> None:
    store.put("/a", "value=v")
    assert store.delete("/a", "prevValue=other").json["action"] == "delete"


def test_plus_is_a_blank_and_its_escape_a_plus(store: Store) -> None:
    assert store.put("/a", "value=a+b%2Bc").node["value"] == "a b+c"
    assert store.put("/a?value=ü%C3%BC", "").node["value"] == "üü"


def test_invalid_utf8_is_shown_as_the_replacement_character(store: Store) -> None:
    assert store.put("/a", "value=x%FFy").node["value"] == "x\ufffdy"
    assert store.put("/a?value=x\udcffy", "").node["value"] == "x\ufffdy"
    assert store.put("/x\udcff%FF").node["key"] == "/x\ufffd\ufffd"


@pytest.mark.parametrize(
    ("query", "cause"),
    [
        ("value=%zz", 'invalid URL escape "%zz"'),
        ("value=1%2", 'invalid URL escape "%2"'),
        ("%=x", 'invalid URL escape "%"'),
        ("value=%%41", 'invalid URL escape "%%4"'),
        ("a=1;b=2", "invalid semicolon separator in query"),
    ],
)
def test_a_form_that_is_none_is_210(store: Store, query: str, cause: str) -> None:
    assert store.get(f"/a?{query}").fault == (400, 210, cause)
    assert store.put("/a", query).fault == (400, 210, cause)
    assert store.get(f"/a?{query}").json["index"] == 0


def test_a_form_has_at_most_10_mib() -> None:
    fits = read_form("PUT", "", FORM_TYPE, b"value=" + b"x" * (FORM_OCTETS - 6))
    assert not isinstance(fits, Refusal)
    assert read_form("PUT", "", FORM_TYPE, b"x" * (FORM_OCTETS + 1)) == Refusal(210, "http: POST too large")


def test_paths_are_decoded_once(store: Store) -> None:
    store.put("/a%2Fb", "value=parted")
    store.put("/a%252Fb", "value=literal")
    assert store.get("/a/b").node["value"] == "parted"
    assert store.get("/a%252Fb").node == store.get("/a%252Fb/").node
    assert store.get("/a%252Fb").node["key"] == "/a%2Fb"
    assert store.put("/schlüssel").node["key"] == "/schlüssel"
    assert store.put("/schl%C3%BCssel").node["key"] == "/schlüssel"


@pytest.mark.parametrize(
    ("raw", "location"),
    [
        ("/v2/keys//a", "/v2/keys/a"),
        ("/v2/keys/a//b/", "/v2/keys/a/b/"),
        ("/v2/keys/a/../b", "/v2/keys/b"),
        ("/v2/keys/a/./b", "/v2/keys/a/b"),
        ("//v2/keys/a%20b", "/v2/keys/a%20b"),
        ("/v2/keys//%2A%3F%C3%BC$&+,:;=@~", "/v2/keys/%2A%3F%C3%BC$&+,:;=@~"),
    ],
)
def test_paths_that_are_not_plain_are_sent_on(raw: str, location: str) -> None:
    assert find_key(raw) == Moved(location)


@pytest.mark.parametrize(
    ("raw", "key"),
    [("/v2/keys", "/"), ("/v2/keys/", "/"), ("/v2/keys/a/", "/a"), ("/v2/keysx", None), ("/v2/members", None)],
)
def test_what_names_a_key(raw: str, key: str | None) -> None:
    assert find_key(raw) == key


@pytest.mark.parametrize("word", ["1", "t", "T", "TRUE", "true", "True"])
def test_words_for_yes(store: Store, word: str) -> None:
    store.put("/d", f"dir={word}")
    assert store.get("/d").node["dir"] is True


@pytest.mark.parametrize("word", ["0", "f", "F", "FALSE", "false", "False"])
def test_words_for_no(store: Store, word: str) -> None:
    assert store.put(f"/d?dir={word}").node["value"] == "v"


@pytest.mark.parametrize("word", ["", "yes", "TrUe", "2"])
def test_other_words_are_209_and_two_names_come_without_quotes(store: Store, word: str) -> None:
    for name in ("recursive", "sorted", "wait", "dir", "quorum", "stream", "noValueOnSuccess"):
        assert store.put(f"/a?{name}={word}").fault == (400, 209, f'invalid value for "{name}"')
    for name in ("prevExist", "refresh"):
        assert store.put(f"/a?{name}={word}").fault == (400, 209, f"invalid value for {name}")


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "+1", "1_0", "١", str(1 << 64), "9" * 5000])
def test_indexes_that_are_none_are_203(store: Store, text: str) -> None:
    text = text.replace("+", "%2B")
    for name in ("prevIndex", "waitIndex"):
        assert store.get(f"/a?{name}={text}").fault == (400, 203, f'invalid value for "{name}"')


@pytest.mark.parametrize("text", ["x", "-1", "1.5"])
def test_ttls_that_are_none_are_202(store: Store, text: str) -> None:
    assert store.put("/a", f"ttl={text}").fault == (400, 202, 'invalid value for "ttl"')


def test_an_empty_previous_value_is_201_on_every_method(store: Store) -> None:
    for method in METHODS:
        assert store.call(method, "/a?prevValue=").fault == (400, 201, '"prevValue" cannot be empty')


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "HEAD"])
def test_wait_is_for_get_alone(store: Store, method: str) -> None:
    assert store.call(method, "/a?wait=true").fault == (400, 209, '"wait" can only be used with GET requests')


def test_quorum_wins_over_wait() -> None:
    both = read_request("GET", "/a", {"wait": "true", "quorum": "true"}, NOON)
    assert both == Read("/a", quorum=True)
    alone = read_request("GET", "/a", {"wait": "true", "waitIndex": "7", "recursive": "1", "stream": "1"}, NOON)
    assert isinstance(alone, Wait)
    assert (alone.watch.path, alone.watch.recursive, alone.watch.since, alone.stream) == ("/a", True, 7, True)


def test_the_first_wrong_parameter_in_etcds_order_is_told(store: Store) -> None:
    names = [
        ("prevIndex=x", 203, '"prevIndex"'), ("waitIndex=x", 203, '"waitIndex"'), ("recursive=x", 209, '"recursive"'),
        ("sorted=x", 209, '"sorted"'), ("wait=x", 209, '"wait"'), ("dir=x", 209, '"dir"'),
        ("quorum=x", 209, '"quorum"'), ("stream=x", 209, '"stream"'), ("prevValue=", 201, '"prevValue"'),
        ("noValueOnSuccess=x", 209, '"noValueOnSuccess"'), ("ttl=x", 202, '"ttl"'), ("prevExist=x", 209, "prevExist"),
        ("refresh=x", 209, "refresh"),
    ]  # fmt: skip
    for start, (_, code, named) in enumerate(names):
        rest = "&".join(query for query, _, _ in reversed(names[start:]))
        status, found, cause = store.put(f"/a?{rest}").fault
        assert (status, found) == (400, code)
        assert named in cause


def test_unknown_parameters_are_ignored(store: Store) -> None:
    assert store.put("/a?colour=red").status == 201


def test_a_very_large_ttl_wraps_around_into_the_past(store: Store) -> None:
    assert store.put("/a", f"ttl={(1 << 64) - 1}").status == 201
    assert find_due(store.state, NOON - SECOND, 9) == (ExpireKey("/a", 4),)
    assert find_due(store.state, NOON - SECOND - 1, 9) == ()
    assert store.get("/a").node.get("ttl") is None


def test_an_end_before_2000_is_none_for_set_and_create_alone(store: Store) -> None:
    long_ago = (1 << 64) - 40 * 365 * 86400
    assert "expiration" not in store.put("/a", f"ttl={long_ago}").node
    assert "expiration" not in store.put("/b?prevExist=false", f"ttl={long_ago}").node
    assert store.put("/a?prevExist=true", f"ttl={long_ago}").node["expiration"].startswith("198")
