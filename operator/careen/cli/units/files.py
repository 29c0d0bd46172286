"""Unit files on the disk of who calls: what the words of a command line stand for there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from careen.cli.target import CommandError
from careen.units.file import MOST_BYTES
from careen.units.globs import META
from careen.units.names import SUFFIXES, complete_name, split_name


@dataclass(frozen=True, slots=True)
class UnitText:
    """A unit file that was read."""

    path: Path
    text: str


@dataclass(frozen=True, slots=True)
class Pick:
    """One unit, or one pattern of units, that a word stands for."""

    word: str
    """As it was given; of a folder, the file in it."""
    name: str
    """Full name of the unit, or the pattern."""
    file: UnitText | None = None
    """The file that is this unit."""
    template: UnitText | None = None
    """The file of its template, which lies where its own would."""
    from_folder: bool = False
    """Whether it was a folder that was named."""

    @property
    def is_pattern(self) -> bool:
        """Whether it stands for all units of the cluster that match it."""
        return self.file is None and bool(META & set(self.name)) and "\\" not in self.name


def read_picks(words: Iterable[str]) -> list[Pick]:
    """What the words stand for, files read. CommandError for a folder without unit files; OSError."""
    found = [pick for word in words for pick in (_read_folder(word) if Path(word).is_dir() else [_read_word(word)])]
    seen: dict[str, Pick] = {}
    for pick in found:
        known = seen.setdefault(pick.name, pick)
        if known.file is not None and pick.file is not None and known.file.text != pick.file.text:
            raise CommandError(f"{known.word} and {pick.word} are both {pick.name}: name one of them")
    return list(seen.values())


def name_picks(words: Iterable[str]) -> list[Pick]:
    """What the words stand for where only the cluster's units count; of a path, its base name.

    A folder stands for the units whose files are in it, and is named with a slash: `units/`, `./units`.
    """
    names = (name for word in words for name in _list_names(word))
    return [Pick(name, name) for name in dict.fromkeys(names)]


def read_text(path: Path) -> str:
    """The text of a unit file. CommandError for one that is too long, or not UTF-8; OSError."""
    with path.open("rb") as opened:
        content = opened.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise CommandError(f"{path}: content must have at most {MOST_BYTES} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise CommandError(f"{path}: content must be UTF-8: byte {error.start + 1} is not") from error


def _list_names(word: str) -> Iterator[str]:
    path = Path(word)
    # A bare word is a unit, whatever folder of that name happens to be here: these verbs stop things.
    if path.is_dir() and ("/" in word or word in (".", "..")):
        yield from (each.name for each in _list_files(path))
    else:
        yield complete_name(path.name)


def _list_files(folder: Path) -> list[Path]:
    files = sorted(each for each in folder.iterdir() if each.suffix[1:] in SUFFIXES and each.is_file())
    if not files:
        raise CommandError(f"{folder} holds no unit files; their names end in one of: .{', .'.join(SUFFIXES)}")
    return files


def _read_folder(word: str) -> list[Pick]:
    return [
        Pick(str(path), path.name, UnitText(path, read_text(path)), from_folder=True)
        for path in _list_files(Path(word))
    ]


def _read_word(word: str) -> Pick:
    given = Path(word)
    name = complete_name(given.name)
    path = given.with_name(name)
    file = UnitText(path, read_text(path)) if path.is_file() else None
    parts = split_name(name)
    template = None
    if file is None and parts.is_instance and parts.template is not None:
        beside = given.with_name(parts.template)
        template = UnitText(beside, read_text(beside)) if beside.is_file() else None
    return Pick(word, name, file, template)
