"""Looking up releases in signed repositories, each lookup in a thread of its own."""

import asyncio
import hashlib
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from careen.core.releases import Release, ReleaseKey
from careen.release.client import Found, ReleaseClient
from careen.release.errors import ReleaseTransferError, TrustError

from .releases import Finding

LOOKUP_SECONDS = 180.0
"""How long a lookup may take in all; each of its requests has a deadline of its own in the client."""
MOST_AT_ONCE = 8
MAX_ROOT_BYTES = 1 << 20
REMEDY = "--trust-root or CAREEN_TRUST_ROOT gives the operator the file with the repository's first root.json"


class SignedFinder:
    """Finds releases whose metadata is signed by the keys of the trust root.

    trust_root: file with the trusted root.json; read anew for each lookup, so that a new one needs no restart. cache:
    folder for signed metadata, so that a repository can't go back behind what was seen. clock: the API server's time.
    """

    def __init__(self, trust_root: Path | None, cache: Path, clock: Callable[[], float]) -> None:
        self._trust_root = trust_root
        self._cache = cache
        self._clock = clock
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)

    async def find(self, key: ReleaseKey) -> Finding:
        """The release. TrustError, ReleaseTransferError, ReleaseMissingError; OSError if the cache can't be used."""
        async with self._slots:
            try:
                async with asyncio.timeout(LOOKUP_SECONDS):
                    return await _in_daemon(lambda: self._look_up(key))
            except TimeoutError as error:
                late = f"{key.repository} has not answered within {LOOKUP_SECONDS:.0f} s"
                raise ReleaseTransferError(late) from error

    def _look_up(self, key: ReleaseKey) -> Finding:
        root = read_trust_root(self._trust_root)
        # Policies may have repositories of their own; a machine, which has the last word, follows one.
        cache = self._cache / hashlib.sha256(key.repository.rstrip("/").encode()).hexdigest()[:32]
        client = ReleaseClient(cache, root, lambda: datetime.fromtimestamp(self._clock(), UTC))
        find = {"channel": client.find_channel, "version": client.find_version, "digest": client.find_digest}[key.kind]
        return read_found(key.repository, find(key.repository, key.name))


def read_trust_root(path: Path | None) -> bytes:
    """The trusted root.json. TrustError that says what to do when there is none."""
    if path is None:
        raise TrustError(f"there is no trust root, so no release can be checked: {REMEDY}")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_ROOT_BYTES + 1)
    except OSError as error:
        raise TrustError(f"the trust root {path} can't be read: {error.strerror or error}; {REMEDY}") from error
    if not data or len(data) > MAX_ROOT_BYTES:
        raise TrustError(f"the trust root {path} has {len(data)} bytes; allowed: 1 to {MAX_ROOT_BYTES}")
    return data


def read_found(repository: str, found: Found) -> Finding:
    """What was found, as decisions see it."""
    document = found.document
    release = Release(
        repository=repository,
        version=document.version,
        digest=found.digest,
        size_bytes=document.largest_image_bytes,
        path=found.path,
        min_version=document.min_version,
        capabilities=tuple(document.capabilities),
        architectures=tuple(sorted(document.images)),
    )
    return Finding(release, found.expires.timestamp() if found.expires is not None else None)


async def _in_daemon(work: Callable[[], Finding]) -> Finding:
    """Run blocking work in a thread that nothing waits for: a slow repository must not hold up the process's end."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Finding] = loop.create_future()

    def settle(finding: Finding | None, error: Exception | None) -> None:
        if outcome.done():
            return  # Who asked has given up.
        if error is not None:
            outcome.set_exception(error)
        elif finding is not None:
            outcome.set_result(finding)

    def run() -> None:
        finding, failure = None, None
        try:
            finding = work()
        except Exception as error:
            failure = error
        with suppress(RuntimeError):  # The loop has ended meanwhile, and so has everybody who asked.
            loop.call_soon_threadsafe(settle, finding, failure)

    threading.Thread(target=run, name="release-lookup", daemon=True).start()
    return await outcome
