"""Hash trees against veritysetup, and what a machine refuses of them."""

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from careen.release.errors import VerityError
from careen.release.verity import BLOCK_BYTES, ZERO_LEAF, build_tree, check_tree, count_tree_bytes, hash_block

VERITYSETUP = shutil.which("veritysetup", path="/usr/sbin:/sbin:/usr/bin") or "veritysetup"


def make_leaves(count: int, seed: int = 7) -> bytes:
    return random.Random(seed).randbytes(32 * count)


def split(data: bytes) -> bytes:
    return b"".join(hash_block(data[place : place + BLOCK_BYTES]) for place in range(0, len(data), BLOCK_BYTES))


@pytest.mark.parametrize("blocks", [1, 2, 127, 128, 129, 128 * 128, 128 * 128 + 1])
def test_veritysetup_accepts_our_tree(tmp_path: Path, blocks: int) -> None:
    data = random.Random(blocks).randbytes(blocks * BLOCK_BYTES)
    tree = build_tree(split(data))
    image = tmp_path / "image"
    image.write_bytes(data + tree.data)
    check = [VERITYSETUP, "verify", str(image), str(image), tree.root.hex(), f"--hash-offset={len(data)}"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    dumped = subprocess.run(
        [VERITYSETUP, "dump", str(image), f"--hash-offset={len(data)}"], capture_output=True, text=True, check=True
    ).stdout
    assert f"Data blocks:     \t{blocks}" in dumped
    assert "Salt:            \t-" in dumped


def test_veritysetup_makes_the_same_tree(tmp_path: Path) -> None:
    data, hashes = tmp_path / "data", tmp_path / "hashes"
    data.write_bytes(random.Random(1).randbytes(300 * BLOCK_BYTES))
    command = [VERITYSETUP, "format", "--hash=sha256", "--salt=-", str(data), str(hashes)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    tree = build_tree(split(data.read_bytes()))
    assert tree.root.hex() in shown
    # All but the superblock, whose UUID veritysetup throws dice for.
    assert hashes.read_bytes()[BLOCK_BYTES:] == tree.data[BLOCK_BYTES:]


@pytest.mark.parametrize("blocks", [1, 5, 128, 129, 20_000])
def test_a_good_tree_gives_its_leaves_back(blocks: int) -> None:
    leaves = make_leaves(blocks)
    tree = build_tree(leaves)
    assert len(tree.data) == count_tree_bytes(blocks)
    assert check_tree(tree.data, blocks, tree.root) == leaves


@pytest.mark.parametrize("place", [0, 511, 4095, 4096, 8192, -1])
def test_a_changed_byte_anywhere_is_refused(place: int) -> None:
    tree = build_tree(make_leaves(200))
    data = bytearray(tree.data)
    data[place] ^= 1
    with pytest.raises(VerityError, match="root hash"):
        check_tree(bytes(data), 200, tree.root)


def test_a_tree_of_another_size_or_root_is_refused() -> None:
    tree = build_tree(make_leaves(200))
    with pytest.raises(VerityError, match="16384 bytes; 400 blocks need 24576"):
        check_tree(tree.data, 400, tree.root)
    with pytest.raises(VerityError, match=f"expected: {'00' * 32}"):
        check_tree(tree.data, 200, bytes(32))
    with pytest.raises(VerityError, match="root hash"):
        # The same blocks in number of levels and bytes, but one leaf less: the padding would have to be a hash.
        check_tree(tree.data, 199, tree.root)
    with pytest.raises(VerityError, match="covers 0 blocks"):
        check_tree(b"", 0, tree.root)


def test_broken_leaves_and_blocks_are_refused() -> None:
    with pytest.raises(VerityError, match="33 bytes"):
        build_tree(bytes(33))
    with pytest.raises(VerityError, match="0 bytes"):
        build_tree(b"")
    with pytest.raises(VerityError, match="4095 bytes"):
        hash_block(bytes(4095))
    assert hash_block(bytes(BLOCK_BYTES)) == ZERO_LEAF
