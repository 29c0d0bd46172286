"""The release document: all that a machine must know of a release before it fetches a single block of it."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from .errors import ReleaseInvalidError
from .verity import BLOCK_BYTES, count_tree_bytes
from .versions import MAX_VERSION_CHARACTERS, VERSION_PATTERN

FORMAT_VERSION = 1
MAX_DOCUMENT_BYTES = 1 << 20
"""Longest document that is read."""
MAX_IMAGE_BYTES = 1 << 36
"""Largest image: 64 GiB. A machine holds about 150 bytes in memory for each block while it stages."""
MAX_FRAME_BLOCKS = 64
"""Most blocks in a frame, 256 KiB: a machine holds whole frames in memory."""
FRAME_BLOCKS = 16
"""Blocks in a frame: 64 KiB, the best of the sizes measured (smaller ones cost requests, larger ones bytes)."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Version = Annotated[str, Field(pattern=VERSION_PATTERN, max_length=MAX_VERSION_CHARACTERS)]
Name = Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z._-]*$", max_length=64)]
Length = Annotated[int, Field(ge=0, le=MAX_IMAGE_BYTES)]
RelativePath = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[0-9A-Za-z._+~@/-]+$")]


class _Model(BaseModel):
    # Unknown fields are ignored: a newer builder may say more, and a field that must be obeyed raises formatVersion.
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True, extra="ignore", frozen=True
    )


class StaticFile(_Model):
    """A file of the repository, authenticated by its hash in the signed document."""

    path: RelativePath
    """Where it lies, relative to the repository's URL, such as `files/<sha256>.tree`."""
    length: Length
    """Size in bytes."""
    sha256: Sha256
    """Hash of the whole file, hex."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_path(self.path)
        return self


class BootFile(_Model):
    """A kernel or initrd inside the image."""

    path: RelativePath
    """Where it lies, relative to /usr, such as `boot/vmlinuz`."""
    length: Length
    """Size in bytes."""
    sha256: Sha256
    """Hash of the file, hex."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_path(self.path)
        return self


class Image(_Model):
    """The OS for one architecture: a file system for /usr with its dm-verity hash tree behind it."""

    filesystem: Literal["ext4", "erofs"]
    """Kind of the file system."""
    size: Annotated[int, Field(ge=2 * BLOCK_BYTES, le=MAX_IMAGE_BYTES, multiple_of=BLOCK_BYTES)]
    """Size of the image in bytes: file system and hash tree. A slot needs one block of 4096 bytes more."""
    sha256: Sha256
    """Hash of the whole image, hex."""
    data_blocks: Annotated[int, Field(ge=1, le=MAX_IMAGE_BYTES // BLOCK_BYTES)]
    """Blocks of 4096 bytes in the file system; the hash tree begins behind the last."""
    verity_root: Sha256
    """Root hash of the dm-verity tree, hex."""
    kernel: BootFile | None = None
    """The kernel to boot it with; none when it comes from elsewhere."""
    initrd: BootFile | None = None
    """The initrd to boot it with, if any."""
    frame_blocks: Annotated[int, Field(ge=1, le=MAX_FRAME_BLOCKS)] = FRAME_BLOCKS
    """Blocks of 4096 bytes in a frame; the last frame may have fewer. Default 16."""
    tree: StaticFile
    """The superblock and hash tree as on disk, compressed by zstd: the index of all blocks."""
    table: StaticFile
    """The compressed length of every frame, a little-endian unsigned 32-bit number each, compressed by zstd."""
    frames: StaticFile
    """The frames one after the other, each an independent zstd frame of `frame_blocks` blocks of the file system."""

    @property
    def tree_bytes(self) -> int:
        """Size in bytes of the hash tree before compression."""
        return count_tree_bytes(self.data_blocks)

    @property
    def frame_count(self) -> int:
        """How many frames there are."""
        return -(-self.data_blocks // self.frame_blocks)

    @model_validator(mode="after")
    def _check(self) -> Self:
        needed = self.data_blocks * BLOCK_BYTES + self.tree_bytes
        if self.size != needed:
            raise ValueError(f"size is {self.size}; allowed: {needed}, the {self.data_blocks} blocks and their tree")
        # They are fetched as a whole, into memory.
        _check_packed("tree", self.tree, self.tree_bytes)
        _check_packed("table", self.table, 4 * self.frame_count)
        return self


class ReleaseDocument(_Model):
    """One version of the OS, for all its architectures. Its digest is the release's identity."""

    format_version: Annotated[int, Field(ge=1, le=FORMAT_VERSION)] = FORMAT_VERSION
    """Version of this format; a higher one than we know is refused."""
    version: Version
    """Version of the OS, in the UAPI.10 version format."""
    product: Name
    """What the OS is called; machines of another product refuse it."""
    min_version: Version | None = None
    """The floor: the oldest version that may update to this one. Default none: any."""
    state_version: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Version of the data below /var; a machine whose data is newer refuses the release. Default 0."""
    agent_protocol: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Protocol number of the agent in the image. Default 1."""
    capabilities: Annotated[tuple[Name, ...], Field(max_length=64)] = ()
    """What the OS can do, such as `trial-timer`: it reboots by itself when a trial boot is not committed in time."""
    images: Annotated[dict[Name, Image], Field(min_length=1, max_length=16)]
    """The images by architecture, named as `uname -m` does (x86_64, aarch64)."""

    @property
    def path(self) -> str:
        """Where the document lies in a repository, as a target name."""
        return release_path(self.version)

    @property
    def largest_image_bytes(self) -> int:
        """Size in bytes of the largest image."""
        return max(image.size for image in self.images.values())

    def dump(self) -> bytes:
        """The document's bytes: the same contents give the same bytes."""
        ordered = self.model_copy(update={"images": dict(sorted(self.images.items()))})
        return ordered.model_dump_json(by_alias=True, indent=1).encode() + b"\n"


def release_path(version: str) -> str:
    """Target name of a version's document."""
    return f"releases/{version}.json"


def channel_path(name: str) -> str:
    """Target name of a channel."""
    return f"channels/{name}.json"


def digest_document(data: bytes) -> str:
    """Digest of a release: `sha256:` and the hash of its document's bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def parse_document(data: bytes) -> ReleaseDocument:
    """Read a release document. Raises ReleaseInvalidError, which names the field, its value, and what is allowed."""
    if len(data) > MAX_DOCUMENT_BYTES:
        raise ReleaseInvalidError(f"the release document has {len(data)} bytes; allowed: {MAX_DOCUMENT_BYTES}")
    try:
        return ReleaseDocument.model_validate_json(data)
    except ValidationError as error:
        raise ReleaseInvalidError(f"the release document: {explain_invalid(error)}") from error


def explain_invalid(error: ValidationError) -> str:
    """A sentence on the first thing wrong with a document."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"])) or "it"
    if first["type"] == "value_error":
        # One of our own rules, whose sentence has the value already.
        return f"{place}: {first['ctx']['error']}"
    value = repr(first["input"])
    shown = value if len(value) <= 100 else value[:100] + "…"
    return f"{place} is {shown}: {first['msg']}"


def longest_packed(size: int) -> int:
    """Most bytes that zstd makes of `size` bytes."""
    return size + size // 128 + 512


def _check_packed(name: str, file: StaticFile, size: int) -> None:
    if file.length > longest_packed(size):
        raise ValueError(f"{name}.length is {file.length}; allowed: {longest_packed(size)}, as it holds {size} bytes")


def _check_path(path: str) -> None:
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError(f"path is {path!r}; allowed: a relative path without . and ..")
