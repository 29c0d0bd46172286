"""What these tests need of the machine they run on."""

import shutil

import pytest


@pytest.fixture
def busybox() -> str:
    """busybox, which tools/packages vm installs."""
    found = shutil.which("busybox")
    if found is None:
        pytest.skip("busybox is not installed (tools/packages vm)")
    return found
