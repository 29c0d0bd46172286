"""The checklists in docs/ name real tests, and every item once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
DOCS = TESTS.parent / "docs"
ROW = re.compile(r"^\| (\d+) \| .* \| (.*) \|$", re.MULTILINE)
LISTS = [("checklist-ab.md", 78, 60), ("checklist-fleet.md", 68, 25), ("checklist-etcd.md", 70, 25)]
"""Page, number of items, and tests that it names at least."""


@pytest.mark.parametrize(("page", "items"), [each[:2] for each in LISTS])
def test_every_item_is_there_once_and_says_what_shows_it(page: str, items: int) -> None:
    rows = ROW.findall((DOCS / page).read_text())
    assert [int(item) for item, _ in rows] == list(range(1, items + 1))
    for item, shown in rows:
        assert "::" in shown or shown.startswith(("not yet", "not here, because")), item


@pytest.mark.parametrize(("page", "least"), [(page, least) for page, _, least in LISTS])
def test_the_tests_that_it_names_exist(page: str, least: int) -> None:
    named = re.findall(r"`([\w/.]+)::(\w+)`", (DOCS / page).read_text())
    assert len(named) > least
    missing = [f"{path}::{name}" for path, name in named if not _defines(TESTS / path, name)]
    assert missing == []


def _defines(path: Path, name: str) -> bool:
    return path.is_file() and re.search(rf"^\s*(async )?def {name}\(", path.read_text(), re.MULTILINE) is not None
