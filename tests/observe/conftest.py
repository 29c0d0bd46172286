"""A control plane for the module that asks for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from careen.sandbox.accounts import install
from careen.sandbox.binaries import SandboxError, ensure_binaries
from careen.sandbox.controlplane import ControlPlane
from careen.sandbox.progress import print_progress

SERVED = frozenset({"plane", "watched"})
"""Fixtures that start a control plane."""


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the control plane before the first test: a build takes longer than a test's time limit."""
    wanted = any(SERVED & set(getattr(item, "fixturenames", ())) for item in session.items)
    if session.config.option.collectonly or not wanted:
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled():
            ensure_binaries(ControlPlane().programs, print_progress)
    except SandboxError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    """A control plane with our kinds, accounts and admission policies."""
    with ControlPlane() as plane:
        install(plane)
        plane.warm_up()
        yield plane
