"""Operations and the whole keyspace as documents, and what is admitted."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from careen.core.keys import history
from careen.core.keys.codec import (
    BATCH_OCTETS,
    Batch,
    apply_batch,
    check_fit,
    decode_batch,
    decode_operation,
    encode_batch,
    encode_operation,
    measure,
    pack_batch,
)
from careen.core.keys.events import Event
from careen.core.keys.faults import Code, Refusal
from careen.core.keys.limits import Limits, admit
from careen.core.keys.operations import (
    AppendKey,
    Change,
    CompareDeleteKey,
    CreateKey,
    DeleteKey,
    ExpireKey,
    Operation,
    SetKey,
    SwapKey,
    UpdateKey,
    decide,
)
from careen.core.keys.snapshots import decode_snapshot, encode_snapshot
from careen.core.keys.state import Keyspace, Size
from key_store import NOON, SECOND, Store

OPERATIONS: list[Operation] = [
    SetKey("/a", "v", expires=NOON, refresh=True),
    SetKey("/d", directory=True),
    CreateKey("/a", "<ü\u2028>"),
    AppendKey("/q", "x"),
    UpdateKey("/a", "", NOON),
    SwapKey("/a", "w", "v", (1 << 64) - 1),
    DeleteKey("/d", directory=True, recursive=True),
    CompareDeleteKey("/a", "v", 7),
    ExpireKey("/a", 12),
]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: type(each).__name__)
def test_an_operation_comes_back_from_its_document(operation: Operation) -> None:
    assert decode_operation(json.loads(json.dumps(encode_operation(operation)))) == operation


def test_documents_are_plain_to_read() -> None:
    assert encode_operation(SwapKey("/a", "w", previous_index=7)) == {
        "do": "swap",
        "path": "/a",
        "value": "w",
        "previousIndex": "7",
    }
    assert encode_operation(SetKey("/a")) == {"do": "set", "path": "/a"}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "must be an object"),
        ({"do": "burn", "path": "/a"}, "do is 'burn', must be one of set"),
        ({"do": "set"}, "path is missing from set"),
        ({"do": "expire", "path": "/a"}, "modified is missing from expire"),
        ({"do": "set", "path": 1}, "path is 1, must be text"),
        ({"do": "set", "path": "/a", "value": "\ud800"}, "value holds half a character"),
        ({"do": "set", "path": "/a", "expires": True}, "expires is True, must be a whole number"),
        ({"do": "set", "path": "/a", "directory": "yes"}, "directory is 'yes', must be true or false"),
        ({"do": "swap", "path": "/a", "previousIndex": "-1"}, "previousIndex is '-1', must be a number"),
        ({"do": "set", "path": "/a", "colour": "red"}, "colour is no field of set"),
    ],
)
def test_what_is_no_operation_is_told_by_field_and_value(document: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_operation(document)


def test_a_batch_is_applied_in_order_at_its_instant_the_same_everywhere() -> None:
    batch = Batch(NOON, (SetKey("/a", "v", expires=NOON + SECOND), CreateKey("/a"), AppendKey("/q"), DeleteKey("/a")))
    one, other = Keyspace(), Keyspace()
    outcomes = apply_batch(one, batch)
    assert apply_batch(other, decode_batch(json.loads(json.dumps(encode_batch(batch))))) == outcomes
    assert [type(outcome) for outcome in outcomes] == [Event, Refusal, Event, Event]
    assert list(encode_snapshot(one)) == list(encode_snapshot(other))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"format": 2}, "format is 2, must be 1"),
        ({"format": 1, "now": 1}, "operations is None, must be a list"),
        ({"format": 1, "now": "1", "operations": []}, "now is '1', must be a whole number"),
    ],
)
def test_what_is_no_batch(document: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_batch(document)


def test_batches_are_filled_up_to_the_bound_and_keep_the_order() -> None:
    waiting: tuple[Operation, ...] = tuple(SetKey(f"/{number}", "x" * 100) for number in range(50))
    packed: list[Operation] = []
    rest = waiting
    while rest:
        batch, rest = pack_batch(rest, NOON, 1000)
        assert 0 < len(batch.operations) < 10
        assert len(json.dumps(encode_batch(batch), separators=(",", ":"))) <= 1000
        packed.extend(batch.operations)
    assert tuple(packed) == waiting
    assert pack_batch((), NOON) == (Batch(NOON, ()), ())


def test_an_operation_that_fits_into_no_document_is_refused() -> None:
    big = SetKey("/a", "<" * 300)
    assert check_fit(big, 7, 4000) is None
    refusal = check_fit(big, 7, 1000)
    assert refusal is not None
    assert (refusal.code, refusal.index, refusal.status) == (Code.LIMIT_EXCEEDED, 7, 403)
    with pytest.raises(ValueError, match="bytes more than 1000"):
        pack_batch((big,), NOON, 1000)


def test_a_document_is_measured_as_gos_encoder_writes_it() -> None:
    assert measure({"a": "<>&\u2028ü\b"}) == len('{"a":"\\u003c\\u003e\\u0026\\u2028ü\\u0008"}'.encode())


def fill(store: Store) -> None:
    for number in range(30):
        store.put(f"/d/{number}/_deep", f"value={'x' * number}&ttl={number + 1}")
    store.put("/empty", "dir=true&ttl=9")
    store.put("/empty?prevExist=true", "ttl=7")
    store.put("/d/3/_deep", "refresh=true&ttl=60")
    store.delete("/d/4?recursive=true")
    store.sweep(2)


def test_a_keyspace_comes_back_from_parts_of_bounded_size(store: Store) -> None:
    fill(store)
    parts = [json.loads(json.dumps(part)) for part in encode_snapshot(store.state, 1500)]
    assert len(parts) > 5
    assert all(measure(part) <= 1500 for part in parts)
    back = decode_snapshot(parts)
    assert list(encode_snapshot(back)) == list(encode_snapshot(store.state))
    assert (back.index, back.size, back.expiring) == (store.state.index, store.state.size, store.state.expiring)


def test_after_recovery_all_goes_on_as_if_nothing_had_been(store: Store) -> None:
    fill(store)
    other = Store()
    other.state, other.now = decode_snapshot(encode_snapshot(store.state)), store.now
    for call in (
        lambda each: each.get("/?recursive=true").text,
        lambda each: each.past("/d", 20, recursive=True),
        lambda each: each.past("/d", 1),
        lambda each: each.put("/d/3/_deep?prevExist=true", "value=w").text,
        lambda each: each.sweep(100),
        lambda each: each.post("/q").text,
        lambda each: each.get("/?recursive=true&sorted=true").text,
    ):
        assert call(store) == call(other)


def test_what_was_forgotten_stays_forgotten_after_recovery(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(history, "HISTORY_OCTETS", 1000)
        for _ in range(9):
            store.put("/a", "value=" + "x" * 200)
    before = store.past("/a", 10)
    assert before == Refusal(401, "the requested history has been cleared [11/10]", 12)
    store.state = decode_snapshot(encode_snapshot(store.state))
    assert store.past("/a", 10) == before


def test_an_empty_keyspace_comes_back_and_its_first_write_is_4() -> None:
    store = Store()
    store.state = decode_snapshot(encode_snapshot(store.state))
    assert store.put("/a").answer.index == 4


def test_a_snapshot_whose_parts_are_not_whole_is_refused(store: Store) -> None:
    fill(store)
    parts = list(encode_snapshot(store.state, 1500))
    store.put("/more")
    newer = list(encode_snapshot(store.state, 1500))
    for broken in (parts[:-1], parts[1:], [parts[0], *parts[2:]], [parts[0], *newer[1:]], [*parts, parts[-1]], []):
        with pytest.raises(ValueError, match="part"):
            decode_snapshot(broken)


@pytest.mark.parametrize("path", ["/", "a", "/a//b", "/a/b/"])
def test_entries_with_odd_paths_are_refused(path: str) -> None:
    (part,) = encode_snapshot(Keyspace())
    part["entries"] = [{"path": path, "created": 4, "modified": 4, "value": ""}]
    with pytest.raises(ValueError, match="path"):
        decode_snapshot([part])


def test_entries_out_of_order_or_below_files_are_refused() -> None:
    file = {"path": "/a", "created": 4, "modified": 4, "value": ""}
    for entries in ([file, file], [file, {**file, "path": "/a/b"}], [{**file, "path": "/x/y"}]):
        (part,) = encode_snapshot(Keyspace())
        part["entries"] = entries
        with pytest.raises(ValueError, match="before its directory, below a file, or twice"):
            decode_snapshot([part])


def test_the_end_of_the_history_must_be_the_index(store: Store) -> None:
    store.put("/a")
    (part,) = encode_snapshot(store.state)
    with pytest.raises(ValueError, match="the events end at 4, must end at 9"):
        decode_snapshot([{**part, "index": 9}])


SMALL = Limits(keys=4, octets=60, value_octets=20, path_octets=30, depth=3)


@pytest.mark.parametrize(
    ("operation", "cause"),
    [
        (SetKey("/new"), ""),
        (SetKey("/new/x/y"), "the keyspace would have 6 keys, at most 4 are allowed"),
        (SetKey("/n", "x" * 21), "the value would have 21 bytes as JSON, at most 20 are allowed"),
        (SetKey("/n", "<<<<"), "the value would have 24 bytes as JSON, at most 20 are allowed"),
        (SetKey("/" + "ü" * 15), "the path would have 31 bytes, at most 30 are allowed"),
        (SetKey("/a/b/c/d"), "the path would have 4 parts, at most 3 are allowed"),
        (AppendKey("/queue-of-", "x"), "the path would have 31 bytes, at most 30 are allowed"),
        (SetKey("/full", "y" * 20), ""),
        (SetKey("/" + "n" * 29, "y" * 20), "the keyspace would have 85 bytes, at most 60 are allowed"),
        (UpdateKey("/d", expires=NOON), ""),
        (DeleteKey("/d", recursive=True), ""),
    ],
)
def test_what_would_grow_beyond_a_limit_is_refused(store: Store, operation: Operation, cause: str) -> None:
    store.put("/d/full", "value=" + "x" * 20)
    store.put("/full", "value=x")
    assert store.state.size == Size(3, 2 + (7 + 20) + (5 + 1))
    change = decide(store.state, operation, store.now)
    assert isinstance(change, Change)
    refusal = admit(change, store.state.size, SMALL, store.state.index)
    assert (refusal.cause if refusal else "") == cause
    if refusal:
        assert (refusal.code, refusal.status, refusal.index) == (Code.LIMIT_EXCEEDED, 403, 5)


def test_over_a_limit_all_that_makes_less_is_admitted(store: Store) -> None:
    store.put("/a", "value=" + "x" * 20)
    store.put("/b")
    tight = replace(SMALL, keys=1, octets=1)
    for operation in (SetKey("/a", "short"), UpdateKey("/a"), DeleteKey("/a"), SetKey("/a", directory=True)):
        change = decide(store.state, operation, store.now)
        assert isinstance(change, Change)
        assert admit(change, store.state.size, tight, 0) is None


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"keys": 0}, "keys is 0, must be at least 1"),
        ({"depth": 257}, "depth is 257, must be at most 256"),
        ({"value_octets": 600_000}, "value_octets is 600000 and path_octets 2048: an event could have"),
    ],
)
def test_limits_that_could_not_be_kept_are_refused(limits: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Limits(**limits)


def test_the_greatest_event_that_is_admitted_fits_into_one_part(store: Store) -> None:
    limits = Limits(value_octets=500_000, path_octets=2000)
    path = "/" + "\b" * 1999
    for char in "<&":
        operation = SetKey(path, char * (500_000 // 6), expires=NOON + SECOND)
        change = decide(store.state, operation, store.now)
        assert isinstance(change, Change)
        assert admit(change, store.state.size, limits, 0) is None
        assert check_fit(operation, 0) is None
        store.do(operation)
    parts = list(encode_snapshot(store.state))
    assert len(parts) > 1
    assert all(measure(part) <= BATCH_OCTETS for part in parts)


def test_what_is_admitted_and_not_applied_yet_counts(store: Store) -> None:
    change = decide(store.state, SetKey("/a"), store.now)
    assert isinstance(change, Change)
    assert admit(change, Size(3, 0), SMALL, 0) is None
    assert admit(change, Size(3, 0) + Size(1, 0), SMALL, 0) is not None


def test_trying_an_operation_changes_nothing(store: Store) -> None:
    fill(store)
    before = list(encode_snapshot(store.state))
    for operation in (*OPERATIONS, SetKey("/new/parents/too"), DeleteKey("/d", recursive=True)):
        decide(store.state, operation, store.now + 1000 * SECOND)
    assert list(encode_snapshot(store.state)) == before
