"""A keyspace behind the requests that clients send: what the gateway does, without HTTP and without waiting."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from careen.core.keys.answers import Answer, answer_read, answer_refusal, answer_wait, answer_write
from careen.core.keys.events import Event
from careen.core.keys.faults import Refusal
from careen.core.keys.forms import FORM_TYPE, read_form
from careen.core.keys.history import Watch, WatchTable
from careen.core.keys.operations import apply, find_due
from careen.core.keys.paths import find_key
from careen.core.keys.requests import Read, Wait, read_request
from careen.core.keys.state import Keyspace
from careen.core.keys.views import get

SECOND = 1_000_000_000
NOON = 1_767_268_800 * SECOND
"""2026-01-01T12:00:00Z."""


@dataclass(frozen=True)
class Reply:
    """An answer, opened."""

    answer: Answer

    @property
    def status(self) -> int:
        return self.answer.status

    @property
    def text(self) -> str:
        return self.answer.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.answer.body)

    @property
    def node(self) -> Any:
        return self.json["node"]

    @property
    def fault(self) -> tuple[int, int, str]:
        """HTTP status, code, cause."""
        return self.status, self.json["errorCode"], self.json.get("cause", "")


class Store:
    """A store with a clock that tests move."""

    def __init__(self) -> None:
        self.state = Keyspace()
        self.now = NOON
        self.table: WatchTable[int] = WatchTable()
        self.heard: dict[int, list[Event]] = {}

    def call(self, method: str, target: str, body: str | None = None, kind: str = FORM_TYPE) -> Reply:
        """One request below /v2/keys, answered."""
        path, _, query = target.partition("?")
        key = find_key("/v2/keys" + path)
        assert isinstance(key, str)
        form = read_form(method, query, kind if body is not None else "", (body or "").encode())
        wish = form if isinstance(form, Refusal) else read_request(method, key, form, self.now)
        if isinstance(wish, Refusal):
            return Reply(answer_refusal(wish))
        if isinstance(wish, Read):
            seen = get(self.state, wish.path, self.now, wish.recursive, wish.in_order)
            refused = isinstance(seen, Refusal)
            return Reply(answer_refusal(seen) if refused else answer_read(seen, self.state.index))
        assert not isinstance(wish, Wait), "use past or wait"
        event = self.do(wish.operation)
        return Reply(answer_refusal(event) if isinstance(event, Refusal) else answer_write(event, wish.quiet))

    def do(self, operation: Any) -> Event | Refusal:
        """One operation, and its event to all who wait."""
        _, event = apply(self.state, operation, self.now)
        if isinstance(event, Event):
            for waiter in self.table.told(event):
                self.heard[waiter].append(event)
        return event

    def get(self, target: str) -> Reply:
        return self.call("GET", target)

    def put(self, target: str, body: str = "value=v") -> Reply:
        return self.call("PUT", target, body)

    def post(self, target: str, body: str = "value=v") -> Reply:
        return self.call("POST", target, body)

    def delete(self, target: str, body: str | None = None) -> Reply:
        return self.call("DELETE", target, body)

    def sweep(self, seconds: float = 0) -> list[Event]:
        """Let time pass, and remove what is due."""
        self.now += int(seconds * SECOND)
        outcomes = [self.do(operation) for operation in find_due(self.state, self.now, 1000)]
        return [outcome for outcome in outcomes if isinstance(outcome, Event)]

    def wait(self, path: str, recursive: bool = False, since: int = 0) -> list[Event]:
        """A stream that waits from now on: the list that its events go to."""
        number = len(self.heard)
        self.heard[number] = []
        self.table.add(number, Watch(path, recursive, since).settle(self.state.index))
        return self.heard[number]

    def past(self, path: str, since: int, recursive: bool = False) -> list[Event] | Refusal:
        """What the history has for a wait."""
        found = self.state.history.search(Watch(path, recursive, since))
        return found if isinstance(found, Refusal) else list(found)

    def wait_reply(self, event: Event) -> Reply:
        return Reply(answer_wait(event, self.state.index))
