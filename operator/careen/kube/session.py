"""One connection pool to the API server: plain requests with deadlines and typed errors, and watch streams."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from careen.kube.clock import ServerClock
from careen.kube.credentials import Endpoint, load_endpoint
from careen.kube.errors import ApiError, ConfigError, Stalled, Unreachable, error_from
from careen.kube.resources import describe_request

MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

# etcd takes objects up to 1.5 MiB by default; JSON with its watch envelope stays below this.
MAX_LINE = 4 * 1024 * 1024
# Longer than the once-a-minute renewals, so that those need no new TLS handshake; shorter than the API server's 90 s.
KEEPALIVE = 80.0
POOL_SIZE = 100
# A web socket may be quiet for hours; only an answer to a ping tells that its connection is alive.
SOCKET_HEARTBEAT = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer: HTTP status, JSON body, and the server's Date header.

    A body that is no JSON object (as the "ok" of /readyz) comes as {"message": its text}.
    """

    status: int
    body: dict[str, Any]
    date: datetime | None


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One finished request, for metrics: the audit log's verb and resource, HTTP code (0: no answer), seconds.

    A watch is recorded when its stream is open.
    """

    verb: str
    resource: str
    code: int
    seconds: float


class Session:
    """HTTP to one API server. Make it with `Session.connect`; safe for any number of requests at once."""

    def __init__(
        self,
        endpoint: Endpoint,
        reload: Callable[[], Any],
        *,
        user_agent: str,
        request_timeout: float,
        on_request: Callable[[RequestRecord], None] | None,
    ) -> None:
        self._endpoint = endpoint
        self._reload_endpoint = reload
        self._reloads = 0
        self._reload_lock = asyncio.Lock()
        self._user_agent = user_agent
        self._timeout = request_timeout
        self._on_request = on_request
        self._retired: list[aiohttp.ClientSession] = []
        self._pool = self._open_pool()
        self.clock = ServerClock()

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        kubeconfig: Path | None = None,
        context: str | None = None,
        *,
        user_agent: str,
        request_timeout: float = 30.0,
        on_request: Callable[[RequestRecord], None] | None = None,
    ) -> AsyncIterator[Session]:
        """Open a session for an `async with` block; no request is made yet.

        kubeconfig None: $KUBECONFIG, else the pod's service account, else ~/.kube/config. `request_timeout` is the
        deadline in seconds of each request that names none. `on_request` is called after each request. ConfigError
        if no usable configuration is found.
        """

        async def load() -> Endpoint:
            return await load_endpoint(kubeconfig, context)

        session = cls(await load(), load, user_agent=user_agent, request_timeout=request_timeout, on_request=on_request)
        try:
            yield session
        finally:
            await session.close()

    async def close(self) -> None:
        """Close all connections; requests in flight fail as Unreachable."""
        for pool in (*self._retired, self._pool):
            await pool.close()

    @property
    def host(self) -> str:
        """The API server's base URL."""
        return self._endpoint.host

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        timeout: float | None = None,
    ) -> Answer:
        """Send one request and wait for its answer, at most `timeout` seconds in all (None: the session's).

        Never retried, but for credentials that were renewed meanwhile (a 401 means that nothing was done). Raises a
        subclass of ApiError for an answer of 400 and above, and Unreachable for none.
        """
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        started = time.monotonic()
        status, text, headers = await self._send(method, path, query, data, content_type, timeout=timeout)
        ended = time.monotonic()
        date = _date(headers.get("Date"))
        self.clock.observe(date, ended, started)
        parsed = _parse(text)
        if status >= 400:
            raise error_from(status, parsed, method=method, path=path, retry_after=headers.get("Retry-After"))
        return Answer(status, parsed, date)

    async def fetch_text(
        self, path: str, *, query: Mapping[str, str | int] | None = None, timeout: float | None = None
    ) -> tuple[str, str]:
        """GET what is no JSON, as a kubelet's logs behind the API server: its media type and its text.

        Deadline, errors and retries are those of `request`.
        """
        status, text, headers = await self._send("GET", path, query, None, "", timeout=timeout)
        if status >= 400:
            raise error_from(status, _parse(text), method="GET", path=path)
        return headers.get("Content-Type", "").partition(";")[0].strip(), text.decode(errors="replace")

    @asynccontextmanager
    async def open_socket(
        self, path: str, query: Sequence[tuple[str, str]], *, protocols: Sequence[str]
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A web socket, as exec speaks it, for an `async with` block; the answer to opening it has the usual deadline.

        Raises ApiError for a refusal, and Unreachable for no answer.
        """
        url = self._url(path, query)
        started = time.monotonic()
        code = 0
        try:
            async with asyncio.timeout(self._timeout):
                socket = await self._pool.ws_connect(
                    url,
                    protocols=protocols,
                    headers=self._headers(None),
                    heartbeat=SOCKET_HEARTBEAT,
                    max_msg_size=MAX_LINE,
                    **self._tls_args(),
                )
            code = 101
        except aiohttp.WSServerHandshakeError as error:
            code = error.status
            raise error_from(code, {"message": error.message}, method="GET", path=path) from error
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise _unreachable(error, "GET", path) from error
        finally:
            self._record("GET", path, code, started)
        async with socket:
            yield socket

    async def stream(
        self,
        path: str,
        query: Mapping[str, str | int],
        *,
        stall: float = 75.0,
        on_open: Callable[[], None] | None = None,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the events of a watch until the server ends it.

        `stall`: seconds without a byte (headers included) after which the stream counts as dead. `on_open` is called
        when the server has accepted the watch. Raises ApiError for a refusal or an ERROR event in the stream (410 is
        Gone in both), Stalled for a silent stream, Unreachable for a broken or overlong one.
        """
        started = time.monotonic()
        code = 0
        try:
            async with await self._open_stream(path, query, stall) as response:
                code = response.status
                self._record("GET", path, code, started, watch=True)
                if code >= 400:
                    raise await _refusal(response, path)
                if on_open is not None:
                    on_open()
                splitter = LineSplitter()
                async for chunk in response.content.iter_any():
                    for line in splitter.feed(chunk):
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            status = event["object"]
                            raise error_from(int(status.get("code") or 500), status, method="WATCH", path=path)
                        yield event
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            if code == 0:
                self._record("GET", path, 0, started, watch=True)
            elif isinstance(error, TimeoutError):
                raise Stalled(f"nothing came for {stall:g} s", method="WATCH", path=path) from error
            raise _unreachable(error, "WATCH", path) from error

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int] | None,
        data: bytes | None,
        content_type: str,
        *,
        timeout: float | None,
    ) -> tuple[int, bytes, Mapping[str, str]]:
        limit = self._timeout if timeout is None else timeout
        started = time.monotonic()
        code = 0
        try:
            async with asyncio.timeout(limit):
                answer = await self._exchange(method, path, query, data, content_type)
            code = answer[0]
        except TimeoutError as error:
            raise Unreachable(f"no answer within {limit:g} s", method=method, path=path) from error
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(error, method, path) from error
        finally:
            self._record(method, path, code, started)
        return answer

    async def _exchange(
        self, method: str, path: str, query: Mapping[str, str | int] | None, data: bytes | None, content_type: str
    ) -> tuple[int, bytes, Mapping[str, str]]:
        url = self._url(path, query)
        for last in (False, True):
            seen = self._reloads
            try:
                async with self._pool.request(
                    method, url, data=data, headers=self._headers(content_type if data else None), **self._tls_args()
                ) as response:
                    text = await response.read()
                if response.status != 401 or last:
                    return response.status, text, response.headers
            except aiohttp.ClientConnectorCertificateError:
                if last:
                    raise
            await self._reload(seen)
        raise AssertionError("unreachable: the second try returns or raises")

    async def _open_stream(self, path: str, query: Mapping[str, str | int], stall: float) -> aiohttp.ClientResponse:
        url = self._url(path, query)
        # sock_read and not asyncio.timeout: a cancel scope around the yield above could hit the consumer instead.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=min(self._timeout, stall), sock_read=stall)
        async with asyncio.timeout(min(self._timeout, stall)):
            seen = self._reloads
            response = await self._pool.get(url, headers=self._headers(None), timeout=timeout, **self._tls_args())
            if response.status != 401:
                return response
            response.close()
            await self._reload(seen)
            return await self._pool.get(url, headers=self._headers(None), timeout=timeout, **self._tls_args())

    async def _reload(self, seen: int) -> None:
        """Read the credentials again, once for all the requests that were refused with the same ones."""
        async with self._reload_lock:
            if self._reloads != seen:
                return
            try:
                endpoint = await self._reload_endpoint()
            except ConfigError:
                # A file being replaced just now; the refusal itself is the better message.
                return
            changed = (endpoint.tls, endpoint.host) != (self._endpoint.tls, self._endpoint.host)
            self._endpoint, self._reloads = endpoint, self._reloads + 1
            if changed:
                # Watches and writes in flight keep the old pool's connections until they end.
                self._retired.append(self._pool)
                self._pool = self._open_pool()

    def _open_pool(self) -> aiohttp.ClientSession:
        tls = self._endpoint.tls.context() if self._endpoint.host.startswith("https") else True
        connector = aiohttp.TCPConnector(limit=POOL_SIZE, ssl=tls, keepalive_timeout=KEEPALIVE)
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            trust_env=True,
            headers={"User-Agent": self._user_agent, "Accept": "application/json"},
        )

    def _headers(self, content_type: str | None) -> dict[str, str]:
        headers = {} if content_type is None else {"Content-Type": content_type}
        authorization = self._endpoint.header()
        if authorization:
            headers["Authorization"] = authorization
        return headers

    def _tls_args(self) -> dict[str, Any]:
        args: dict[str, Any] = {}
        if self._endpoint.tls.server_name:
            args["server_hostname"] = self._endpoint.tls.server_name
        if self._endpoint.proxy:
            args["proxy"] = self._endpoint.proxy
        return args

    def _url(self, path: str, query: Mapping[str, str | int] | Sequence[tuple[str, str]] | None) -> URL:
        return URL(f"{self._endpoint.host}{path}" + (f"?{urlencode(query)}" if query else ""), encoded=True)

    def _record(self, method: str, path: str, code: int, started: float, *, watch: bool = False) -> None:
        if self._on_request is not None:
            verb, resource = describe_request(method, path, watch=watch)
            self._on_request(RequestRecord(verb, resource, code, time.monotonic() - started))


