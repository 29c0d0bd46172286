"""The operator's lookups in a signed repository: channels that move, trust that is lost and comes back."""

import asyncio
import http.server
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from careen.control import releases
from careen.control.releases import ReleaseBook
from careen.control.signed import SignedFinder
from careen.core.releases import Lookup, ReleaseKey
from careen.release.errors import ReleaseMissingError, TrustError
from careen.release.repository import sign_repository

ASKED = frozenset({("uid", 1)})


def clock_of(shop: Any) -> Callable[[], float]:
    def clock() -> float:
        return float(shop.now.timestamp())

    return clock


def finder_of(shop: Any, root: Path | None = None) -> SignedFinder:
    if root is None:
        root = shop.base / "root.json"
        root.write_bytes(shop.root)
    return SignedFinder(root, shop.base / "operator", clock_of(shop))


def key_of(shop: Any, kind: str = "channel", name: str = "stable") -> ReleaseKey:
    return ReleaseKey(shop.url, kind, name)


async def test_a_release_is_found_with_all_that_gates_and_orders_need(shop: Any) -> None:
    published = shop.publish("1.2", "beta", architectures=("x86_64", "aarch64"))
    finder = finder_of(shop)
    finding = await finder.find(key_of(shop, name="beta"))
    release = finding.release
    assert (release.version, release.digest, release.path) == ("1.2", published.digest, "releases/1.2.json")
    assert release.architectures == ("aarch64", "x86_64")
    assert release.size_bytes > 0
    assert finding.expires_at == shop.now.timestamp() + 7 * 86_400, "the timestamp is the first to run out"
    for kind, name in (("version", "1.2"), ("digest", published.digest)):
        assert await finder.find(key_of(shop, kind, name)) == finding


async def test_what_is_not_there_is_told_with_what_is(shop: Any) -> None:
    with pytest.raises(ReleaseMissingError, match="has no channel edge; it has stable"):
        await finder_of(shop).find(key_of(shop, name="edge"))


@pytest.mark.parametrize(
    ("name", "said"),
    [("missing.json", "No such file.*--trust-root or CAREEN_TRUST_ROOT"), ("empty.json", "has 0 bytes")],
)
async def test_a_trust_root_that_is_of_no_use_is_named(shop: Any, name: str, said: str) -> None:
    (shop.base / "empty.json").touch()
    with pytest.raises(TrustError, match=f"{name}.*{said}"):
        await finder_of(shop, shop.base / name).find(key_of(shop))


async def test_without_a_trust_root_it_says_which_option_gives_one(shop: Any) -> None:
    finder = SignedFinder(None, shop.base / "operator", clock_of(shop))
    with pytest.raises(TrustError, match="--trust-root or CAREEN_TRUST_ROOT"):
        await finder.find(key_of(shop))


async def test_a_repository_that_never_answers_is_given_up(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(3)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hanging)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("careen.control.signed.LOOKUP_SECONDS", 0.1)
    try:
        started = time.monotonic()
        with pytest.raises(releases.ReleaseError, match="has not answered within"):
            await finder_of(shop).find(ReleaseKey(f"http://127.0.0.1:{server.server_port}", "channel", "stable"))
        assert time.monotonic() - started < 2
    finally:
        server.shutdown()
        server.server_close()


async def follow(book: ReleaseBook, key: ReleaseKey, holds: Callable[[Lookup], bool]) -> Lookup:
    async with asyncio.timeout(20):
        while not holds(book.known().get(key, Lookup())):
            await asyncio.sleep(0.01)
    return book.known()[key]


async def test_trust_is_lost_and_comes_back_by_itself(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releases, "FIRST_RETRY", 0.05)
    monkeypatch.setattr(releases, "SOONEST", 0.05)
    key, book = key_of(shop), ReleaseBook(finder_of(shop).find, lambda: None, clock_of(shop), 0.05)
    book.want({key: ASKED})
    try:
        found = await follow(book, key, lambda lookup: lookup.release is not None)
        shop.publish("1.2", "stable")
        await follow(book, key, lambda lookup: lookup.release is not None and lookup.release.version == "1.2")
        good = shop.save()
        path = shop.metadata("timestamp.json")
        path.write_bytes(path.read_bytes().replace(b'"version"', b'"Version"'))
        lost = await follow(book, key, lambda lookup: lookup.fault is not None)
        assert lost.fault is not None
        assert lost.fault.reason == "TrustFailed"
        assert lost.release is not None
        assert lost.release.version == "1.2"
        shop.restore(good)
        await follow(book, key, lambda lookup: lookup.fault is None)
        shop.pass_time(days=8)
        late = await follow(book, key, lambda lookup: lookup.fault is not None)
        assert late.fault is not None
        assert late.fault.reason == "TrustFailed"
        assert "timestamp.json expired at" in late.fault.message
        sign_repository(shop.folder, shop.signers, now=shop.clock)
        healed = await follow(book, key, lambda lookup: lookup.fault is None)
        assert (healed.expires_at or 0) > (found.expires_at or 0)
    finally:
        await book.close()
