"""The control plane under the tests, and fresh objects for each of them."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from admissions import make_fleet
from careen.api.meta import GROUP
from careen.sandbox.accounts import install, mint_agent_token, mint_operator_token
from careen.sandbox.binaries import SandboxError, ensure_binaries
from careen.sandbox.client import Api, ApiError, wait_until
from careen.sandbox.cluster import DEFINITIONS, Cluster
from careen.sandbox.controlplane import ControlPlane
from careen.sandbox.existing import ExistingCluster
from careen.sandbox.nodes import FAKE_ANNOTATION, NODES
from careen.sandbox.progress import print_progress

HERE = Path(__file__).parent

# In this order: an owner goes before what it would make again.
WORKLOADS = (
    "/apis/apps/v1/namespaces/{}/deployments",
    "/apis/apps/v1/namespaces/{}/daemonsets",
    "/apis/apps/v1/namespaces/{}/statefulsets",
    "/apis/apps/v1/namespaces/{}/replicasets",
    "/apis/batch/v1/namespaces/{}/jobs",
    "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "/api/v1/namespaces/{}/pods",
    "/apis/coordination.k8s.io/v1/namespaces/{}/leases",
    "/api/v1/namespaces/{}/events",
)
NODE_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
NAMESPACE = "careen-test"
WIPE_SECONDS = 30.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("api")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the control plane before the first test: a build takes longer than a test's time limit."""
    config = session.config
    needed = any(item.get_closest_marker("api") for item in session.items)
    if not needed or config.option.collectonly:
        return
    # On an existing cluster, its fixture knows what to do about a program that can't be built.
    names = ["kubectl", "kwok"] if config.getoption("--kubeconfig") else ControlPlane().programs
    capture = config.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled():
            ensure_binaries(names, print_progress)
    except SandboxError as error:
        if not config.getoption("--kubeconfig"):
            raise pytest.UsageError(str(error)) from None


@pytest.fixture(scope="session")
def plane(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The cluster of the whole run, with our kinds, accounts and admission policies.

    Its objects are wiped after each test that uses it, the default lock included.
    """
    with _make_cluster(request.config) as cluster:
        _make_namespace(cluster)
        install(cluster)
        cluster.warm_up()
        yield cluster


@pytest.fixture
def own_plane(plane: Cluster) -> ControlPlane:
    """The run's cluster where it is our own: for what needs the audit log, etcd, or any user's rights."""
    if not isinstance(plane, ControlPlane):
        pytest.skip("needs a control plane of its own")
    return plane


@pytest.fixture(scope="session")
def admin(plane: Cluster) -> Iterator[Api]:
    """A synchronous client with the administrator's rights."""
    api = plane.api()
    yield api
    api.close()


@pytest.fixture
def fleet(plane: Cluster, admin: Api, operator_api: Api) -> Iterator[None]:
    """Two machines with an order each, their agents' Leases, and one of each other kind."""
    yield from make_fleet(plane, admin, operator_api)


@pytest.fixture(scope="session")
def namespace(plane: Cluster) -> str:
    """The namespace for the workloads of tests; it is wiped after each of them."""
    return NAMESPACE


@pytest.fixture(autouse=True)
def _fresh_objects(request: pytest.FixtureRequest) -> Iterator[None]:
    """Wipe after each test, when the processes that the test's other fixtures started have ended."""
    if "plane" not in request.fixturenames:
        yield
        return
    api: Api = request.getfixturevalue("admin")
    plane: Cluster = request.getfixturevalue("plane")
    yield
    _wipe(api, owned=isinstance(plane, ControlPlane))


def _make_cluster(config: pytest.Config) -> ControlPlane | ExistingCluster:
    existing = config.getoption("--kubeconfig")
    if not existing:
        return ControlPlane()
    try:
        return ExistingCluster(Path(existing), confirmed_context=config.getoption("--yes-this-context"))
    except SandboxError as error:
        pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)


def _make_namespace(cluster: Cluster) -> None:
    """Make the tests' namespace, which must have its service account before it takes pods."""
    api = cluster.api()
    with contextlib.suppress(ApiError):
        api.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    account = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default"
    wait_until(lambda: api.find(account) is not None, f"service account in {NAMESPACE}", 30)
    api.close()


def _own_definitions(api: Api) -> list[dict[str, Any]]:
    return [each for each in api.items(DEFINITIONS) if each["spec"]["group"] == GROUP]


def _wipe(api: Api, *, owned: bool) -> None:
    """Delete what tests make, again and again until all of it is gone.

    On a cluster that is not ours only fake nodes, our kinds, and namespaces called careen… are touched.
    """
    deadline = time.monotonic() + WIPE_SECONDS
    while left := _delete_round(api, owned=owned):
        if time.monotonic() > deadline:
            pytest.fail(f"still there {WIPE_SECONDS:g} s after the test: {', '.join(left)}")
        time.sleep(0.05)


def _delete_round(api: Api, *, owned: bool) -> list[str]:
    """Delete all that is there; the paths of the lists that were not empty."""
    names = [each["metadata"]["name"] for each in api.items("/api/v1/namespaces")]
    spaces = [name for name in names if name.startswith("careen") or (owned and name == "default")]
    lists = [path.format(name) for name in spaces for path in WORKLOADS]
    lists += [_path(definition) for definition in _own_definitions(api)]
    if owned:
        lists += [NODES, NODE_LEASES]
    left = [path for path in lists if _delete_all(api, path)]
    for name in spaces:
        api.delete(f"/api/v1/namespaces/{name}/configmaps/careen-switch")
    if not owned:
        fake = [node["metadata"]["name"] for node in api.items(NODES) if _is_fake(node)]
        for name in fake:
            api.delete(f"{NODES}/{name}")
        left += fake
    return left


def _path(definition: dict[str, Any]) -> str:
    spec = definition["spec"]
    version = next(each["name"] for each in spec["versions"] if each["storage"])
    return f"/apis/{spec['group']}/{version}/{spec['names']['plural']}"


def _is_fake(node: dict[str, Any]) -> bool:
    return FAKE_ANNOTATION in node["metadata"].get("annotations", {})


def _delete_all(api: Api, path: str) -> bool:
    """Delete all objects of a list at once, finalizers or not; False when it was empty."""
    found = api.items(path)
    for each in found:
        if each["metadata"].get("finalizers"):
            with contextlib.suppress(ApiError):
                api.patch(f"{path}/{each['metadata']['name']}", {"metadata": {"finalizers": None}})
    if found:
        api.delete(path, gracePeriodSeconds="0", propagationPolicy="Background")
    return bool(found)


@pytest.fixture(scope="session")
def _accounts(plane: Cluster) -> None:
    """The accounts, kinds and policies as the sandbox installs them."""
    install(plane)


@pytest.fixture
def operator_api(plane: Cluster, admin: Api, _accounts: None) -> Iterator[Api]:
    """A client with the operator's own account: it alone makes careen Nodes and orders."""
    api = Api(plane.kubeconfig_with_token(mint_operator_token(admin)))
    yield api
    api.close()


@pytest.fixture
def agent_api(plane: Cluster, admin: Api, _accounts: None) -> Iterator[Callable[[str], Api]]:
    """Makes clients with the token of the agent on the core Node named, which must exist."""
    made: list[Api] = []

    def make(node: str) -> Api:
        made.append(Api(plane.kubeconfig_with_token(mint_agent_token(admin, node))))
        return made[-1]

    yield make
    for api in made:
        api.close()
