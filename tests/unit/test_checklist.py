"""The checklists under docs/ name real tests, and every item once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
DOCS = TESTS.parent / "docs"
ROW = re.compile(r"^\| (\d+) \| .* \| (.*) \|$", re.MULTILINE)
CHECKLISTS = {"checklist-ab.md": 78, "checklist-etcd.md": 70}


@pytest.mark.parametrize(("name", "items"), CHECKLISTS.items())
def test_every_item_is_there_once_and_says_what_shows_it(name: str, items: int) -> None:
    rows = ROW.findall((DOCS / name).read_text())
    assert [int(item) for item, _ in rows] == list(range(1, items + 1))
    for item, shown in rows:
        assert "::" in shown or shown.startswith(("not yet", "not here, because")), item


@pytest.mark.parametrize("name", CHECKLISTS)
def test_the_tests_that_it_names_exist(name: str) -> None:
    named = re.findall(r"`([\w/.]+)::(\w+)`", (DOCS / name).read_text())
    assert len(named) > 60
    missing = [f"{path}::{test}" for path, test in named if not _defines(TESTS / path, test)]
    assert missing == []


def _defines(path: Path, name: str) -> bool:
    return path.is_file() and re.search(rf"^\s*(async )?def {name}\(", path.read_text(), re.MULTILINE) is not None
