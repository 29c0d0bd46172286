"""Where the end-to-end tests run: on the sandbox's control plane, or on the cluster of $CAREEN_E2E_KUBECONFIG."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from careen.sandbox.controlplane import ControlPlane
from careen.sandbox.progress import print_progress
from sites import ClusterSite, SandboxSite, Site

KUBECONFIG = "CAREEN_E2E_KUBECONFIG"


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the control plane before the first test: a build takes longer than a test's time limit."""
    if session.config.option.collectonly or os.environ.get(KUBECONFIG) or not session.items:
        return
    from careen.sandbox.binaries import SandboxError, ensure_binaries

    capture = session.config.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled():
            ensure_binaries(ControlPlane().programs, print_progress)
    except SandboxError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.fixture(scope="session")
def _site() -> Iterator[Site]:
    if named := os.environ.get(KUBECONFIG):
        site: Site = ClusterSite(Path(named))
    else:
        site = SandboxSite()
    with site:
        yield site


@pytest.fixture
def site(_site: Site) -> Iterator[Site]:
    """The fleet, at rest before and after each test."""
    _site.settle()
    yield _site
    _site.settle()
