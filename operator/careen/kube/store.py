"""A live copy of one kind: list once, watch for ever, never miss a delete.

An object that vanished while the watch was down would hold its place for ever; so every list is compared with what is
held. All versions are compared as integers (resourceVersions of one kind are ordered), which makes events, lists and
the answers of own writes safe to take in any order.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from careen.kube.errors import ApiError, Gone, ServerError, Stalled
from careen.kube.resources import Resource
from careen.kube.retry import retry_idempotent
from careen.kube.session import Session

T = TypeVar("T")
Key = tuple[str, str]

logger = logging.getLogger(__name__)

WATCH_SECONDS = 300
STALL_SECONDS = 75.0
# A watch that the server ended as agreed and that is open again this soon has missed nothing and counts as unbroken.
ROLLOVER_SECONDS = 2.0
# What arrives this soon after a watch was opened had happened before.
BACKLOG_SECONDS = 1.0
FIRST_BACKOFF = 0.2
# A stream that lived this long, or brought an event, clears the back-off.
HEALTHY_SECONDS = 5.0


class ChangeType(StrEnum):
    """What happened to an object, as the store's reader sees it."""

    ADDED = "Added"
    MODIFIED = "Modified"
    DELETED = "Deleted"


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """One change of one object. `old` is None when it was added, `new` when it is gone (or no longer worth keeping)."""

    type: ChangeType
    namespace: str
    name: str
    uid: str
    old: T | None
    new: T | None


@dataclass(frozen=True, slots=True)
class _Item(Generic[T]):
    """An object in the form the store holds it; value None: the decoder does not want it."""

    key: Key
    uid: str
    version: int
    value: T | None
    raw: dict[str, Any] | None


