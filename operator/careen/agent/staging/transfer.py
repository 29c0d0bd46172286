"""Bytes from a release repository over HTTP: checked for length and range, timed, and asked for again elsewhere."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import aiohttp
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from careen.api.node import ErrorClass
from careen.release.manifest import StaticFile

from .fault import StageError
from .pace import Pace

TRIES_PER_MIRROR = 3
PIECE_BYTES = 64 * 1024

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@dataclass(frozen=True)
class Deadlines:
    """How long a repository may take, in seconds."""

    connect: float = 10.0
    """To accept the connection."""
    read: float = 30.0
    """To begin its answer."""
    piece: float = 60.0
    """To send 64 KiB more: a server that drips single bytes would otherwise never be given up."""
    pause: float = 0.5
    """Before the second try; each further pause is twice as long."""
    longest_pause: float = 10.0
    """The longest pause between two tries."""


class Body:
    """The body of one answer, of known length."""

    def __init__(self, response: aiohttp.ClientResponse, url: str, length: int, deadline: float, pace: Pace) -> None:
        self._content = response.content
        self._url = url
        self._length = length
        self._deadline = deadline
        self._pace = pace
        self._done = 0

    async def read(self, count: int) -> bytes:
        """The next `count` bytes. Raises StageError Transfer when they do not come, or not in time."""
        parts = bytearray()
        while len(parts) < count:
            part = await self._read_piece(min(PIECE_BYTES, count - len(parts)))
            self._done += len(part)
            parts += part
            await self._pace.take(len(part))
        return bytes(parts)

    async def expect_end(self) -> None:
        """Raises StageError Size if more comes than was asked for."""
        with _transfer_faults(self._url):
            async with asyncio.timeout(self._deadline):
                more = await self._content.read(1)
        if more:
            raise StageError("Size", f"{self._url} sends more than the {self._length} bytes declared")

    async def _read_piece(self, count: int) -> bytes:
        try:
            with _transfer_faults(f"{self._url} after {self._done} of {self._length} bytes", but=TimeoutError):
                async with asyncio.timeout(self._deadline):
                    return await self._content.readexactly(count)
        except asyncio.IncompleteReadError as error:
            done = self._done + len(error.partial)
            raise StageError("Transfer", f"{self._url} ended after {done} of {self._length} bytes") from error
        except TimeoutError as error:
            words = f"sent less than {count} bytes in {self._deadline:g} s, after {self._done} of {self._length} bytes"
            raise StageError("Transfer", f"{self._url} {words}") from error


class Transfer:
    """Fetches files of one release from a repository and its mirrors.

    places: URLs, the repository's first; each holds the same files. A file is asked for TRIES_PER_MIRROR times at each
    place, with growing pauses; the place that answered last is asked first.
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        places: Sequence[str],
        *,
        bytes_per_second: int | None = None,
        deadlines: Deadlines | None = None,
    ) -> None:
        self._http = http
        self._places = [place.rstrip("/") for place in places]
        self._pace = Pace(bytes_per_second)
        self._deadlines = deadlines or Deadlines()
        self._preferred = 0

    async def fetch_file(self, file: StaticFile) -> bytes:
        """A whole small file, proved by its hash. Raises StageError."""
        found: list[bytes] = []

        async def attempt(place: str) -> bool:
            async with self._open(f"{place}/{file.path}", None, file.length) as body:
                data = await body.read(file.length)
            if (digest := hashlib.sha256(data).hexdigest()) != file.sha256:
                raise StageError("Integrity", f"{place}/{file.path} has the sha256 {digest}; signed: {file.sha256}")
            found.append(data)
            return True

        await self.persist(attempt)
        return found[0]

    @asynccontextmanager
    async def open_range(self, place: str, file: StaticFile, start: int, length: int) -> AsyncIterator[Body]:
        """`length` bytes of a file from byte `start` on, asked for once at one place. Raises StageError."""
        async with self._open(f"{place}/{file.path}", (start, file.length), length) as body:
            yield body

    async def persist(self, attempt: Callable[[str], Awaitable[bool]]) -> None:
        """Call `attempt` with one place after the other until it gives True; False means that it is to go on.

        It goes on with a fresh count after each False, which an attempt only gives when it came forward. Raises the
        StageError of the last try when all tries at all places have failed; one of a wrong content goes before others.
        """
        done = await self._try(attempt)
        while not done:
            await asyncio.sleep(self._deadlines.pause)
            done = await self._try(attempt)

    async def _try(self, attempt: Callable[[str], Awaitable[bool]]) -> bool:
        faults: list[StageError] = []
        first, count = self._preferred, len(self._places)
        wait = self._deadlines
        pause = wait_exponential_jitter(multiplier=wait.pause, max=wait.longest_pause, jitter=wait.pause)
        try:
            async for retry in AsyncRetrying(
                stop=stop_after_attempt(TRIES_PER_MIRROR * count),
                # The other mirrors are asked at once; only the next round waits.
                wait=lambda state: 0.0 if state.attempt_number % count else pause(state),
                retry=retry_if_exception(_may_go_away),
                reraise=True,
            ):
                with retry:
                    place = (first + len(faults)) % count
                    try:
                        done = await attempt(self._places[place])
                    except StageError as error:
                        faults.append(error)
                        raise
                    # A place that breaks off is worth another try, but not before the others.
                    self._preferred = place if done else (place + 1) % count
                    return done
        except StageError as last:
            raise next((fault for fault in faults if fault.fault.class_ == "Integrity"), last) from last
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def _open(self, url: str, part: tuple[int, int] | None, length: int) -> AsyncIterator[Body]:
        """One request. part: first byte and size of the whole file; None asks for all of it."""
        wait = self._deadlines
        # Compression would make the declared lengths meaningless.
        headers = {"Accept-Encoding": "identity"}
        if part:
            headers["Range"] = f"bytes={part[0]}-{part[0] + length - 1}"
        timeout = aiohttp.ClientTimeout(total=None, connect=wait.connect)
        with _transfer_faults(url):
            async with asyncio.timeout(wait.connect + wait.read):
                response = await self._http.get(url, headers=headers, timeout=timeout)
        async with response:
            _check_answer(response, url, part, length)
            body = Body(response, url, length, wait.piece, self._pace)
            yield body
            await body.expect_end()


def _may_go_away(error: BaseException) -> bool:
    """Whether another try, or another place, may help: not with a disk that fails."""
    return isinstance(error, StageError) and error.fault.class_ != "Disk"


@contextmanager
def _transfer_faults(what: str, *, but: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Errors of the network as StageError. Only around network calls: a failing disk raises OSError too."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        if isinstance(error, but):
            raise
        raise StageError("Transfer", f"{what}: {str(error) or type(error).__name__}") from error


def _check_answer(response: aiohttp.ClientResponse, url: str, part: tuple[int, int] | None, length: int) -> None:
    expected = 206 if part else 200
    if response.status != expected:
        raise StageError("Transfer", f"{url} answered {response.status} {response.reason}; expected: {expected}")
    if part:
        wanted = (part[0], part[0] + length - 1, part[1])
        told = response.headers.get("Content-Range", "")
        match = _CONTENT_RANGE.fullmatch(told)
        if match is None or tuple(map(int, match.groups())) != wanted:
            raise StageError(
                "Transfer",
                f"{url} has the Content-Range {told!r}; asked for: bytes {wanted[0]}-{wanted[1]}/{wanted[2]}",
            )
    told_length = response.content_length
    if told_length is not None and told_length != length:
        class_: ErrorClass = "Size" if told_length > length else "Transfer"
        raise StageError(class_, f"{url} has {told_length} bytes; declared: {length}")
