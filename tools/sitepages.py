"""Hooks of mkdocs: README.md and its neighbours become pages of the site, and links from and to them hold there."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
TOP = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
"""Files beside docs/, and the pages that they become."""
FOLDER = "docs"
LINK = re.compile(r"(?<!!)\[([^\[\]]+)\]\(([^()\s]+)\)|!\[([^\[\]]*)\]\(([^()\s]+)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put pages that nav does not name at its end, those of a folder under its name."""
    named = set(_named(config.nav))
    folder = Path(config.docs_dir)
    for path in sorted(path.relative_to(folder) for path in folder.rglob("*.md")):
        if str(path) in named:
            continue
        title = path.parent.name.capitalize() or "More"
        section = next((each for each in config.nav if isinstance(each, dict) and title in each), None)
        if section is None:
            config.nav.append(section := {title: []})
        section[title].append(str(path))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files beside docs/."""
    for name, page in TOP.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn the links of a file of the repository into links of the site."""
    source = next((name for name, made in TOP.items() if made == page.file.src_uri), f"{FOLDER}/{page.file.src_uri}")

    def turn(found: re.Match[str]) -> str:
        image, text, target = found[4] is not None, found[1] or found[3] or "", found[2] or found[4]
        if re.match(r"[a-z]+:|#", target):
            return found[0]
        path, sharp, anchor = target.partition("#")
        wanted = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        there = TOP.get(wanted) or (wanted.removeprefix(f"{FOLDER}/") if wanted.startswith(f"{FOLDER}/") else None)
        if there is None:
            return text  # A file that only the repository has.
        turned = posixpath.relpath(there, posixpath.dirname(page.file.src_uri) or ".")
        return f"{'!' if image else ''}[{text}]({turned}{sharp}{anchor})"

    return LINK.sub(turn, markdown)


def _named(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, dict):
        yield from _named(list(nav.values()))
    else:
        for each in nav or ():
            yield from _named(each)