class Store(Generic[T]):
    """List+watch cache of one resource. `run()` must be running for it to stay up to date.

    `decode` makes the held value from an object's dict; None means not worth keeping (an older version of it is
    dropped). It must not raise: a raise ends `run()`, since an object that can't be read could be a lock's holder.
    `on_change` is called after each change, synchronously, when `objects` already shows it. `page` is the list's page
    size; `max_backoff` caps the seconds between attempts when the server fails; `keep_raw` keeps the dicts for `raw`.

    `objects`: live read-only view, by (namespace or "", name). `live_since`: since when (monotonic seconds) the watch
    has been unbroken; None before it first opened; it means something only while `live`. `last_event`: when the last
    event, bookmark or list arrived (monotonic seconds). `relists`: complete lists after the first. `last_error`: what
    went wrong since the watch was last open.
    """

    def __init__(
        self,
        session: Session,
        resource: Resource,
        *,
        decode: Callable[[dict[str, Any]], T | None],
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        on_change: Callable[[Change[T]], None] | None = None,
        page: int = 500,
        keep_raw: bool = False,
        stall: float = STALL_SECONDS,
        max_backoff: float = 10.0,
    ) -> None:
        self._session = session
        self.resource = resource
        self._path = resource.path(namespace)
        self._decode = decode
        self._selectors = _selectors(label_selector, field_selector)
        self._on_change = on_change
        self._page = page
        self._keep_raw = keep_raw
        self._stall = stall
        self._max_backoff = max_backoff
        self._held: dict[Key, _Item[T]] = {}
        self._objects: dict[Key, T] = {}
        self.objects: Mapping[Key, T] = MappingProxyType(self._objects)
        self._version = 0
        self._forgotten: set[str] = set()
        self._list_lock = asyncio.Lock()
        self._synced = asyncio.Event()
        self._open = False
        self._opened_at: float | None = None
        self._ended_at: float | None = None
        self._suspect = False
        self._failures = 0
        self.live_since: float | None = None
        self.last_event: float | None = None
        self.relists = 0
        self.last_error: ApiError | None = None

    @property
    def synced(self) -> bool:
        """Whether a complete list has been taken in once."""
        return self._synced.is_set()

    @property
    def live(self) -> bool:
        """Whether the watch is connected now (or was ended by the server as agreed less than 2 s ago)."""
        if self._open:
            return True
        return self._ended_at is not None and time.monotonic() - self._ended_at < ROLLOVER_SECONDS

    @property
    def resource_version(self) -> str:
        """Everything up to this version is in `objects`; "0" before the first list."""
        return str(self._version)

    def raw(self, namespace: str, name: str) -> dict[str, Any] | None:
        """The object as the server sent it; None if it is not held or the store was made without keep_raw."""
        item = self._held.get((namespace, name))
        return item.raw if item else None

    async def wait_synced(self, timeout: float) -> None:
        """Wait for the first complete list; TimeoutError, with the last failure's text, after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._synced.wait()
        except TimeoutError as error:
            why = f": {self.last_error}" if self.last_error else ""
            raise TimeoutError(f"no complete list of {self._path} within {timeout:g} s{why}") from error

    async def relist(self, timeout: float = 30.0) -> None:
        """Take in a consistent list that begins after this call. Raises the ApiError that stands after `timeout` s."""
        await retry_idempotent(self._list, deadline=timeout)

    def apply(self, obj: dict[str, Any]) -> None:
        """Take in the answer of an own write at once; ignored if something as new or newer is known already."""
        self._take(self._read(obj))

    def forget(self, namespace: str, name: str, uid: str) -> None:
        """Take in an own delete that the server has finished (not one that waits for finalizers or a grace period)."""
        held = self._held.get((namespace, name))
        if held is not None and held.uid == uid:
            self._forgotten.add(uid)
            self._drop(held)

    async def run(self) -> None:
        """Keep the copy up to date until cancelled. ApiErrors are retried for ever with back-off and logged."""
        must_list = not self.synced
        while True:
            self._opened_at = None
            try:
                if must_list:
                    await self._list()
                    must_list = False
                await self._watch()
                # Ended by the server as agreed: the version held is where the next one goes on.
                self._close(agreed=True)
                self._failures = 0 if self._was_healthy() else self._failures + 1
            except Stalled:
                # Without bookmarks (etcd may send none for minutes) a quiet kind looks like a dead connection. The
                # next watch tells them apart by what it brings at once.
                self._close(agreed=True)
                self._suspect, self._failures = True, 0
            except Gone as error:
                self._close(agreed=False)
                logger.info("%s: history is gone, listing again: %s", self._path, error.message)
                must_list, self.last_error = True, error
                self._failures += 1
            except ApiError as error:
                self._close(agreed=False)
                logger.log(logging.INFO if self._failures == 0 else logging.WARNING, "%s", error)
                self.last_error = error
                self._failures = 1 if self._was_healthy() else self._failures + 1
            except BaseException:
                self._close(agreed=False)
                raise
            await asyncio.sleep(self._pause())

    def _was_healthy(self) -> bool:
        """Whether this attempt's watch opened and was of any use: only then is the back-off cleared."""
        if self._opened_at is None:
            return False
        lived = time.monotonic() - self._opened_at
        return lived >= HEALTHY_SECONDS or (self.last_event or 0.0) > self._opened_at

    def _pause(self) -> float:
        """The first reconnect is immediate; then 0.2 s doubling up to the cap, or what the server asked for."""
        if self._failures <= 1:
            return 0.0
        wait = min(self._max_backoff, FIRST_BACKOFF * 2.0 ** min(self._failures - 2, 20))
        asked = self.last_error.retry_after if self.last_error else None
        return max(asked or 0.0, wait * random.uniform(0.5, 1.0))

    async def _list(self) -> None:
        """One consistent list (resourceVersion unset), page by page, taken in at once when it is complete."""
        async with self._list_lock:
            known_before, forgotten_before = self._version, set(self._forgotten)
            items: list[_Item[T]] = []
            token = ""
            while True:
                query: dict[str, str | int] = {"limit": self._page, **self._selectors}
                if token:
                    query["continue"] = token
                body = (await self._session.request("GET", self._path, query=query)).body
                if "items" not in body:
                    raise ServerError(200, "NoList", "the answer is no list", method="GET", path=self._path)
                items += [self._read(obj) for obj in body["items"] or ()]
                token = body["metadata"].get("continue") or ""
                if not token:
                    break
            self._take_list(items, int(body["metadata"]["resourceVersion"]), known_before)
            self._forgotten -= forgotten_before
            self.relists += 1 if self.synced else 0
            self.last_event = time.monotonic()
            self._synced.set()

    def _take_list(self, items: list[_Item[T]], version: int, known_before: int) -> None:
        if version < known_before:
            # A consistent list older than what was seen before it began: the server's data was restored from a backup.
            logger.warning("%s: versions went back from %d to %d", self._path, known_before, version)
            self._version = 0
            for held in list(self._held.values()):
                self._drop(held)
        listed = {item.key for item in items}
        for held in [held for key, held in self._held.items() if key not in listed and held.version <= version]:
            self._drop(held)
        for item in items:
            self._take(item)
        self._version = max(self._version, version)

    async def _watch(self) -> None:
        """Follow one watch from the version held until the server ends it."""
        start = self._version
        seconds = int(WATCH_SECONDS * random.uniform(0.8, 1.2))
        query: dict[str, str | int] = {
            "watch": "1",
            "resourceVersion": start,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": seconds,
            **self._selectors,
        }
        events = self._session.stream(self._path, query, stall=self._stall, on_open=self._opened)
        async with aclosing(events):
            async for event in events:
                self._take_event(event["type"], event["object"], start)

    def _take_event(self, kind: str, obj: dict[str, Any], start: int) -> None:
        self.last_event = time.monotonic()
        if self._suspect and kind != "BOOKMARK":
            self._suspect = False
            if self.last_event - (self._opened_at or 0.0) < BACKLOG_SECONDS:
                # This is what the stalled watch should have brought: it was dead, and there was a gap.
                self.live_since = self._opened_at
        version = int(obj["metadata"]["resourceVersion"])
        if version < start:
            raise Gone(410, "Expired", f"the watch from {start} brought version {version}: data was restored")
        if kind == "DELETED":
            self._take_deleted(obj, version)
        elif kind in ("ADDED", "MODIFIED"):
            self._take(self._read(obj))
        # A BOOKMARK only moves the version. A forced list may be ahead of a watch that lags behind.
        self._version = max(self._version, version)

    def _read(self, obj: dict[str, Any]) -> _Item[T]:
        meta = obj["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        # A finished delete has no later version with a deletionTimestamp unset; with it set, it was not finished.
        if meta["uid"] in self._forgotten and "deletionTimestamp" in meta:
            self._forgotten.discard(meta["uid"])
        try:
            value = self._decode(obj)
        except Exception as error:
            error.add_note(f"while reading {self._path} {key} at version {meta['resourceVersion']}")
            raise
        return _Item(key, meta["uid"], int(meta["resourceVersion"]), value, obj if self._keep_raw else None)

    def _take(self, item: _Item[T]) -> None:
        """Take in one version of one object, unless something newer is known about it."""
        if item.version <= self._version or item.uid in self._forgotten:
            return
        held = self._held.get(item.key)
        if held is not None and held.version >= item.version:
            return
        if held is not None and held.uid != item.uid:
            self._drop(held)
            held = None
        if item.value is None:
            if held is not None:
                self._drop(held)
            return
        self._held[item.key] = item
        self._objects[item.key] = item.value
        change = ChangeType.ADDED if held is None else ChangeType.MODIFIED
        self._tell(change, item, held.value if held else None, item.value)

    def _take_deleted(self, obj: dict[str, Any], version: int) -> None:
        meta = obj["metadata"]
        self._forgotten.discard(meta["uid"])
        held = self._held.get((meta.get("namespace", ""), meta["name"]))
        # An own write that made the object anew may have been taken in before the old one's delete arrives.
        if held is not None and (held.uid == meta["uid"] or held.version < version):
            self._drop(held)

    def _drop(self, held: _Item[T]) -> None:
        del self._held[held.key]
        del self._objects[held.key]
        self._tell(ChangeType.DELETED, held, held.value, None)

    def _tell(self, change: ChangeType, item: _Item[T], old: T | None, new: T | None) -> None:
        if self._on_change is not None:
            self._on_change(Change(change, item.key[0], item.key[1], item.uid, old, new))

    def _opened(self) -> None:
        now = time.monotonic()
        if self._ended_at is None or now - self._ended_at >= ROLLOVER_SECONDS:
            self.live_since = now
        self._open, self._opened_at, self._ended_at, self.last_error = True, now, None, None

    def _close(self, *, agreed: bool) -> None:
        self._ended_at = time.monotonic() if agreed and self._open else None
        self._open = False


def _selectors(label: str | None, field: str | None) -> dict[str, str | int]:
    found: dict[str, str | int] = {}
    if label:
        found["labelSelector"] = label
    if field:
        found["fieldSelector"] = field
    return found
