"""Two real nodes for the tests: kubelet and containerd in virtual machines, our chart, and the agents in its pods."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ociimage.build import build_image as build_container_image
from ociimage.settings import REFERENCE
from testos.debian import TestOsError
from testos.image import build_loader, build_node_image
from testos.node.cluster import Cluster
from testos.node.golden import Golden, build_golden
from testos.node.pods import build_pod_images
from testos.variant import Fault, Variant

from .workload import Workload

HERE = Path(__file__).parent
TEST_SECONDS = 1800
JOIN_SECONDS = 240.0
"""How long a copy of the saved node may take until it takes pods and its agent runs: ten times what it takes alone."""
NEXT_REFERENCE = f"{REFERENCE.rpartition(':')[0]}:next"
"""A second name of the same image, to which the agents are upgraded."""
VARIANTS = {
    "1": Variant("1"),
    "2": Variant("2"),
    "3": Variant("3", Fault.PANIC),
    "4": Variant("4", Fault.NO_POD_NETWORK),
    "5": Variant("5"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("cluster")
            item.add_marker(pytest.mark.timeout(TEST_SECONDS))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what is missing before the first test, where people see it: it takes longer than a test's time limit."""
    if session.config.option.collectonly or not any(item.get_closest_marker("cluster") for item in session.items):
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled():
            for variant in VARIANTS.values():
                build_node_image(variant)
            make_golden()
    except TestOsError as error:
        raise pytest.UsageError(str(error)) from None


def make_golden() -> Golden:
    """The saved node with version 1, from the cache if it is there."""
    archives = [build_pod_images(), build_container_image().archive]
    return build_golden(build_node_image(VARIANTS["1"]), build_loader(), archives, {NEXT_REFERENCE: REFERENCE})


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster of all tests: each leaves it with both nodes at work. Starting it takes a minute."""
    with Cluster(make_golden()) as made:
        for variant in VARIANTS.values():
            made.publish(build_node_image(variant))
        for name in made.names:
            made.wait_works(name, JOIN_SECONDS)
            made.wait_reported(name, JOIN_SECONDS)
        made.tell("both nodes take pods, and their agents have reported")
        yield made


@pytest.fixture(scope="session")
def workload(cluster: Cluster) -> Workload:
    """Two pods of which one must always run."""
    made = Workload(cluster)
    made.create()
    return made
