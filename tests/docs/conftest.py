"""A sandbox that the documents' commands are run in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from careen.sandbox.binaries import SandboxError, ensure_binaries
from careen.sandbox.controlplane import ControlPlane
from careen.sandbox.progress import print_progress
from shells import Shell, open_shell


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the control plane before the first test: a build takes longer than a test's time limit."""
    if session.config.option.collectonly or not any("shell" in getattr(i, "fixturenames", ()) for i in session.items):
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled():
            ensure_binaries(ControlPlane().programs, print_progress)
    except SandboxError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell beside a sandbox that was started as the quick start says."""
    with open_shell(tmp_path_factory.mktemp("shell")) as made:
        yield made
