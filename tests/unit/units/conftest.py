"""A cluster with units, and the command line on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from careen.cli.main import run
from unit_api import UnitApi, serve_units, write_kubeconfig

WEB = "[Service]\nExecStart=/bin/web\n"


@pytest.fixture
def api() -> Iterator[UnitApi]:
    with serve_units() as server:
        yield server


@pytest.fixture
def kubeconfig(api: UnitApi, tmp_path: Path) -> Path:
    return write_kubeconfig(api, tmp_path / "kubeconfig")


@pytest.fixture
def careen(kubeconfig: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run `careen unit …`: exit code, standard output, standard error."""

    def call(*words: Any) -> tuple[int, str, str]:
        code = run("careen", ["--kubeconfig", str(kubeconfig), "unit", *map(str, words)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "units"
    made.mkdir()
    return made
