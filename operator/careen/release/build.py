"""Building a release for one architecture: file system, hash tree, frames, document. The same tree, the same bytes."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import uuid
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import zstandard
from pydantic import ValidationError

from .errors import BuildError
from .filesystem import make_erofs, make_ext4
from .manifest import FRAME_BLOCKS, BootFile, Image, ReleaseDocument, StaticFile, explain_invalid
from .repository import DOCUMENT_NAME
from .tree import Entry, list_tree
from .verity import BLOCK_BYTES, build_tree, hash_block

IMAGE_NAME = "image"
"""Name of the image in the folder of a built release, for writing it to a slot by other means."""
SOURCE_DATE = 1_000_000_000
"""Default of the latest time in an image, in seconds since 1970."""
COMPRESSION_LEVEL = 9
KERNEL_PATH, INITRD_PATH = "boot/vmlinuz", "boot/initrd.img"

_NAMESPACE = uuid.UUID("0b6f7a52-6c3c-5d0c-9a0e-3f2f1d4c8e71")
_FRAME_BYTES = FRAME_BLOCKS * BLOCK_BYTES
_CHUNK_FRAMES = 64


@dataclass(frozen=True)
class Build:
    """What to build."""

    tree: Path
    """A root file system, of which usr/ is taken, or a /usr tree."""
    version: str
    product: str
    architecture: str
    """As `uname -m` names it."""
    filesystem: Literal["ext4", "erofs"] = "ext4"
    kernel: Path | None = None
    """Goes to boot/vmlinuz, unless it lies in the tree. Default: the tree's boot/vmlinuz, if there is one."""
    initrd: Path | None = None
    """Goes to boot/initrd.img, unless it lies in the tree. Default: the tree's boot/initrd.img, if there is one."""
    min_version: str | None = None
    state_version: int = 0
    agent_protocol: int = 1
    capabilities: tuple[str, ...] = ()
    filesystem_bytes: int | None = None
    """Size of the ext4 file system. A fixed size keeps more blocks of two releases equal. Default: what is needed."""
    source_date: int = SOURCE_DATE
    """Later times are set to this one, in seconds since 1970."""
    all_root: bool = False
    """Let everything belong to root, whoever owns it in the tree."""
    level: int = COMPRESSION_LEVEL
    """zstd level, 1 to 19."""


