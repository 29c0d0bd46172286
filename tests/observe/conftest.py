"""A control plane for the module that asks for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from careen.sandbox.accounts import install
from careen.sandbox.binaries import ensure_binaries
from careen.sandbox.controlplane import ControlPlane
from careen.sandbox.progress import print_progress


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    """A control plane with our kinds, accounts and admission policies."""
    plane = ControlPlane()
    ensure_binaries(plane.programs, print_progress)
    with plane:
        install(plane)
        plane.warm_up()
        yield plane
