"""Looking up releases: a policy's version or digest in its repository's index, outside the plan's way."""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp

from careen.core.snapshot import Release
from careen.release.index import INDEX_NAME, MAX_INDEX_BYTES, ReleaseIndex, parse_index

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 20.0
FIRST_RETRY, LAST_RETRY = 2.0, 60.0
FORGET_SECONDS = 30.0
"""How long a found release is remembered; its rollout is stored long before."""
ReleaseKey = tuple[str, str]


@dataclass(slots=True)
class Entry:
    """What is known of one release key."""

    result: Release | str
    """Empty until the first lookup has ended."""
    at: float
    failures: int = 0
    task: asyncio.Task[None] | None = None
    retry_at: float | None = None


class ReleaseBook:
    """Answers for the release keys that the plan needs; each lookup runs as a task of its own."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._entries: dict[ReleaseKey, Entry] = {}
        self._wanted: frozenset[ReleaseKey] = frozenset()

    def known(self) -> dict[ReleaseKey, Release | str]:
        """What release keys resolve to; a sentence where they do not. Nothing of those still looked up at first."""
        return {key: entry.result for key, entry in self._entries.items() if entry.result}

    def want(self, keys: frozenset[ReleaseKey]) -> None:
        """Look up what is wanted and not known yet; forget what nobody wants any more."""
        self._wanted = keys
        now = time.monotonic()
        for key in [key for key, entry in self._entries.items() if key not in keys]:
            entry = self._entries[key]
            if entry.task is None and now - entry.at > FORGET_SECONDS:
                del self._entries[key]
        for key in keys:
            entry = self._entries.setdefault(key, Entry("", now))
            due = entry.retry_at is None or now >= entry.retry_at
            if entry.task is None and isinstance(entry.result, str) and due:
                entry.task = asyncio.create_task(self._look_up(key, entry))

    async def close(self) -> None:
        """Stop all lookups."""
        tasks = [entry.task for entry in self._entries.values() if entry.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look_up(self, key: ReleaseKey, entry: Entry) -> None:
        repository, wanted = key
        try:
            index = await fetch_index(repository)
            entry.result = find_release(index, repository, wanted)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            text = str(error) or type(error).__name__
            entry.result = f"cannot read {repository}/{INDEX_NAME}: {text}"
        finally:
            entry.task, entry.at = None, time.monotonic()
        if isinstance(entry.result, str):
            entry.failures += 1
            wait = min(LAST_RETRY, FIRST_RETRY * 2.0 ** min(entry.failures - 1, 8)) * random.uniform(0.8, 1.2)
            entry.retry_at = entry.at + wait
            logger.warning("release %s: %s", wanted, entry.result)
            asyncio.get_running_loop().call_later(wait, self._wake)
        self._wake()


async def fetch_index(repository: str) -> ReleaseIndex:
    """Fetch and parse a repository's index; ValueError for a bad or oversized one, aiohttp's errors for the rest."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    async with (
        aiohttp.ClientSession(timeout=timeout, trust_env=True) as client,
        client.get(f"{repository.rstrip('/')}/{INDEX_NAME}") as response,
    ):
        response.raise_for_status()
        body = bytearray()
        async for chunk in response.content.iter_chunked(65536):
            body += chunk
            if len(body) > MAX_INDEX_BYTES:
                raise ValueError(f"the index is larger than {MAX_INDEX_BYTES} bytes")
        return parse_index(bytes(body))


def find_release(index: ReleaseIndex, repository: str, wanted: str) -> Release | str:
    """The release of this version or digest, or a sentence that says what there is."""
    for version, entry in index.releases.items():
        if wanted in (version, entry.digest):
            return Release(repository, version, entry.digest, entry.size_bytes, entry.path)
    there = ", ".join(sorted(index.releases)[-5:]) or "nothing"
    return f"{repository} has no release {wanted}; it has {there}"
