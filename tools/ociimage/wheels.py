"""The wheels of what Careen imports, by the hashes of requirements.lock."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from testos.cache import digest_inputs, keep

from .settings import PYTHON, TOP, ImageError

LOCK = TOP / "requirements.lock"
SECONDS = 900.0
_BLOCK = re.compile(r"^([a-z0-9._-]+)==.*\n(?:    .*\n)+", re.MULTILINE)


def read_requirements() -> str:
    """The part of the lock that the installed package needs: what pyproject.toml names, and what that needs."""
    blocks = {match[1]: match[0] for match in _BLOCK.finditer(LOCK.read_text())}
    needed_by = {name: _read_reasons(block) for name, block in blocks.items()}
    wanted = _read_dependencies()
    if missing := wanted - blocks.keys():
        raise ImageError(f"requirements.lock has no {', '.join(sorted(missing))}; renew it by make lock")
    while more := {name for name, reasons in needed_by.items() if reasons & wanted} - wanted:
        wanted |= more
    return "".join(blocks[name] for name in sorted(wanted))


def fetch_wheels() -> Path:
    """A folder of the cache with the wheels, each checked against its hash. Raises ImageError."""
    requirements = read_requirements()

    def build(folder: Path) -> None:
        (folder / "requirements.txt").write_text(requirements)
        machine = platform.machine()
        tags = [*(f"manylinux_2_{minor}_{machine}" for minor in range(36, 16, -1)), f"manylinux2014_{machine}"]
        _pip(
            "download", "--no-deps", "--require-hashes", "--only-binary=:all:", "--implementation=cp",
            f"--python-version={PYTHON}", *(f"--platform={tag}" for tag in tags), "--dest", str(folder),
            "--requirement", str(folder / "requirements.txt"),
        )  # fmt: skip

    return keep("wheels", digest_inputs(requirements, platform.machine()), build)


def _read_reasons(block: str) -> set[str]:
    """Names of the packages of the lock for whose sake this one is there."""
    _, _, reasons = block.partition("# via")
    return set(re.findall(r"[a-z0-9][a-z0-9._-]*", reasons)) - {"careen"}


def _read_dependencies() -> set[str]:
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    return {re.split(r"[<>=!~ \[;]", each)[0].lower() for each in project["dependencies"]}


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    if done.returncode:
        raise ImageError(f"pip failed: {done.stderr.strip()[-1000:]}")
