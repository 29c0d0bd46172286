"""Helm, a control plane without Careen, and Careen on it by its chart."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from careen.sandbox.binaries import ensure_binaries
from careen.sandbox.client import Api, wait_until
from careen.sandbox.cluster import DEFINITIONS
from careen.sandbox.controlplane import ControlPlane
from careen.sandbox.nodes import NODES, TYPE, TYPE_LABEL, create_nodes, node_manifest
from careen.sandbox.processes import Child, kill
from careen.sandbox.progress import print_progress
from helm import CHART, NAMESPACE, RELEASE, Helm, HelmError
from podprocess import start_pod

PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
OPERATORS = "app.kubernetes.io/component=operator"
INFRA = ("infra-1", "infra-2")
BASE = "/apis/careen.dev/v1alpha1"


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what is missing before the first test: a build takes longer than a test's time limit."""
    if any(item.path.is_relative_to(Path(__file__).parent) for item in session.items):
        capture = session.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            ensure_binaries([*ControlPlane().programs, "helm"], print_progress)


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Helm without a cluster."""
    return Helm(ensure_binaries(["helm"], print_progress)["helm"], tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    """A control plane with two Nodes that only run pods."""
    with ControlPlane() as plane:
        api = plane.api()
        labels = {TYPE_LABEL: "infra", "role": "infra"}
        create_nodes(api, [node_manifest(name, f"zone-{name}", labels=labels) for name in INFRA])
        api.close()
        yield plane


@pytest.fixture(scope="session")
def admin(plane: ControlPlane) -> Iterator[Api]:
    """A client with the administrator's rights."""
    api = plane.api()
    yield api
    api.close()


@dataclass
class Install:
    """Careen on the control plane, by Helm. Operators run on the infra Nodes; machines are of the sandbox's type."""

    plane: ControlPlane
    admin: Api
    helm: Helm
    folder: Path
    chart: Path = CHART

    def set_up(self, *arguments: str | Path, chart: Path | None = None) -> None:
        """Install or upgrade, and wait until all is ready."""
        self.helm.run("upgrade", "--install", RELEASE, chart or self.chart, "--create-namespace", "--wait",
                      "--timeout=120s", *self.values, *arguments)  # fmt: skip

    @property
    def values(self) -> tuple[str, ...]:
        """Where operators run, and what is a machine."""
        escaped = TYPE_LABEL.replace(".", r"\.")
        return (
            "--set=operator.nodeSelector.role=infra",
            f"--set-string=machines.selector.{escaped}={TYPE}",
            "--set=operator.leaseSeconds=5",
        )

    def operator_pods(self) -> list[dict[str, Any]]:
        """The operator's pods that are to stay."""
        pods = self.admin.items(PODS, labelSelector=OPERATORS)
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def start_operators(self) -> list[Child]:
        """Run each operator's pod as a process, under its own token."""
        addresses = (f"127.0.7.{number}" for number in itertools.count(1))
        return [
            start_pod(self.plane, self.admin, pod, self.folder / pod["metadata"]["uid"], next(addresses))
            for pod in self.operator_pods()
        ]

    def remove(self) -> None:
        """Uninstall, and delete all that is kept."""
        with contextlib.suppress(HelmError):
            self.helm.run("uninstall", RELEASE, "--wait")
        for kind in self.admin.items(DEFINITIONS):
            if kind["spec"]["group"] == "careen.dev":
                self.admin.delete(f"{DEFINITIONS}/{kind['metadata']['name']}")
        left = lambda: [k for k in self.admin.items(DEFINITIONS) if k["spec"]["group"] == "careen.dev"]  # noqa: E731
        wait_until(lambda: not left(), "the kinds are gone", 60)
        for node in self.admin.items(NODES):
            if node["metadata"]["name"] not in INFRA:
                self.admin.delete(f"{NODES}/{node['metadata']['name']}")


@pytest.fixture
def bare(plane: ControlPlane, admin: Api, helm: Helm, tmp_path: Path) -> Iterator[Install]:
    """A cluster that Careen is not on yet; nothing is left on it afterwards."""
    own = Helm(helm._program, tmp_path / "helm", plane.kubeconfig)
    install = Install(plane, admin, own, tmp_path / "pods")
    yield install
    install.remove()


@pytest.fixture
def installed(bare: Install) -> Install:
    """A cluster with Careen on it, as the chart has it."""
    bare.set_up()
    return bare


@pytest.fixture
def run_operators(installed: Install) -> Iterator[Callable[[Path], list[Child]]]:
    """Gives the chart a trust root, and runs the operator's pods as processes until the test ends."""
    running: list[Child] = []

    def run(trust_root: Path) -> list[Child]:
        installed.set_up(f"--set-file=trust.root={trust_root}")
        running.extend(installed.start_operators())
        return running

    yield run
    kill(running)
