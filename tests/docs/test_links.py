"""Links between documents lead somewhere."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

import pytest

from pages import ROOT, Page, read_page, read_pages

PAGES = read_pages()
_FILE = re.compile(r"(?:bench|charts|crds|docs|operator|tests|tools)/[\w./-]+")


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_somewhere(page: Page) -> None:
    assert find_dead(page) == []


def test_a_dead_link_is_found() -> None:
    text = "[a](docs/none.md) [b](docs/concepts.md#none) [c](#none) [d](https://example.com/x) [e](docs/disk.md)\n# One"
    assert find_dead(Page("README.md", text)) == ["docs/none.md", "docs/concepts.md#none", "#none"]


def test_every_page_is_reached_from_the_readme() -> None:
    names = {page.name for page in PAGES}
    # Alerts lead to their runbooks.
    reached, ahead = set(), ["README.md", *(name for name in names if name.startswith("docs/runbooks/"))]
    while ahead:
        name = ahead.pop()
        if name in names and name not in reached:
            reached.add(name)
            ahead += [_resolve(name, link.partition("#")[0]) for link in read_page(name).links]
    assert sorted(names - reached) == []


def test_tests_that_are_named_exist() -> None:
    named = re.findall(r"`([\w/.]+)::(\w+)`", read_page("docs/security.md").text)
    assert len(named) > 20
    assert [f"{path}::{name}" for path, name in named if not _defines(ROOT / "tests" / path, name)] == []


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_files_that_are_named_exist(page: Page) -> None:
    named = [code.partition("::")[0] for code in page.inline if _FILE.fullmatch(code.partition("::")[0])]
    assert [name for name in named if not (ROOT / name).exists()] == []


def find_dead(page: Page) -> list[str]:
    """Relative links of the page that lead nowhere."""
    found = []
    for link in page.links:
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        name = _resolve(page.name, path) if path else page.name
        if (path and not (ROOT / name).exists()) or (
            anchor and anchor not in (read_page(name) if path else page).anchors
        ):
            found.append(link)
    return found


def _resolve(page: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def _defines(path: Path, name: str) -> bool:
    return path.is_file() and re.search(rf"^(async )?def {name}\(", path.read_text(), re.MULTILINE) is not None
