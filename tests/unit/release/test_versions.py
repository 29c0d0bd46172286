"""Version order against the format's own examples and systemd."""

import random
import shutil
import subprocess
from itertools import pairwise

import pytest

from careen.release.versions import compare_versions, version_key

# Rising; from the UAPI.10 text, and what people call their releases.
RISING = ["1~rc1", "1~rc2", "1", "1-1", "1-1.2", "1^1", "1.1~beta", "1.1", "1.2.3", "1.10", "122.1", "123~rc1-1"]
RISING += ["123", "123-a", "123-a.1", "123-1", "123-1.1", "123^post1", "123.a-1", "123.1-1", "123a-1", "124-1", "2026"]
MORE = ["2026.11", "2026.11-1", "2026.11a", "20261124", "20261124.1", "99999999999999999999", "100000000000000000000"]


def test_versions_rise() -> None:
    for older, newer in pairwise([*RISING, *MORE]):
        assert compare_versions(older, newer) == -1, (older, newer)
        assert compare_versions(newer, older) == 1, (newer, older)


@pytest.mark.parametrize(("left", "right"), [("1.01", "1.1"), ("1_a", "1+a"), ("7", "007"), ("1.0", "1.00")])
def test_versions_that_differ_in_writing_only_are_equal(left: str, right: str) -> None:
    assert compare_versions(left, right) == 0


def test_a_very_long_number_is_compared() -> None:
    assert compare_versions("9" * 10_000, "1" + "0" * 10_000) == -1


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_has_the_same_order() -> None:
    dice = random.Random(10)
    parts = ["0", "1", "01", "2", "10", "a", "b", "rc", "alpha"]
    for _ in range(60):
        left, right = (
            "".join(f"{dice.choice(parts)}{dice.choice('.-~^+_')}" for _ in range(dice.randrange(3)))
            + dice.choice(parts)
            for _ in range(2)
        )
        done = subprocess.run(["systemd-analyze", "compare-versions", left, right], capture_output=True, check=False)
        said = {0: 0, 11: 1, 12: -1}[done.returncode]
        assert compare_versions(left, right) == said, (left, right)


def test_keys_sort_a_repository() -> None:
    shuffled = random.Random(3).sample(RISING, len(RISING))
    assert sorted(shuffled, key=version_key) == RISING
