"""Getting the small signed files of a repository over HTTP: each request has a deadline and an upper bound in bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import aiohttp
from tuf.api.exceptions import DownloadError, DownloadHTTPError, DownloadLengthMismatchError, SlowRetrievalError
from tuf.ngclient import FetcherInterface

MAX_BYTES = 8 << 20
"""No file that goes this way is longer; each has a narrower bound of its own, checked by the caller."""
REQUEST_SECONDS = 30.0
"""How long one request may take, from the name lookup to the last byte. Default of the client."""


class Fetcher(FetcherInterface):
    """HTTP(S) for python-tuf. Its own fetchers bound only the gaps, so a server that drips could hold them for ever."""

    def __init__(self, seconds: float = REQUEST_SECONDS) -> None:
        self._seconds = seconds

    def _fetch(self, url: str) -> Iterator[bytes]:
        return iter((asyncio.run(_get(url, self._seconds)),))


async def _get(url: str, seconds: float) -> bytes:
    # No compression: what is bounded and hashed is what the file has. Proxies come from the environment.
    headers = {"Accept-Encoding": "identity"}
    timeout = aiohttp.ClientTimeout(total=None)
    try:
        async with (
            asyncio.timeout(seconds),
            aiohttp.ClientSession(timeout=timeout, headers=headers, trust_env=True) as client,
            client.get(url) as response,
        ):
            if response.status != 200:
                raise DownloadHTTPError(f"{url} answered {response.status} {response.reason}", response.status)
            return await _read(response, url)
    except TimeoutError as error:
        raise SlowRetrievalError(f"{url} took longer than {seconds:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise DownloadError(f"{url}: {words}") from error


async def _read(response: aiohttp.ClientResponse, url: str) -> bytes:
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > MAX_BYTES:
            raise DownloadLengthMismatchError(f"{url} has more than {MAX_BYTES} bytes")
    return bytes(body)
