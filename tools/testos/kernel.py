"""Kernel modules of a root tree, and what each of them needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Modules:
    """The modules of one kernel."""

    folder: Path
    """Where they are: usr/lib/modules/VERSION."""
    needs: dict[str, tuple[str, ...]]
    """By a module's path in the folder, the paths of all that it needs, directly or not, in the order of loading."""

    def find(self, names: tuple[str, ...]) -> list[str]:
        """Paths of the named modules and of all that they need, each after what it needs.

        Names that the kernel has no module for are left out: what one kernel has as a module, another has built in.
        """
        by_name = {_name(path): path for path in self.needs}
        paths = [by_name[name] for name in names if name in by_name]
        return list(dict.fromkeys(needed for path in paths for needed in (*self.needs[path], path)))


def read_modules(root: Path) -> Modules:
    """The modules of the only kernel in a root tree, as depmod listed them."""
    (folder,) = (root / "usr/lib/modules").iterdir()
    needs: dict[str, tuple[str, ...]] = {}
    for line in (folder / "modules.dep").read_text().splitlines():
        path, _, others = line.partition(":")
        # depmod lists what must be loaded first last.
        needs[path] = tuple(reversed(others.split()))
    return Modules(folder, needs)


def _name(path: str) -> str:
    return Path(path).name.split(".")[0].replace("-", "_")
