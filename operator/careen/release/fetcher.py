"""Getting the small signed files of a repository over HTTP: each request has a deadline and an upper bound in bytes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator

import aiohttp
from tuf.api.exceptions import DownloadError, DownloadHTTPError, DownloadLengthMismatchError, SlowRetrievalError
from tuf.ngclient import FetcherInterface

from .errors import ReleaseTransferError, TrustError
from .manifest import StaticFile

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


def fetch_file(repository: str, file: StaticFile, seconds: float = REQUEST_SECONDS) -> bytes:
    """A small file that a release document names, checked against it. Raises TrustError, ReleaseTransferError."""
    url = f"{repository.rstrip('/')}/{file.path}"
    try:
        data = asyncio.run(_get(url, seconds, file.length))
    except DownloadLengthMismatchError as error:
        raise TrustError(f"{url} has more than the {file.length} bytes that its document says") from error
    except DownloadError as error:
        raise ReleaseTransferError(str(error)) from error
    if (found := hashlib.sha256(data).hexdigest()) != file.sha256:
        raise TrustError(f"{url} has the hash {found}; its document says {file.sha256}")
    return data


async def _get(url: str, seconds: float, most: int = MAX_BYTES) -> bytes:
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
            return await _read(response, url, most)
    except TimeoutError as error:
        raise SlowRetrievalError(f"{url} took longer than {seconds:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise DownloadError(f"{url}: {words}") from error


async def _read(response: aiohttp.ClientResponse, url: str, most: int) -> bytes:
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > most:
            raise DownloadLengthMismatchError(f"{url} has more than {most} bytes")
    return bytes(body)
