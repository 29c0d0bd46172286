"""Fixtures of the decisions' tests."""

import pytest

from careen.core.snapshot import Requirement
from key_store import Store
from small_cluster import Cluster


@pytest.fixture
def cluster() -> Cluster:
    """An empty cluster of plain values."""
    return Cluster()


@pytest.fixture
def requirement() -> type[Requirement]:
    """The requirement of a selector."""
    return Requirement


@pytest.fixture
def store() -> Store:
    """An empty keyspace behind clients' requests."""
    return Store()
