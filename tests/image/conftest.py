"""The built image, from the cache where its inputs have not changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ociimage.build import Built, build_image
from ociimage.check import Content, read_archive
from ociimage.settings import ImageError

HERE = Path(__file__).parent


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Build it before the first test: the first build on a machine takes longer than a test's time limit."""
    if session.config.option.collectonly or not any(HERE in item.path.parents for item in session.items):
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled():
            build_image()
    except ImageError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.fixture(scope="session")
def built() -> Built:
    """The image."""
    return build_image()


@pytest.fixture(scope="session")
def content(built: Built) -> Content:
    """What is in it."""
    return read_archive(built.archive)
