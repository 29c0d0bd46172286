"""The boot block: the last 4096 bytes of a slot, which tell whoever boots it what it holds and how to start it."""

from __future__ import annotations

import struct
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from .errors import ReleaseInvalidError
from .manifest import BootFile, ReleaseDocument, Sha256, Version, explain_invalid

BOOT_BLOCK_BYTES = 4096
MAGIC = b"CAREENBB"
_HEAD = struct.Struct("<8sI")


class BootBlock(BaseModel):
    """What a slot holds. Written after the image is verified, from the signed document."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True, extra="ignore", frozen=True
    )

    format: Literal[1] = 1
    """Version of this format."""
    version: Version
    """Version of the release in the slot."""
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    """Digest of the release in the slot."""
    verity_root: Sha256
    """Root hash of its dm-verity tree, hex."""
    data_blocks: Annotated[int, Field(ge=1)]
    """Blocks of 4096 bytes in the file system; the hash tree begins behind the last."""
    size: Annotated[int, Field(ge=1)]
    """Size of the image in bytes."""
    kernel: BootFile | None = None
    """The kernel in the image, if any."""
    initrd: BootFile | None = None
    """The initrd in the image, if any."""

    @classmethod
    def of(cls, document: ReleaseDocument, digest: str, architecture: str) -> Self:
        """The boot block for a slot that holds the image of `architecture`. Raises KeyError if there is none."""
        image = document.images[architecture]
        return cls(
            version=document.version,
            digest=digest,
            verity_root=image.verity_root,
            data_blocks=image.data_blocks,
            size=image.size,
            kernel=image.kernel,
            initrd=image.initrd,
        )

    def encode(self) -> bytes:
        """The block's 4096 bytes: magic, length of the JSON (little endian, 4 bytes), JSON, zeros."""
        text = self.model_dump_json(by_alias=True).encode()
        room = BOOT_BLOCK_BYTES - _HEAD.size
        if len(text) > room:
            raise ReleaseInvalidError(f"the boot block needs {len(text)} bytes; allowed: {room}")
        return (_HEAD.pack(MAGIC, len(text)) + text).ljust(BOOT_BLOCK_BYTES, b"\0")


def decode_boot_block(data: bytes) -> BootBlock | None:
    """The boot block in `data`, the last 4096 bytes of a slot; None if there is none (a blank or foreign slot).

    Raises ReleaseInvalidError for a block with the magic that can't be read: torn, or of a newer format.
    """
    if len(data) != BOOT_BLOCK_BYTES:
        raise ReleaseInvalidError(f"the boot block has {len(data)} bytes; allowed: {BOOT_BLOCK_BYTES}")
    magic, length = _HEAD.unpack_from(data)
    if magic != MAGIC:
        return None
    if length > BOOT_BLOCK_BYTES - _HEAD.size:
        raise ReleaseInvalidError(f"the boot block's length is {length}; allowed: {BOOT_BLOCK_BYTES - _HEAD.size}")
    try:
        return BootBlock.model_validate_json(data[_HEAD.size : _HEAD.size + length])
    except ValidationError as error:
        raise ReleaseInvalidError(f"the boot block: {explain_invalid(error)}") from error