class LineSplitter:
    """Cuts a stream of chunks into lines, without copying a long line again for every chunk of it."""

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._length = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines, without newline and without empty ones, that this chunk completes; ValueError over the limit."""
        lines = chunk.split(b"\n")
        rest = lines.pop()
        if lines and self._parts:
            self._parts.append(lines[0])
            lines[0] = b"".join(self._parts)
            self._parts, self._length = [], 0
        if rest:
            self._parts.append(rest)
            self._length += len(rest)
        if self._length > self._limit or any(len(line) > self._limit for line in lines):
            raise ValueError(f"a line of the stream is longer than {self._limit} bytes")
        return [line for line in lines if line]


async def _refusal(response: aiohttp.ClientResponse, path: str) -> ApiError:
    body = _parse(await response.read())
    retry_after = response.headers.get("Retry-After")
    return error_from(response.status, body, method="WATCH", path=path, retry_after=retry_after)


def _parse(text: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(text) if text else {}
    except ValueError:
        parsed = None
    if isinstance(parsed, dict):
        return parsed
    # A proxy's page or the plain "ok" of a health check: keep what it says for the error message.
    return {"message": text[:300].decode(errors="replace")}


def _date(header: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(header) if header else None
    except ValueError:
        return None


def _unreachable(error: Exception, method: str, path: str) -> Unreachable:
    never_sent = isinstance(error, aiohttp.ClientConnectorError | aiohttp.InvalidURL)
    text = str(error) or type(error).__name__
    return Unreachable(text, method=method, path=path, maybe_done=not never_sent)
