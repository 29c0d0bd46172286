"""Looking up releases in repositories with an unsigned index."""

import aiohttp

from careen.core.releases import Release, ReleaseKey
from careen.release.errors import ReleaseMissingError, ReleaseTransferError
from careen.release.index import INDEX_NAME, MAX_INDEX_BYTES, ReleaseIndex, parse_index

from .releases import Finding

TIMEOUT_SECONDS = 20.0


async def find_in_index(key: ReleaseKey) -> Finding:
    """The release of this version or digest. ReleaseTransferError, ReleaseMissingError."""
    try:
        index = await _fetch_index(key.repository)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        raise ReleaseTransferError(
            f"cannot read {key.repository}/{INDEX_NAME}: {error or type(error).__name__}"
        ) from error
    for version, entry in index.releases.items():
        if (key.kind, key.name) in (("version", version), ("digest", entry.digest)):
            return Finding(Release(key.repository, version, entry.digest, entry.size_bytes, entry.path))
    there = ", ".join(sorted(index.releases)[-5:]) or "nothing"
    raise ReleaseMissingError(f"{key.repository} has no release {key.name}; it has {there}")


async def _fetch_index(repository: str) -> ReleaseIndex:
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
