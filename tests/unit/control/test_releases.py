"""The release book: it follows keys, never stands in the plan's way, and says what went wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from careen.control import releases
from careen.control.releases import Finding, ReleaseBook
from careen.core.releases import Fault, Release, ReleaseKey
from careen.observe.metrics import REGISTRY
from careen.release.errors import ReleaseMissingError, ReleaseTransferError, TrustError

KEY = ReleaseKey("http://r", "channel", "stable")
ASKED = frozenset({("uid", 1)})
NOW = 1000.0


def release_of(version: str) -> Release:
    return Release("http://r", version, "sha256:" + version[0] * 64, 4096, f"releases/{version}.json")


class Repository:
    """Answers with `answer`, or raises it; `gate` holds every answer back while it is not set."""

    def __init__(self) -> None:
        self.answer: Finding | Exception = Finding(release_of("2.0.0"))
        self.asked: list[ReleaseKey] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def find(self, key: ReleaseKey) -> Finding:
        self.asked.append(key)
        await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
async def repository() -> Repository:
    return Repository()


@pytest.fixture
async def start(repository: Repository) -> AsyncIterator[Callable[..., ReleaseBook]]:
    made: list[ReleaseBook] = []

    def start(**options: Any) -> ReleaseBook:
        made.append(ReleaseBook(repository.find, lambda: None, lambda: NOW, **options))
        return made[-1]

    yield start
    for book in made:
        await book.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.002)


async def test_a_lookup_never_holds_up_who_asks(repository, start) -> None:
    repository.gate.clear()
    book = start()
    book.want({KEY: ASKED})
    assert book.known() == {}
    await until(lambda: bool(repository.asked))
    book.want({KEY: ASKED})
    assert book.known() == {}
    repository.gate.set()
    await until(lambda: bool(book.known()))
    lookup = book.known()[KEY]
    assert (lookup.release, lookup.resolved_at, lookup.fault) == (release_of("2.0.0"), NOW, None)
    assert len(repository.asked) == 1


async def test_a_channel_is_looked_up_again_after_the_interval(repository, start) -> None:
    book = start(interval=1.0)
    book.want({KEY: ASKED})
    await until(lambda: bool(book.known()))
    repository.answer = Finding(release_of("3.0.0"))
    await until(lambda: book.known()[KEY].release == release_of("3.0.0"))


async def test_a_changed_policy_is_looked_up_at_once(repository, start) -> None:
    book = start(interval=3600.0)
    book.want({KEY: ASKED})
    await until(lambda: bool(book.known()))
    for _ in range(5):
        book.want({KEY: ASKED})
    await asyncio.sleep(0.02)
    assert len(repository.asked) == 1
    repository.answer = Finding(release_of("3.0.0"))
    book.want({KEY: frozenset({("uid", 2)})})
    await until(lambda: book.known()[KEY].release == release_of("3.0.0"))
    assert len(repository.asked) == 2


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (TrustError("timestamp.json expired"), Fault("TrustFailed", "timestamp.json expired")),
        (ReleaseTransferError("http://r: no connection"), Fault("ReleaseUnavailable", "http://r: no connection")),
        (ReleaseMissingError("it has beta"), Fault("ReleaseUnavailable", "it has beta")),
        (RuntimeError("a bug"), Fault("ReleaseUnavailable", "RuntimeError: a bug")),
    ],
)
async def test_what_went_wrong_is_known_by_reason_and_heals(repository, start, monkeypatch, error, fault) -> None:
    monkeypatch.setattr(releases, "FIRST_RETRY", 0.02)
    repository.answer = error
    book = start()
    book.want({KEY: ASKED})
    await until(lambda: bool(book.known()))
    assert (book.known()[KEY].release, book.known()[KEY].fault) == (None, fault)
    await until(lambda: len(repository.asked) >= 3)
    repository.answer = Finding(release_of("2.0.0"))
    await until(lambda: book.known()[KEY].fault is None)


async def test_the_last_good_answer_stays_beside_the_fault(repository, start) -> None:
    book = start()
    repository.answer = Finding(release_of("2.0.0"), NOW + 500)
    book.want({KEY: ASKED})
    await until(lambda: bool(book.known()))
    repository.answer = TrustError("bad signature")
    book.want({KEY: frozenset({("uid", 2)})})
    await until(lambda: book.known()[KEY].fault is not None)
    lookup = book.known()[KEY]
    assert (lookup.release, lookup.expires_at) == (release_of("2.0.0"), NOW + 500)


async def test_a_connection_that_drops_once_is_not_told(repository, start, monkeypatch) -> None:
    monkeypatch.setattr(releases, "FIRST_RETRY", 0.02)
    book = start(interval=3600.0)
    book.want({KEY: ASKED})
    await until(lambda: bool(book.known()))
    good = book.known()[KEY]
    repository.answer = ReleaseTransferError("connection reset")
    book.want({KEY: frozenset({("uid", 2)})})
    await until(lambda: len(repository.asked) == 2)
    await asyncio.sleep(0)
    assert book.known()[KEY] == good
    await until(lambda: book.known()[KEY].fault is not None)
    assert len(repository.asked) == 4, "the third failure in a row is told"
    assert book.known()[KEY].release == good.release


async def test_trust_is_looked_at_again_when_the_metadata_expires(repository, start, monkeypatch) -> None:
    monkeypatch.setattr(releases, "SOONEST", 0.02)
    book = start(interval=3600.0)
    repository.answer = Finding(release_of("2.0.0"), NOW + 0.05)
    book.want({KEY: ASKED})
    await until(lambda: bool(book.known()))
    repository.answer = TrustError("expired")
    await until(lambda: book.known()[KEY].fault == Fault("TrustFailed", "expired"))


async def test_what_nobody_asks_for_is_forgotten(repository, start) -> None:
    book = start(interval=0.0)
    repository.answer = Finding(release_of("2.0.0"), NOW + 500)
    book.want({KEY: ASKED})
    await until(lambda: bool(book.known()))
    expiry, labels = "careen_release_metadata_expiry_timestamp_seconds", {"repository": "http://r"}
    assert REGISTRY.get_sample_value(expiry, labels) == NOW + 500
    book.want({})
    assert book.known() == {}
    assert REGISTRY.get_sample_value(expiry, labels) is None
    asked = len(repository.asked)
    await asyncio.sleep(0.02)
    assert len(repository.asked) == asked


async def test_closing_ends_a_lookup_under_way(repository, start) -> None:
    repository.gate.clear()
    book = start()
    book.want({KEY: ASKED})
    await until(lambda: bool(repository.asked))
    async with asyncio.timeout(1):
        await book.close()
    assert book.known() == {}
