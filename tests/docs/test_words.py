"""What the documents say of the command line and of make is there."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import typer.main

from careen.cli.main import app
from pages import ROOT, SHELL, Page, read_pages

PAGES = read_pages()
COMMANDS = typer.main.get_command(app)
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
FOREIGN = {
    "--concurrency": "kured",
    "--lock-ttl": "kured",
    "--panic-on-corruption": "veritysetup",
    "--server-side": "kubectl",
}
"""Flags that stand alone in a text and are another program's."""

_CALL = re.compile(r"(?:^|\$\(|&& |\| |; |kubectl |^    )careen((?: +(?!\| )[^\s;&)]+)*)", re.MULTILINE)
"""Where a command may stand: careen is a chart's and a release's name too."""
_PLACEHOLDER = re.compile(r"[A-Z…]")


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_commands_and_flags_exist(page: Page) -> None:
    assert [problem for code in _code(page) for problem in find_unknown(code)] == []


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_make_targets_exist(page: Page) -> None:
    named = {target for code in _code(page) for target in re.findall(r"(?:^|\s)make ([a-z][a-z-]*)", code)}
    assert sorted(named - TARGETS) == []


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("careen stats", "careen has no command stats"),
        ("careen release bild x", "careen release has no command bild"),
        ("careen status --wach", "careen status has no flag --wach"),
        ("careen disk show|shrink", "careen disk has no command shrink"),
        ('eval "$(careen sandbox env --none)"', "careen sandbox env has no flag --none"),
        ("careen crds | careen crd", "careen has no command crd"),
        ("--trust-rot FILE", "no command has a flag --trust-rot"),
    ],
)
def test_an_unknown_word_is_found(code: str, problem: str) -> None:
    assert find_unknown(code) == [problem]


def test_known_words_are_not() -> None:
    for code in (
        "careen disk show -i 3 -P DISK",
        "kubectl careen …",
        "careen lock set-max 0 --lock=LOCK",
        "careen plan os | less",
        "helm install careen charts/careen",
    ):
        assert find_unknown(code) == []


def find_unknown(code: str) -> list[str]:
    """What a piece of code says of the command line that is not so."""
    if flag := re.match(r"(--[a-z][a-z-]*)", code):
        return [] if flag[1] in FOREIGN or flag[1] in _all_flags() else [f"no command has a flag {flag[1]}"]
    return [problem for call in _CALL.findall(code.replace("\\\n", " ")) for problem in _check(call.split())]


def _check(words: list[str]) -> Iterator[str]:
    """Follow the words down the tree of commands, then look at the flags."""
    command, path = COMMANDS, "careen"
    flags = _flags(command)
    for word in words:
        if word == "|":
            return
        if word.startswith("-") and not re.fullmatch(r"-\d+", word):
            flag = word.partition("=")[0].rstrip("'\"`,.:")
            if flag not in flags:
                yield f"{path} has no flag {flag}"
        elif (known := getattr(command, "commands", None)) is not None:
            if _PLACEHOLDER.match(word):
                return
            names = word.rstrip(",.:").split("|")
            yield from (f"{path} has no command {name}" for name in names if name not in known)
            if any(name not in known for name in names):
                return
            command, path = known[names[0]], f"{path} {names[0]}"
            flags |= {flag for name in names for flag in _flags(known[name])}


def _flags(command: object) -> set[str]:
    found = {"--help", "-h", "--version"}
    for parameter in getattr(command, "params", ()):
        found |= {*parameter.opts, *parameter.secondary_opts}
    return found


def _all_flags(command: object = COMMANDS) -> set[str]:
    inner = getattr(command, "commands", {})
    return _flags(command).union(*(_all_flags(each) for each in inner.values()))


def _code(page: Page) -> Iterator[str]:
    """All code of a page that may hold commands."""
    yield from page.inline
    yield from re.findall(r"^    ((?:kubectl )?careen .*)", page.prose, re.MULTILINE)
    for block in page.blocks:
        if block.language in SHELL:
            yield block.text
