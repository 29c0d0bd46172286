"""Fixtures of the operator's tests."""

import pytest

from small_cluster import Cluster


@pytest.fixture
def cluster() -> Cluster:
    """An empty cluster of plain values."""
    return Cluster()
