"""The keyspace under any sequence of operations, against a flat table that does the same."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from careen.core.keys.codec import decode_operation, encode_operation
from careen.core.keys.events import Event, View
from careen.core.keys.faults import Refusal
from careen.core.keys.forms import FORM_TYPE, read_form
from careen.core.keys.history import Watch, WatchTable, tells_live
from careen.core.keys.operations import (
    AppendKey,
    CompareDeleteKey,
    CreateKey,
    DeleteKey,
    ExpireKey,
    Operation,
    SetKey,
    SwapKey,
    UpdateKey,
    apply,
    decide,
    find_due,
)
from careen.core.keys.paths import find_key
from careen.core.keys.requests import METHODS, read_request
from careen.core.keys.snapshots import decode_snapshot, encode_snapshot
from careen.core.keys.state import Keyspace, Size, walk, weigh
from careen.core.keys.views import get
from key_model import Model, is_told
from key_store import NOON, SECOND

NAMES = st.sampled_from(["a", "b", "ab", "_h"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
VALUES = st.sampled_from(["", "x", "y"])
EXPIRIES = st.none() | st.integers(0, 20).map(lambda seconds: NOON + seconds * SECOND)
FLAGS = st.booleans()
INDEXES = st.integers(0, 12)
OPERATIONS: st.SearchStrategy[Operation] = st.one_of(
    st.builds(SetKey, PATHS, VALUES, FLAGS, EXPIRIES, FLAGS),
    st.builds(SetKey, PATHS, VALUES),
    st.builds(CreateKey, PATHS, VALUES, FLAGS, EXPIRIES),
    st.builds(AppendKey, PATHS, VALUES, FLAGS, EXPIRIES),
    st.builds(UpdateKey, PATHS, VALUES, EXPIRIES, FLAGS),
    st.builds(SwapKey, PATHS, VALUES, VALUES, INDEXES, EXPIRIES, FLAGS),
    st.builds(DeleteKey, PATHS, FLAGS, FLAGS),
    st.builds(CompareDeleteKey, PATHS, VALUES, INDEXES),
    st.builds(ExpireKey, PATHS, INDEXES),
)
STEPS = st.lists(st.tuples(OPERATIONS, st.integers(0, 3)), max_size=30)
WATCHES = st.builds(Watch, PATHS | st.just("/"), FLAGS, st.integers(1, 12))


def flatten(state: Keyspace) -> dict[str, tuple[str | None, int, int, int | None]]:
    return {
        path: (entry.value, entry.created, entry.modified, entry.expires)
        for path, entry in walk(state.root, "/")
        if path != "/"
    }


def below(view: View) -> set[str]:
    return {key for node in view.nodes for key in (node.key, *below(node))}


def check_event(event: Event, expected: dict[str, Any]) -> None:
    assert (event.action, event.node.key, event.index) == (expected["action"], expected["key"], expected["index"])
    assert event.refresh == expected["refresh"]
    after, before = expected["after"], expected["before"]
    assert event.node.value == (after.value if after else None)
    assert event.node.expires == (after.expires if after else None)
    assert event.node.created == (after or before).created
    assert event.node.directory == ((after or before).value is None)
    assert (event.previous is None) == (before is None)
    if event.previous is not None:
        shown = event.previous
        assert (shown.value, shown.created, shown.modified) == (before.value, before.created, before.modified)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.lists(WATCHES, max_size=6))
def test_it_does_what_a_flat_table_does(steps: list[tuple[Operation, int]], watches: list[Watch]) -> None:
    state, model, now = Keyspace(), Model(), NOON
    table: WatchTable[int] = WatchTable()
    for number, watch in enumerate(watches):
        table.add(number, watch)
    for wished, seconds in steps:
        now += seconds * SECOND
        operation = decode_operation(json.loads(json.dumps(encode_operation(wished))))
        untouched = flatten(state)
        decided = decide(state, operation, now)
        assert flatten(state) == untouched
        size = state.size
        state, outcome = apply(state, operation, now)
        expected = model.do(operation, now)
        if isinstance(outcome, Refusal):
            assert (outcome.code, outcome.cause) == expected
            assert decided == outcome
            assert outcome.index == state.index
        else:
            assert isinstance(expected, dict), (outcome, expected)
            check_event(outcome, expected)
            assert not isinstance(decided, Refusal)
            if decided.entry is not None:
                assert size + decided.growth == state.size
            told = {
                number
                for number, watch in enumerate(watches)
                if is_told(expected, watch.path, watch.recursive, watch.since)
            }
            assert set(table.told(outcome)) == told
            assert {number for number, watch in enumerate(watches) if tells_live(watch, outcome)} == told
        assert state.index == model.index
        assert flatten(state) == {
            path: (row.value, row.created, row.modified, row.expires) for path, row in model.rows.items()
        }
        check_books(state)


def check_books(state: Keyspace) -> None:
    """What is kept beside the tree says what the tree says."""
    entries = [(path, entry) for path, entry in walk(state.root, "/") if path != "/"]
    assert state.size == sum((weigh(path, entry.value) for path, entry in entries), Size())
    expiring = {(entry.expires, path) for path, entry in entries if entry.expires is not None}
    assert state.expiring == len(expiring)
    assert expiring <= set(state.expiries)
    assert state.history.last == state.index


@settings(deadline=None)
@given(STEPS)
def test_gets_show_what_is_there_and_not_what_is_hidden(steps: list[tuple[Operation, int]]) -> None:
    state, model = Keyspace(), Model()
    for operation, _ in steps:
        apply(state, operation, NOON)
        model.do(operation, NOON)
    for path in ["/", *model.rows]:
        shown = get(state, path, NOON, recursive=True, in_order=True)
        assert isinstance(shown, View)
        assert below(shown) == model.listed(path.rstrip("/"))
        level = get(state, path, NOON)
        assert isinstance(level, View)
        assert {node.key for node in level.nodes} == {
            key for key in model.listed(path.rstrip("/")) if key.rpartition("/")[0] == path.rstrip("/")
        }


@settings(deadline=None)
@given(STEPS, st.integers(0, 30), st.integers(200, 3000))
def test_it_comes_back_at_any_moment_and_goes_on_alike(
    steps: list[tuple[Operation, int]], cut: int, octets: int
) -> None:
    state = Keyspace()
    for operation, _ in steps[:cut]:
        apply(state, operation, NOON)
    back = decode_snapshot(json.loads(json.dumps(list(encode_snapshot(state, octets)))))
    for operation, _ in steps[cut:]:
        assert apply(state, operation, NOON)[1] == apply(back, operation, NOON)[1]
    assert list(encode_snapshot(state)) == list(encode_snapshot(back))


@settings(deadline=None)
@given(STEPS, st.integers(0, 40))
def test_after_a_sweep_nothing_is_due(steps: list[tuple[Operation, int]], seconds: int) -> None:
    state = Keyspace()
    for operation, _ in steps:
        apply(state, operation, NOON)
    now = NOON + seconds * SECOND
    kept = {path for path, row in flatten(state).items() if not ends(state, path, now)}
    for operation in find_due(state, now, 1000):
        apply(state, operation, now)
    assert find_due(state, now, 1000) == ()
    assert set(flatten(state)) == kept


def ends(state: Keyspace, path: str, now: int) -> bool:
    rows = flatten(state)
    tops = [path[:end] for end in range(1, len(path) + 1) if path[:end] in rows and (path + "/")[end] == "/"]
    return any((rows[top][3] or now + 1) <= now for top in tops)


@settings(deadline=None)
@given(STEPS, WATCHES)
def test_the_history_answers_as_a_live_watch_would_have(steps: list[tuple[Operation, int]], watch: Watch) -> None:
    """All but the ends of directories, of which the history no longer knows what was in them."""
    state, heard = Keyspace(), []
    for operation, _ in steps:
        _, outcome = apply(state, operation, NOON)
        if isinstance(outcome, Event) and tells_live(watch, outcome):
            heard.append(outcome.index)
    past = state.history.search(watch)
    assert not isinstance(past, Refusal)
    found = list(past)
    assert set(heard) <= {event.index for event in found}
    assert all(event.previous and event.previous.directory for event in found if event.index not in heard)


@settings(deadline=None)
@given(
    st.sampled_from(METHODS),
    st.text(max_size=30),
    st.text("abcdirtlevwonsuxPIEq=&%;+0123456789", max_size=60),
    st.binary(max_size=60),
)
def test_any_request_gets_an_answer(method: str, path: str, query: str, body: bytes) -> None:
    key = find_key("/v2/keys/" + path)
    form = read_form(method, query, FORM_TYPE, body)
    if isinstance(form, Refusal):
        assert form.status == 400
        return
    wish = read_request(method, key if isinstance(key, str) else "/x", form, NOON)
    assert not isinstance(wish, Refusal) or wish.status == 400