def build_release(build: Build, out: Path) -> ReleaseDocument:
    """Build into the folder `out`: release.json, files/ and image. An earlier build there is replaced.

    Same tree (contents, names, modes, owners, links, capabilities) and same settings: same bytes. Raises BuildError
    for what can't be built, and OSError.
    """
    if out.exists() and any(out.iterdir()) and not (out / DOCUMENT_NAME).exists():
        raise BuildError(f"{out} is not empty and holds no build; give an empty folder")
    usr = build.tree / "usr" if (build.tree / "usr").is_dir() else build.tree
    if not usr.is_dir():
        raise BuildError(f"{build.tree} is no folder; allowed: a root file system or a /usr tree")
    if out.resolve().is_relative_to(usr.resolve()):
        raise BuildError(f"{out} lies in the tree that is built; give a folder elsewhere")
    work = out / ".work"
    with suppress(FileNotFoundError):
        shutil.rmtree(work)
    (work / "files").mkdir(parents=True)
    try:
        document = _build_into(build, usr, work)
        _replace_build(work, out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return document


def _build_into(build: Build, usr: Path, work: Path) -> ReleaseDocument:
    kernel, kernel_extra = _place_boot_file(usr, build.kernel, KERNEL_PATH)
    initrd, initrd_extra = _place_boot_file(usr, build.initrd, INITRD_PATH)
    entries = list_tree(usr, kernel_extra | initrd_extra, source_date=build.source_date, all_root=build.all_root)
    image = work / IMAGE_NAME
    _make_filesystem(build, entries, image)
    try:
        packed = _pack(image, work / "files", build.level)
        document = ReleaseDocument(
            version=build.version,
            product=build.product,
            min_version=build.min_version,
            state_version=build.state_version,
            agent_protocol=build.agent_protocol,
            capabilities=build.capabilities,
            images={build.architecture: Image(filesystem=build.filesystem, kernel=kernel, initrd=initrd, **packed)},
        )
    except ValidationError as error:
        raise BuildError(f"the release document: {explain_invalid(error)}") from error
    (work / DOCUMENT_NAME).write_bytes(document.dump())
    return document


def _make_filesystem(build: Build, entries: list[Entry], image: Path) -> None:
    # Of the product alone: ext4 seeds its checksums with it, so a new one for each release would change every block
    # of metadata.
    name = uuid.uuid5(_NAMESPACE, build.product)
    if build.filesystem == "ext4":
        size = build.filesystem_bytes
        if size is not None and (size <= 0 or size % BLOCK_BYTES):
            raise BuildError(f"the file system's size is {size}; allowed: a multiple of {BLOCK_BYTES} bytes")
        make_ext4(entries, image, uuid=name, source_date=build.source_date, size=size)
    else:
        if build.filesystem_bytes is not None:
            raise BuildError("a size is given for erofs, which has none; allowed: ext4")
        make_erofs(entries, image, uuid=name, source_date=build.source_date)


def _place_boot_file(usr: Path, given: Path | None, path: str) -> tuple[BootFile | None, dict[str, Path]]:
    """The kernel or initrd as the document names it, and what is to be put into the tree for it."""
    there = usr / path
    if given is None:
        if not there.exists():
            return None, {}
        given = there
    if not given.is_file():
        raise BuildError(f"{given} is no file; allowed: a kernel or an initrd")
    real, base = given.resolve(), usr.resolve()
    extra: dict[str, Path] = {}
    if real.is_relative_to(base):
        path = real.relative_to(base).as_posix()
    else:
        extra = {path: given}
    with given.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        return BootFile(path=path, length=given.stat().st_size, sha256=digest), extra
    except ValidationError as error:
        raise BuildError(f"{given}: {explain_invalid(error)}") from error


def _pack(image: Path, files: Path, level: int) -> dict[str, object]:
    """Hash and compress the file system in `image`, append its hash tree, and write the three files.

    Returns the fields of Image that follow. In chunks, several at once: an image need not fit into memory.
    """
    whole, frames_hash = hashlib.sha256(), hashlib.sha256()
    leaves, lengths = bytearray(), []
    fresh = files / "frames"
    with fresh.open("wb") as frames:
        for chunk, hashes, packed in _compress(image, level):
            whole.update(chunk)
            leaves += hashes
            for frame in packed:
                lengths.append(len(frame))
                frames_hash.update(frame)
                frames.write(frame)
    tree = build_tree(bytes(leaves))
    whole.update(tree.data)
    with image.open("ab") as file:
        file.write(tree.data)
    digest = frames_hash.hexdigest()
    frames_file = StaticFile(path=f"files/{digest}.frames", length=sum(lengths), sha256=digest)
    fresh.rename(files.parent / frames_file.path)
    compressor = zstandard.ZstdCompressor(level=level)
    table = struct.pack(f"<{len(lengths)}I", *lengths)
    return {
        "size": image.stat().st_size,
        "sha256": whole.hexdigest(),
        "data_blocks": len(leaves) // 32,
        "verity_root": tree.root.hex(),
        "frame_blocks": FRAME_BLOCKS,
        "tree": _write_file(files, "tree", compressor.compress(tree.data)),
        "table": _write_file(files, "table", compressor.compress(table)),
        "frames": frames_file,
    }


def _compress(image: Path, level: int) -> Iterator[tuple[bytes, bytes, list[bytes]]]:
    """Each chunk of the image with its leaves and frames, in order."""
    workers = os.cpu_count() or 1
    waiting: deque[Future[tuple[bytes, bytes, list[bytes]]]] = deque()
    with image.open("rb") as file, ThreadPoolExecutor(workers) as threads:
        while chunk := file.read(_CHUNK_FRAMES * _FRAME_BYTES):
            waiting.append(threads.submit(_compress_chunk, chunk, level))
            # No more in memory than the threads have use for.
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _compress_chunk(chunk: bytes, level: int) -> tuple[bytes, bytes, list[bytes]]:
    view = memoryview(chunk)
    hashes = b"".join(hash_block(view[at : at + BLOCK_BYTES]) for at in range(0, len(chunk), BLOCK_BYTES))
    # A compressor of its own: they are not safe to share, and hold no state from frame to frame.
    compressor = zstandard.ZstdCompressor(level=level, write_content_size=True, write_checksum=False)
    frames = [compressor.compress(view[at : at + _FRAME_BYTES]) for at in range(0, len(chunk), _FRAME_BYTES)]
    return chunk, hashes, frames


def _write_file(files: Path, kind: str, data: bytes) -> StaticFile:
    digest = hashlib.sha256(data).hexdigest()
    (files / f"{digest}.{kind}").write_bytes(data)
    return StaticFile(path=f"files/{digest}.{kind}", length=len(data), sha256=digest)


def _replace_build(work: Path, out: Path) -> None:
    # The document last and first: whoever finds one finds the files that it names.
    (out / DOCUMENT_NAME).unlink(missing_ok=True)
    shutil.rmtree(out / "files", ignore_errors=True)
    for name in ("files", IMAGE_NAME, DOCUMENT_NAME):
        (work / name).replace(out / name)
