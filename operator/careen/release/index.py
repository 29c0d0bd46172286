"""The index of a release repository: one file, index.json, that names every release in it."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

INDEX_NAME = "index.json"
"""File name of the index, below the repository's URL."""
FORMAT_VERSION = 1
MAX_INDEX_BYTES = 4 * 1024 * 1024
"""Longest index that is read."""

Version = Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+_~-]*$", max_length=128)]


class IndexInvalidError(ValueError):
    """The index can't be used; the message names the field, its value, and what is allowed."""


class _Model(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True, extra="ignore", frozen=True
    )


class ReleaseEntry(_Model):
    """One release: an image, and what identifies it."""

    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    """`sha256:` and the image's hash: the release's identity."""
    size_bytes: Annotated[int, Field(ge=1)]
    """Size of the image in bytes."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Hash of the image; equal to the digest in this format version."""
    path: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[^/?#][^?#]*$")]
    """Path of the image, relative to the repository's URL."""
    capabilities: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    """What the OS in the image can do, such as a timer that ends a trial boot. Default none."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.digest != f"sha256:{self.sha256}":
            raise ValueError(f"sha256 is {self.sha256}; allowed: the hash in digest {self.digest}")
        if any(part in ("", ".", "..") for part in self.path.split("/")):
            raise ValueError(f"path is {self.path!r}; allowed: a path below the repository without . and ..")
        return self


class ReleaseIndex(_Model):
    """All releases of a repository."""

    format_version: Annotated[int, Field(ge=1, le=FORMAT_VERSION)]
    """Version of this format; a higher one than we know is refused."""
    releases: Annotated[dict[Version, ReleaseEntry], Field(max_length=10_000)]
    """Releases by version."""

    def find_digest(self, digest: str) -> tuple[str, ReleaseEntry] | None:
        """Version and entry of the release with this digest, the highest-sorted version if several have it."""
        found = [(version, entry) for version, entry in self.releases.items() if entry.digest == digest]
        return max(found, default=None, key=lambda pair: pair[0])

    def dump(self) -> bytes:
        """The file's contents."""
        return self.model_dump_json(by_alias=True, indent=2).encode() + b"\n"


def parse_index(data: bytes) -> ReleaseIndex:
    """Read an index. Raises IndexInvalidError."""
    if len(data) > MAX_INDEX_BYTES:
        raise IndexInvalidError(f"{INDEX_NAME} has {len(data)} bytes; allowed: {MAX_INDEX_BYTES}")
    try:
        return ReleaseIndex.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "document"
        value = repr(first["input"])
        shown = value if len(value) <= 100 else value[:100] + "…"
        raise IndexInvalidError(f"{INDEX_NAME}: {place} is {shown}: {first['msg']}") from error
