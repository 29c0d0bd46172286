"""Options of the whole test run."""

import logging
import os
from collections.abc import Iterator

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a run use an existing cluster instead of a control plane of its own."""
    group = parser.getgroup("careen")
    group.addoption(
        "--kubeconfig",
        default=os.environ.get("CAREEN_KUBECONFIG"),
        help="run tests/api on this existing cluster (default: $CAREEN_KUBECONFIG, else a plane of our own)",
    )
    group.addoption(
        "--yes-this-context",
        metavar="NAME",
        help="the kubeconfig's current context, confirmed, unless its name begins with kind- or careen-: "
        "the tests delete objects",
    )


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Take back what a test sets up on the root logger, as `careen` itself does: its stream ends with the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
