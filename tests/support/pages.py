"""The project's documents as tests see them: fenced blocks, inline code, links and anchors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHELL = ("", "sh", "shell", "bash", "console")
"""Languages of blocks that hold commands; a block without one may."""

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"\[[^\[\]]*\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_HEREDOC = re.compile(r"<<-?\s*['\"]?(\w+)['\"]?")


@dataclass(frozen=True)
class Block:
    """A fenced block. line: number of its first line in the page."""

    page: str
    line: int
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Its commands, each with its here-document and continued lines, without trailing comments."""
        found: list[str] = []
        lines = iter(self.text.splitlines())
        for line in lines:
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            command = re.sub(r"\s+# .*$", "", line)
            while command.endswith("\\"):
                command += "\n" + next(lines)
            if heredoc := _HEREDOC.search(command):
                while True:
                    command += "\n" + (body := next(lines))
                    if body.strip() == heredoc[1]:
                        break
            found.append(command)
        return found


@dataclass(frozen=True)
class Page:
    """A Markdown file. name: its path in the repository."""

    name: str
    text: str

    @property
    def blocks(self) -> Iterator[Block]:
        """All fenced blocks."""
        for found in _FENCE.finditer(self.text):
            yield Block(self.name, self.text.count("\n", 0, found.start()) + 2, found[1], found[2])

    @property
    def prose(self) -> str:
        """The text without fenced blocks."""
        return _FENCE.sub("", self.text)

    @property
    def inline(self) -> list[str]:
        """All inline code; a table's escaped bars are bars."""
        return [code.replace("\\|", "|") for code in _INLINE.findall(self.prose)]

    @property
    def links(self) -> list[str]:
        """Targets of all links and pictures."""
        return _LINK.findall(_INLINE.sub("", self.prose))

    @property
    def anchors(self) -> set[str]:
        """Anchors of all headings, as they are made for Markdown on the web."""
        made: set[str] = set()
        for heading in _HEADING.findall(self.prose):
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
            slug = re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-")
            number = 0
            while (numbered := f"{slug}-{number}" if number else slug) in made:
                number += 1
            made.add(numbered)
        return made


def read_page(name: str) -> Page:
    """One page by its path in the repository."""
    return Page(name, (ROOT / name).read_text(encoding="utf-8"))


def read_pages() -> list[Page]:
    """README and its neighbours, and all of docs/."""
    paths = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("charts/*/README.md")]
    return [read_page(str(path.relative_to(ROOT))) for path in sorted(paths)]
