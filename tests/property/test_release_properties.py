"""What holds for every version and every hash tree."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from careen.release.errors import VerityError
from careen.release.verity import BLOCK_BYTES, build_tree, check_tree, count_tree_bytes
from careen.release.versions import compare_versions

ANY_VERSION = st.text(alphabet="019ab.-~^+_ é", max_size=12)
PARTS = st.from_regex(r"\A[0-9]{1,3}|[a-z]{1,3}\Z", fullmatch=True)


@given(ANY_VERSION, ANY_VERSION, ANY_VERSION)
def test_versions_are_in_one_order(first: str, second: str, third: str) -> None:
    assert compare_versions(first, second) == -compare_versions(second, first)
    assert compare_versions(first, first) == 0
    if compare_versions(first, second) <= 0 and compare_versions(second, third) <= 0:
        assert compare_versions(first, third) <= 0


@given(PARTS, PARTS, st.sampled_from(".-^"))
def test_a_suffix_is_newer_and_a_pre_release_is_older(base: str, extra: str, separator: str) -> None:
    assert compare_versions(base, f"{base}{separator}{extra}") == -1
    assert compare_versions(f"{base}~{extra}", base) == -1
    assert compare_versions(f"{base}~{extra}", f"{base}{separator}{extra}") == -1


@given(st.integers(0, 10**30), st.integers(0, 10**30), st.integers(0, 5))
def test_numbers_count_by_value(left: int, right: int, zeros: int) -> None:
    expected = (left > right) - (left < right)
    assert compare_versions(f"1.{'0' * zeros}{left}", f"1.{right}") == expected


@settings(deadline=None)
@given(st.integers(1, 700), st.integers(0, 255))
def test_the_first_level_is_the_plain_hashes_of_the_blocks(count: int, seed: int) -> None:
    leaves = b"".join(hashlib.sha256(bytes([seed]) + str(number).encode()).digest() for number in range(count))
    tree = build_tree(leaves)
    assert len(tree.data) == count_tree_bytes(count)
    assert len(tree.data) % BLOCK_BYTES == 0
    assert check_tree(tree.data, count, tree.root) == leaves


@settings(deadline=None)
@given(st.integers(1, 400), st.data())
def test_no_single_bit_can_change(count: int, data: st.DataObject) -> None:
    tree = build_tree(hashlib.sha256(str(count).encode()).digest() * count)
    bit = data.draw(st.integers(0, len(tree.data) * 8 - 1))
    changed = bytearray(tree.data)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(VerityError):
        check_tree(bytes(changed), count, tree.root)


@settings(deadline=None)
@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=300), st.data())
def test_other_leaves_have_another_root(leaves: list[bytes], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(leaves) - 1))
    other = data.draw(st.binary(min_size=32, max_size=32))
    changed = [*leaves[:place], other, *leaves[place + 1 :]]
    same = build_tree(b"".join(leaves)).root == build_tree(b"".join(changed)).root
    assert same == (other == leaves[place])
