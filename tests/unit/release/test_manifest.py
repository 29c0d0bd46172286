"""What a release document and a boot block may say."""

import json
from typing import Any

import pytest

from careen.release.bootblock import BOOT_BLOCK_BYTES, BootBlock, decode_boot_block
from careen.release.errors import ReleaseInvalidError
from careen.release.manifest import BootFile, ReleaseDocument, digest_document, parse_document


@pytest.fixture
def document(tmp_path: Any, write: Any) -> ReleaseDocument:
    found: ReleaseDocument = write(tmp_path / "build", "2026.11")
    return found


def change(document: ReleaseDocument, path: str, value: object) -> bytes:
    data = json.loads(document.dump())
    place = data
    *folders, last = path.split(".")
    for folder in folders:
        place = place[folder]
    place[last] = value
    return json.dumps(data).encode()


def test_a_document_reads_as_it_was_written(document: ReleaseDocument) -> None:
    data = document.dump()
    assert parse_document(data) == document
    assert parse_document(data).dump() == data
    assert document.path == "releases/2026.11.json"
    assert document.largest_image_bytes == document.images["x86_64"].size
    assert json.loads(data)["images"]["x86_64"]["dataBlocks"] == 300
    assert digest_document(data).startswith("sha256:")


def test_what_a_newer_builder_adds_is_ignored(document: ReleaseDocument) -> None:
    assert parse_document(change(document, "somethingNew", {"a": 1})) == document


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("formatVersion", 2, "formatVersion is 2: Input should be less than or equal to 1"),
        ("version", "1/../2", "version is '1/../2'"),
        ("version", "1..2", "version is '1..2'"),
        ("version", "1.0\n", r"version is '1.0\n'"),
        ("images", {}, "images is {}"),
        ("images.x86_64.size", 300 * 4096, "size is 1228800; allowed: 1249280, the 300 blocks and their tree"),
        ("images.x86_64.size", 4097, "images.x86_64.size is 4097"),
        ("images.x86_64.dataBlocks", 0, "images.x86_64.dataBlocks is 0"),
        ("images.x86_64.verityRoot", "AB" * 32, "images.x86_64.verityRoot is"),
        ("images.x86_64.filesystem", "squashfs", "images.x86_64.filesystem is 'squashfs'"),
        ("images.x86_64.tree.path", "../../etc/shadow", "path is '../../etc/shadow'; allowed: a relative path"),
        ("images.x86_64.tree.path", "/etc/shadow", "path is '/etc/shadow'; allowed: a relative path"),
        ("images.x86_64.tree.path", "files/x?y", "images.x86_64.tree.path is 'files/x"),
        ("images.x86_64.frames.length", -1, "images.x86_64.frames.length is -1"),
        ("images.x86_64.frameBlocks", 65, "images.x86_64.frameBlocks is 65"),
        ("images.x86_64.size", (1 << 36) + 4096, "images.x86_64.size is 68719480832"),
        ("images.x86_64.dataBlocks", (1 << 24) + 1, "images.x86_64.dataBlocks is 16777217"),
        ("images.x86_64.tree.length", 10**9, "tree.length is 1000000000; allowed: 21152, as it holds 20480 bytes"),
        ("images.x86_64.table.length", 10**9, "table.length is 1000000000; allowed: 588, as it holds 76 bytes"),
        ("capabilities", ["trial timer"], "capabilities.0 is 'trial timer'"),
    ],
)
def test_what_is_wrong_is_named(document: ReleaseDocument, path: str, value: object, words: str) -> None:
    with pytest.raises(ReleaseInvalidError) as caught:
        parse_document(change(document, path, value))
    assert words in str(caught.value)


def test_what_is_no_document_is_refused(document: ReleaseDocument) -> None:
    with pytest.raises(ReleaseInvalidError, match="2000000 bytes; allowed: 1048576"):
        parse_document(b" " * 2_000_000)
    with pytest.raises(ReleaseInvalidError, match="Invalid JSON"):
        parse_document(document.dump()[:100])


def test_a_boot_block_tells_how_to_start_a_slot(document: ReleaseDocument) -> None:
    kernel = BootFile(path="boot/vmlinuz", length=5, sha256="ab" * 32)
    image = document.images["x86_64"].model_copy(update={"kernel": kernel})
    whole = document.model_copy(update={"images": {"x86_64": image}})
    block = BootBlock.of(whole, digest_document(whole.dump()), "x86_64")
    data = block.encode()
    assert len(data) == BOOT_BLOCK_BYTES
    assert decode_boot_block(data) == block
    # As the first stage of a boot reads it, which has no Python.
    assert data[:8] == b"CAREENBB"
    length = int.from_bytes(data[8:12], "little")
    said = json.loads(data[12 : 12 + length])
    assert said["kernel"] == {"path": "boot/vmlinuz", "length": 5, "sha256": "ab" * 32}
    assert (said["verityRoot"], said["dataBlocks"], said["size"]) == ("cd" * 32, 300, image.size)
    assert not any(data[12 + length :])


def test_a_blank_slot_has_no_boot_block_and_a_torn_one_is_no_blank(document: ReleaseDocument) -> None:
    data = BootBlock.of(document, digest_document(document.dump()), "x86_64").encode()
    assert decode_boot_block(bytes(BOOT_BLOCK_BYTES)) is None
    with pytest.raises(ReleaseInvalidError, match="the boot block"):
        decode_boot_block(data[:100] + bytes(BOOT_BLOCK_BYTES - 100))
    with pytest.raises(ReleaseInvalidError, match="length is 4085; allowed: 4084"):
        decode_boot_block(data[:8] + (4085).to_bytes(4, "little") + data[12:])
    with pytest.raises(ReleaseInvalidError, match="512 bytes"):
        decode_boot_block(data[:512])
    with pytest.raises(KeyError):
        BootBlock.of(document, digest_document(document.dump()), "riscv64")
